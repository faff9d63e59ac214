"""Processes on a core of their own, and what they use."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 30.0

_cores = sorted(os.sched_getaffinity(0))
LOAD_CORE, RELAY_CORE = _cores[0], _cores[-1]
"""The same one where there is only one: then only processor time means anything."""


def compiled(name: str, folder: Path) -> Path:
    """One of the C programs beside this file."""
    if shutil.which("gcc") is None:
        raise SystemExit("the proxy's bench needs gcc, for its load generator and its provider")
    binary = folder / name
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / f"{name}.c")], check=True)
    return binary


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running(
    command: Sequence[str], *, core: int, port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Runs a server until the block ends, on one core; its process id, once it listens."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
    try:
        _wait_for(port, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"a server of the bench did not start:\n{log.read_text(errors='replace')[-2000:]}")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its children so far, to the nanosecond; of threads that still live."""
    total = 0
    for process in _tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (OSError, IndexError):
                continue  # ended between the listing and now
    return total / 1e9


def memory_bytes(pid: int) -> int:
    """Memory of a process and all its children, what they share counted once."""
    total = 0
    for process in _tree(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def written_bytes(pid: int) -> int:
    """What a process and its children have had written to disks."""
    total = 0
    for process in _tree(pid):
        try:
            lines = Path(f"/proc/{process}/io").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    return total


def _tree(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found
