"""``farthing serve`` as somebody meets it: what it prints works as it is printed, and what it cannot do it says."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from farthing.admin.keys import create_key
from farthing.stores import open_store
from tests.doors.proxy.process import served
from tests.doors.proxy.raw import ask


def test_the_line_that_is_printed_works_as_it_is_printed(tmp_path: Path) -> None:
    """What ``make run`` starts where there is no provider key."""
    with served("--fake", "--port", "0", "--ledger", str(tmp_path / "ledger.db")) as proxy:
        url = proxy.ready()
        (line,) = proxy.wait_for(r"\n\s+(curl [^\n]+)\n")
        assert "a fake one answers" in proxy.said
        done = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        (said,) = proxy.wait_for(r"\[INFO\] (POST /v1/chat/completions — .*)\n")
        assert re.match(r"POST /v1/chat/completions — prompt=8t max_out=4088t model=gpt-4o-mini status=200 ", said)
        assert " held=4096t used=18t cost=$0.0000072 " in said
        proxy.wait_for(r"\[INFO\] Per-request limit: 4096 tokens\n")
        body = {"model": "gpt-4o-mini", "max_tokens": 5192, "messages": [{"role": "user", "content": "Hello"}]}
        assert ask(url, "/v1/chat/completions", body).status == 429
        proxy.wait_for(
            r"\[BLOCK\] /v1/chat/completions — Request would use 5200 tokens, exceeding per-request limit of 4096\."
        )
        assert proxy.stop() == 0, proxy.said


@pytest.mark.parametrize("picked", [True, False])
def test_limits_of_a_port_that_was_picked_end_with_it(picked: bool, tmp_path: Path) -> None:
    """Each start with ``--port 0`` left its budgets in the ledger: nobody comes back under the name of its port."""
    ledger = tmp_path / "ledger.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = 0 if picked else free.getsockname()[1]
    limits = ("--max-tokens-per-minute", "100k", "--max-tokens-total", "1m")
    with served("--fake", "--port", str(port), "--ledger", str(ledger), *limits) as proxy:
        proxy.ready()
        assert proxy.stop() == 0, proxy.said
    store = open_store(f"sqlite:///{ledger}")
    try:
        left = [budget.title for budget in store.catalogue().result().budgets.values()]
    finally:
        store.close()
    assert left == ([] if picked else ["max-tokens-per-request", "max-tokens-per-minute"])


def test_quiet_says_refusals_only(tmp_path: Path) -> None:
    with served("--fake", "--quiet", "--port", "0", "--ledger", str(tmp_path / "ledger.db")) as proxy:
        url = proxy.ready()
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        assert ask(url, "/v1/chat/completions", body).status == 200
        assert ask(url, "/v1/chat/completions", {**body, "max_tokens": 9_999}).status == 429
        proxy.wait_for(r"\[BLOCK\]")
        assert "POST /v1/chat/completions —" not in proxy.said


def test_logs_as_json(tmp_path: Path) -> None:
    arguments = ("--fake", "--log-format", "json", "--port", "0", "--ledger", str(tmp_path / "ledger.db"))
    with served(*arguments) as proxy:
        (url,) = proxy.wait_for(r"listening on (http://[\d.:]+)")
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        assert ask(url, "/v1/chat/completions", body).status == 200
        proxy.wait_for(r'"event": "call"')
        logged = [json.loads(line) for line in proxy.lines if line.startswith("{")]
    (call,) = [line for line in logged if line["event"] == "call"]
    assert (call["level"], call["model"], call["status"], call["used_tokens"]) == ("info", "gpt-4o-mini", 200, 18)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "host: '0.0.0.0' is reachable from elsewhere, and there are no keys"),
        (("--max-tokens-total", "-5"), "--max-tokens-total: tokens must be an integer of at least 0, not -5"),
        (("--max-usd-per-day", "five"), "--max-usd-per-day takes an amount of US dollars"),
        (
            ("--max-tokens-per-request", "many"),
            "--max-tokens-per-request takes a whole number such as 4096 or 100k, not 'many'",
        ),
        (("--deny-status", "418"), "--deny-status: must be one of 400, 402, 403, 429, not 418"),
        (("--upstream", "localhost"), "--upstream: must be an http:// or https:// URL"),
        (("--workers", "0"), "workers: must be an integer of at least 1"),
        (("--log-format", "xml"), "--log-format: 'xml' is unknown; choose one of text, json"),
    ],
)
def test_what_it_cannot_do_it_says_in_one_line(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with served("--port", "0", "--ledger", str(tmp_path / "ledger.db"), *arguments) as proxy:
        assert proxy.process.wait(60) == 2
        proxy._reader.join(60)
        assert says in proxy.said
        assert "Traceback" not in proxy.said


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with served("--port", port, "--ledger", str(tmp_path / "ledger.db")) as proxy:
            assert proxy.process.wait(60) == 2
            proxy._reader.join(60)
            assert f"port: cannot listen on 127.0.0.1:{port}: Address already in use" in proxy.said


def test_a_host_that_is_not_this_machine(tmp_path: Path) -> None:
    with served("--host", "nobody.invalid", "--port", "0", "--ledger", str(tmp_path / "ledger.db")) as proxy:
        assert proxy.process.wait(60) == 2
        proxy._reader.join(60)
        assert "--host: cannot listen on 'nobody.invalid'" in proxy.said
        assert "name an address of this machine" in proxy.said


def test_an_upstream_that_nobody_has_a_key_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual key never goes to an upstream, so without a key of the proxy's its calls would all be refused there."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ledger = tmp_path / "ledger.db"
    for keyed in (False, True):
        if keyed:
            store = open_store(f"sqlite:///{ledger}")
            create_key(store, user="alice")
            store.close()
        with served("--api-key", "sk-1", "--port", "0", "--ledger", str(ledger)) as proxy:
            proxy.ready()
            proxy.wait_for("Clients:")
            assert ("(anthropic): https://api.anthropic.com (asked without a key" in proxy.said) is keyed
            assert "Upstream: https://api.openai.com/v1\n" in proxy.said


def test_where_callers_have_keys_the_line_asks_for_one_and_works_from_here(tmp_path: Path) -> None:
    """Nobody can call 0.0.0.0, and nobody's provider key opens a proxy with virtual keys."""
    ledger = tmp_path / "ledger.db"
    store = open_store(f"sqlite:///{ledger}")
    key = create_key(store, user="alice").text
    store.close()
    with served("--fake", "--host", "0.0.0.0", "--port", "0", "--ledger", str(ledger)) as proxy:
        (line,) = proxy.wait_for(r"\n\s+(curl [^\n]+)\n")
        assert re.search(r"OPENAI_BASE_URL=http://127\.0\.0\.1:\d+/v1", proxy.said)
        assert re.search(r"listening on http://0\.0\.0\.0:\d+\n", proxy.said)
        assert "From other machines" in proxy.said
        assert "OPENAI_API_KEY" not in proxy.said
        done = subprocess.run(
            ["sh", "-c", f"{line} -sS"], capture_output=True, text=True, check=True, env={**os.environ, "KEY": key}
        )
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
