"""``farthing doctor``: each thing that budgets stand on is looked at, changed by nothing, and said with what to do."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.prices import default_book
from farthing.sdk import known
from farthing.testing import FakeClock, FakeProvider
from farthing.tokens import vocab
from tests.doors.proxy.authority import make_authority, served, tls_before
from tests.unit.cli.conftest import Run


def statuses(run: Run, *argv: object) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for check in run("doctor", "--json", *argv).json["checks"]:
        found.setdefault(check["name"], []).append((check["status"], check["says"]))
    return found


def make_ledger(path: Path, **options: Any) -> None:
    farthing.configure(ledger=f"sqlite:///{path}")
    with farthing.budget("daily", tokens=1_000), farthing.hold(tokens=70, model="gpt-4o-mini") as held:
        held.settle(tokens=7)
    farthing.reset()


def test_a_healthy_ledger(run: Run, tmp_path: Path) -> None:
    make_ledger(tmp_path / "ledger.db")
    before = sorted(tmp_path.iterdir())
    done = run("doctor", "--ledger", tmp_path / "ledger.db")
    assert done.code == 0
    assert "1 budget, 0 calls in flight" in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines())) <= 80
    found = statuses(run, "--ledger", tmp_path / "ledger.db")
    assert [status for status, _ in [*found["ledger"], *found["folder"], *found["clock"]]] == ["ok"] * 3
    assert [path for path in sorted(tmp_path.iterdir()) if path in before] == before


def test_a_ledger_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    found = statuses(run, "--ledger", tmp_path / "deep" / "ledger.db")
    assert [status for status, _ in found["ledger"]] == ["note"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a ledger" * 1_000)
    done = run("doctor", "--json", "--ledger", tmp_path / "ledger.db")
    assert (done.code, done.json["ok"]) == (1, False)
    assert [check["name"] for check in done.json["checks"] if check["status"] == "failed"] == ["ledger"]


def test_a_ledger_of_a_newer_program_fails(run: Run, tmp_path: Path) -> None:
    make_ledger(tmp_path / "ledger.db")
    with sqlite3.connect(tmp_path / "ledger.db") as file:
        file.execute("PRAGMA user_version = 9999")
    file.close()
    assert run("doctor", "--ledger", tmp_path / "ledger.db").code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_fails(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert run("doctor", "--ledger", tmp_path / "ledger.db").code == 1


def test_a_disk_that_is_all_but_full_is_a_warning(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads that a ledger's disk is full looks here next: the folder was writable, and all was well."""
    make_ledger(tmp_path / "ledger.db")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_500_000))
    ((status, says),) = statuses(run, "--ledger", tmp_path / "ledger.db")["folder"]
    assert status == "warning"
    assert "1.4 MiB are left" in says


def test_suspects_are_a_warning(run: Run, after_a_kill: Path) -> None:
    found = statuses(run, "--ledger", after_a_kill)
    ((status, says),) = found["suspects"]
    assert (status, says.split()[0]) == ("warning", "2")


