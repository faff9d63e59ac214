"""The proxy under test, as people run it: ``farthing serve`` with a file, virtual keys, and a ledger on SQLite."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import farthing
from farthing.admin.keys import create_key
from farthing.stores import open_store

from ..proxy.processes import RELAY_CORE, free_port, memory_bytes, running
from .clients import MAX_BODY_BYTES

TEAMS = ("load", "small", "line", "brief")
SMALL_TOKENS = 1_000
BRIEF_TOKENS = 250

CONFIG = """
ledger = "{ledger}"
max_records = {records}

[upstreams.provider]
base_url = "http://127.0.0.1:{provider}/v1"
api_key = "sk-fake"
provider = "openai"

[upstreams.impatient]
base_url = "http://127.0.0.1:{provider}/v1"
api_key = "sk-fake"
provider = "openai"
prefix = "/impatient"
idle_seconds = 0.5

[upstreams.nowhere]
base_url = "http://127.0.0.1:{nowhere}/v1"
api_key = "sk-fake"
provider = "openai"
prefix = "/nowhere"

[upstreams.tls]
base_url = "https://127.0.0.1:{provider}/v1"
api_key = "sk-fake"
provider = "openai"
prefix = "/tls"

[[budgets]]
name = "company"
usd = "1000000"
per = "month"

[[budgets]]
name = "pace"
tokens = 100000000000
per = "rolling 60s"

[[budgets]]
name = "project"
usd = "1000000"
requests = 1000000000

[[budgets]]
name = "at once"
concurrency = 10000

[[budgets]]
name = "small"
scope = {{ team = "small" }}
tokens = {small}

[[budgets]]
name = "line"
scope = {{ team = "line" }}
concurrency = 1
on_exceed = "wait"
wait_seconds = 60

[[budgets]]
name = "brief"
scope = {{ team = "brief" }}
tokens = {brief}
per = "request"
on_exceed = "break"

[proxy]
port = {port}
quiet = true
log_format = "json"
max_body_bytes = {body}
read_seconds = 1
"""


class Vitals(NamedTuple):
    """What the proxy has in hand, by the system's word and by its own."""

    descriptors: int
    threads: int
    tasks: int
    connections: int
    calls: int


class Ground(NamedTuple):
    """A proxy that runs."""

    port: int
    pid: int
    ledger: str
    log: Path
    keys: dict[str, str]
    admin: str

    def page(self, path: str) -> str:
        """What it answers there. Raises OSError where it does not, or says no."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        asked.add_header("authorization", f"Bearer {self.admin}")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def metrics(self) -> dict[str, float]:
        """Its series by name, those of one name together."""
        found: dict[str, float] = {}
        for line in self.page("/metrics").splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def vitals(self) -> Vitals:
        own = self.metrics()
        return Vitals(
            len(os.listdir(f"/proc/{self.pid}/fd")),
            len(os.listdir(f"/proc/{self.pid}/task")),
            *(int(own[f"farthing_worker_{name}"]) for name in ("tasks", "connections", "calls_in_flight")),
        )

    def memory(self) -> int:
        return memory_bytes(self.pid)

    def complaints(self) -> list[str]:
        """What it has logged as an error. (What it says to people at its start is no JSON.)"""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if _is_error(line)]


def _is_error(line: str) -> bool:
    if line.startswith("{"):
        return json.loads(line)["level"] in ("error", "critical")
    return "Traceback" in line


@contextmanager
def proxy(folder: Path, *, provider_port: int, records: int) -> Iterator[Ground]:
    """Started, with its keys; stopped in the end."""
    ledger = f"sqlite:///{folder / 'ledger.db'}"
    with closing(open_store(ledger)) as store:
        keys = {team: create_key(store, team=team).text for team in TEAMS}
        # As long and as well formed as the others, and nobody's.
        keys["nobody"] = keys["load"][:-4] + ("0000" if keys["load"][-4:] != "0000" else "ffff")
        admin = create_key(store, admin=True).text
    port, log, config = free_port(), folder / "proxy.log", folder / "farthing.toml"
    config.write_text(
        CONFIG.format(
            ledger=ledger,
            records=records,
            provider=provider_port,
            nowhere=free_port(),
            small=SMALL_TOKENS,
            brief=BRIEF_TOKENS,
            port=port,
            body=MAX_BODY_BYTES,
        )
    )
    command = [sys.executable, "-c", "from farthing.cli import main; main()", "serve", "--config", str(config)]
    source = str(Path(farthing.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    with running(command, core=RELAY_CORE, port=port, log=log, env={"PYTHONPATH": path}) as pid:
        yield Ground(port, pid, ledger, log, keys, admin)
