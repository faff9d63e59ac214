"""
What importing farthing may load.

Goal: `import farthing` is cheap and works where nothing but the standard library is installed. Method: fresh
interpreters, one that refuses every third-party module, one that says what it loaded.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib import metadata

import pytest

PARTS_ON_THE_STANDARD_LIBRARY = [
    "farthing",
    "farthing.errors",
    "farthing.kernel",
    "farthing.stores",
    "farthing.runtime",
    "farthing.calls",
    "farthing.reports",
    "farthing.admin",
    "farthing.scopes",
    "farthing.agents",
]

HEAVY = {
    "anthropic",
    "genai_prices",
    "httptools",
    "httpx",
    "httpx2",
    "msgspec",
    "numpy",
    "openai",
    "platformdirs",
    "pydantic",
    "quicktok",
    "rich",
    "splintr",
    "typer",
}
"""What a user's `import farthing` must not pay for: each loads when the part that needs it is used."""

BLOCKED_RUN = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked by the test: {name}", name=name)

blocked = set(sys.argv[2].split(","))
sys.meta_path.insert(0, Blocker())
part = importlib.import_module(sys.argv[1])
if sys.argv[1] != "farthing" and hasattr(part, "__path__"):
    for module in pkgutil.walk_packages(part.__path__, part.__name__ + "."):
        importlib.import_module(module.name)
"""

LOADED_RUN = """
import json, sys
before = set(sys.modules)
import farthing
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""

CONFIGURED_RUN = LOADED_RUN.replace("import farthing\n", "import farthing\nfarthing.configure(watch=False)\n")


def third_party() -> set[str]:
    """Every top-level module of this environment that is neither ours nor of the standard library."""
    installed = set(metadata.packages_distributions())
    return {name for name in installed | HEAVY if name.isidentifier()} - set(sys.stdlib_module_names) - {"farthing"}


def run(*argv: str) -> str:
    done = subprocess.run([sys.executable, "-c", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocked_names_are_real() -> None:
    # A misspelt name in HEAVY would block nothing. httpx is what openai 2 and others use; openai 3 brings httpx2 only.
    missing = {name for name in HEAVY if importlib.util.find_spec(name) is None}
    assert missing <= {"httpx"} | ({"quicktok"} if sys.version_info >= (3, 14) else set())


@pytest.mark.parametrize("part", PARTS_ON_THE_STANDARD_LIBRARY)
def test_it_imports_without_any_third_party_module(part: str) -> None:
    run(BLOCKED_RUN, part, ",".join(sorted(third_party())))


@pytest.mark.parametrize("program", [LOADED_RUN, CONFIGURED_RUN], ids=["import", "configure"])
def test_import_farthing_loads_nothing_heavy(program: str) -> None:
    loaded = set(json.loads(run(program)))
    assert "farthing" in loaded
    assert loaded & third_party() == set()