def test_a_clock_that_went_back_is_a_warning(run: Run, tmp_path: Path) -> None:
    with FakeClock(time.time_ns() // 1_000_000 + 30 * 60_000):
        make_ledger(tmp_path / "ledger.db")
    ((status, says),) = statuses(run, "--ledger", tmp_path / "ledger.db")["clock"]
    assert status == "warning"
    assert "behind" in says


@pytest.mark.parametrize(("days", "status"), [(3, "ok"), (31, "warning"), (-2, "failed"), (None, "failed")])
def test_the_age_of_the_prices(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int | None, status: str
) -> None:
    monkeypatch.setattr(type(default_book), "age_days", lambda self, now_ms: days)
    assert [each for each, _ in statuses(run, "--ledger", tmp_path / "x.db")["prices"]] == [status]


def test_without_a_tokeniser(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = {name: vocab.Backend(name, None, None, ("quicktok: no",)) for name in ("o200k_base", "cl100k_base")}
    monkeypatch.setattr(vocab, "_backends", none)
    assert [status for status, _ in statuses(run, "--ledger", tmp_path / "x.db")["tokens"]] == ["warning"] * 2


def test_the_clients_of_this_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"openai": "3.54.0", "anthropic": "9.0", "botocore": "1.44.5"}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise known.PackageNotFoundError(name) from None

    monkeypatch.setattr(known, "version", version)
    found = statuses(run, "--ledger", tmp_path / "x.db")["clients"]
    assert [(status, says.split()[0]) for status, says in found] == [
        ("note", "anthropic"),
        ("ok", "openai"),
        ("warning", "botocore"),
    ]
    assert "cannot be governed" in found[2][1]


def test_the_versions_that_are_tested_are_the_ones_installed_here() -> None:
    """What the table calls tested is what this environment locks."""
    assert [package.name for package in known.installed_packages() if package.untested] == []


def test_a_ledger_that_cannot_be_meant_is_a_mistake_in_usage(run: Run) -> None:
    assert run("doctor", "--ledger", "redis://localhost").code == 2


def test_a_configuration_is_looked_at(run: Run, tmp_path: Path, fake_provider: FakeProvider) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(f"""
ledger = "ledger.db"
[upstreams.here]
base_url = "{fake_provider.openai_url}"
[[budgets]]
name = "b"
usd = 1
on_exceed = "downgrade"
downgrade = {{ "gpt-4o" = "no-such-model" }}
""")
    make_ledger(tmp_path / "ledger.db")
    found = statuses(run, "--config", file)
    assert found["configuration"] == [("ok", f"{file}: 1 budget, 1 upstream, 0 prices")]
    assert [(status, "'no-such-model'" in says) for status, says in found["priced"]] == [("warning", True)]
    assert [
        (status, "budget 'b' of the configuration is not in the ledger" in says) for status, says in found["budgets"]
    ] == [("note", True)]
    assert [(status, "here: 127.0.0.1:" in says) for status, says in found["upstreams"]] == [("ok", True)]
    assert str(tmp_path / "ledger.db") in found["ledger"][0][1], "the ledger is the configuration's"
    run("budgets", "apply", file)
    assert "budgets" not in statuses(run, "--config", file)


def test_a_provider_that_nobody_knows_is_a_warning(run: Run, tmp_path: Path, fake_provider: FakeProvider) -> None:
    """Its calls would be priced by their models' names alone."""
    file = tmp_path / "farthing.toml"
    file.write_text(f'[upstreams.here]\nbase_url = "{fake_provider.openai_url}"\nprovider = "opnai"\n')
    (warned, reached) = statuses(run, "--config", file, "--ledger", tmp_path / "none.db")["upstreams"]
    assert (warned[0], reached[0]) == ("warning", "ok")
    assert "here: provider='opnai' is not in the price table (did you mean openai?)" in warned[1]


def test_a_configuration_for_programs_alone_is_right_for_them(
    run: Run, tmp_path: Path, fake_provider: FakeProvider
) -> None:
    """In a program nobody but the program sets its tags; only a proxy's callers could escape such a budget."""
    file = tmp_path / "farthing.toml"
    file.write_text(
        f'ledger = "none.db"\n[upstreams.here]\nbase_url = "{fake_provider.openai_url}"\n'
        '[[budgets]]\nname = "b"\nusd = 1\nscope = { feature = "search" }\n'
    )
    done = run("doctor", "--config", file)
    assert done.code == 0
    warned, ok = statuses(run, "--config", file)["configuration"]
    assert (warned[0], ok[0]) == ("warning", "ok")
    assert "no proxy can run on it: line 7: budgets.b.scope: callers choose tag 'feature'" in warned[1]


def test_what_is_wrong_with_a_configuration_fails(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    file.write_text(f'[upstreams.gone]\nbase_url = "http://127.0.0.1:{port}/v1"\n')
    done = run("doctor", "--config", file, "--ledger", tmp_path / "none.db")
    assert (done.code, "cannot be reached" in done.out) == (1, True)
    file.write_text("wach = true\n[[budgets]]\nname = 'b'\n")
    done = run("doctor", "--config", file, "--ledger", tmp_path / "none.db")
    assert (done.code, "line 1: wach: unknown key" in done.out, "a budget needs a limit" in done.out) == (1, True, True)


def test_an_upstream_that_is_not_trusted_is_told_from_one_that_is(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    authority = make_authority(tmp_path)
    with tls_before(("127.0.0.1", 9), served(authority)) as url:
        text = f'ledger = "none.db"\n[upstreams.here]\nbase_url = "{url}/v1"\n'
        file.write_text(text)
        ((status, says),) = statuses(run, "--config", file)["upstreams"]
        assert (status, "is not trusted" in says) == ("failed", True)
        file.write_text(f'{text}ca_file = "ca.pem"\n')
        ((status, says),) = statuses(run, "--config", file)["upstreams"]
        assert (status, "can be reached" in says) == ("ok", True)
