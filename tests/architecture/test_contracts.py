"""
The import contracts, beyond what `make check` asks import-linter.

Each contract must be able to fail: a layer that is spelt wrongly, or a list of modules that no longer covers a new
package, would keep for ever.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "farthing"
PARTS = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {
    "__init__"
}
USES_FARTHING_AS_A_USER_DOES = {
    SOURCE / "testing" / "pytest_plugin.py",  # its fixture resets what a user's `farthing.reset()` resets
}
MODULES = sorted(set(SOURCE.rglob("*.py")) - {SOURCE / "__init__.py"} - USES_FARTHING_AS_A_USER_DOES)


def names(node: ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that *path* names in an import statement, wherever it stands."""
    package = ["farthing", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from .. import tokens` names a package of ours; `from .. import budget` asks the public face.
            found.update(
                f"farthing.{name}" if module == "farthing" and name in PARTS else module for name in names(node)
            )
    return found


def test_every_package_has_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    assert placed == PARTS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_inside_imports_the_public_face(path: Path) -> None:
    # `from farthing import budget` inside the package would reach every layer through the one module that none sees.
    assert "farthing" not in imported(path)
