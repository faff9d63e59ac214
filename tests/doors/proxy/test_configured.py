"""
``farthing serve --config``: a real process, told anew by SIGHUP, loses no hold and no call that is in flight.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import openai
import pytest

from farthing.admin.keys import create_key
from farthing.kernel.hold import HELD
from farthing.stores import open_store
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS, openai_client
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")

FILE = """
ledger = "ledger.db"
[upstreams.openai]
base_url = "{url}"
api_key = "env:TEST_PROVIDER_KEY"
[[budgets]]
name = "everything"
tokens = 1000
[[budgets]]
name = "each-user"
each = ["user"]
tokens = 900
"""
BUSY = Reply(output_tokens=40, tokens_per_chunk=1, pause_after_chunks=3)


class Serving:
    """A proxy in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = self.wait_for("listening on ").rpartition("listening on ")[2].strip()

    def wait_for(self, text: str) -> str:
        """The next line of its log that has this text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}:\n{''.join(self.lines)}")

    def hang_up(self, until: str) -> None:
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(until)


@contextmanager
def serving(file: Path | None, *options: str, **variables: str) -> Iterator[Serving]:
    program = "from farthing.cli import main; main()"
    named = () if file is None else ("--config", str(file))
    command = [sys.executable, "-c", program, "serve", *named, "--port", "0", *options]
    environ = {**os.environ, "TEST_PROVIDER_KEY": "sk-of-the-provider", **variables}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield Serving(process)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read() if process.stderr is not None else ""
            process.wait(timeout=60)
    assert process.returncode == 0, rest
    assert "sk-of-the-provider" not in rest


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_while_a_stream_is_under_way(tmp_path: Path, fake_provider: FakeProvider, workers: str) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(FILE.format(url=fake_provider.openai_url))
    ledger = open_store(str(tmp_path / "ledger.db"))
    with serving(file, "--workers", workers) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        fake_provider.reply = BUSY
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=HI, max_completion_tokens=100, stream=True
        )
        chunks = [next(stream)]
        text = FILE.format(url=fake_provider.openai_url)
        file.write_text(text.replace("tokens = 1000", "tokens = 110").replace('"each-user"', '"by-user"'))
        proxy.hang_up("was read anew")
        said = "".join(proxy.lines)
        assert "budget 'everything': tokens 1,000 → 110" in said
        assert "budget 'by-user': added" in said
        assert "budget 'each-user': removed" in said
        (hold,) = ledger.holds(HELD).result()
        assert hold.facts.budgets == ("everything", "each-user")
        with pytest.raises(openai.RateLimitError, match="'everything': limit 110 tokens"):
            client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=10)
        fake_provider.resume()
        chunks += list(stream)
        assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 40
        fake_provider.reply = Reply(output_tokens=5)
        client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=10)
    entries = ledger.entries().result()
    assert [entry.facts.budgets for entry in entries] == [("everything", "each-user"), ("everything", "by-user")]
    balances = [row.of("tokens") for row in ledger.balances().result().values()]
    spent = 2 * HI_TOKENS + 40 + 5
    assert spent == fake_provider.billed_tokens
    assert {balance.held for balance in balances} == {0}
    assert sum(balance.settled for balance in balances) == 2 * spent
    ledger.close()


def test_a_wrong_file_changes_nothing_and_is_said(tmp_path: Path, fake_provider: FakeProvider) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(FILE.format(url=fake_provider.openai_url))
    with serving(file) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        file.write_text(FILE.format(url=fake_provider.openai_url).replace("tokens = 1000", "tokns = 1"))
        proxy.hang_up("was not taken over")
        proxy.wait_for("line 8: budgets.everything.tokns: unknown key; did you mean 'tokens'?")
        client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=10)
    assert fake_provider.billed_tokens > 0


SETTINGS = """unpriced = "{unpriced}"
abort_margin_tokens = 7
suspect_after_hours = 2
on_store_failure = "allow"
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_at_the_top_of_the_file_are_taken_over(
    tmp_path: Path, fake_provider: FakeProvider, workers: str
) -> None:
    file = tmp_path / "farthing.toml"
    text = FILE.format(url=fake_provider.openai_url) + '[[budgets]]\nname = "dollars"\nusd = 1\n'
    file.write_text(text)
    with serving(file, "--workers", workers) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        ask = partial(client.chat.completions.create, model="no-such-model", messages=HI, max_completion_tokens=10)
        with pytest.raises(openai.BadRequestError, match="no price is known"):
            ask()
        file.write_text(SETTINGS.format(unpriced="tokens_only") + text)
        proxy.hang_up("was read anew")
        assert [
            line.removeprefix("[INFO] ").rstrip() for line in proxy.lines if "→" in line and "budget" not in line
        ] == [
            "unpriced: reject → tokens_only",
            "on_store_failure: deny → allow",
            "abort_margin_tokens: 64 → 7",
            "suspect_after_hours: 24.0 → 2.0",
        ]
        # Every worker is told, and hears it a moment later; whichever takes the connection.
        eventually(lambda: {status for status, _ in several(proxy.url)} == {200})
        file.write_text(SETTINGS.format(unpriced="price_as:gpt-4o-mini") + text)
        proxy.hang_up("was read anew")
        eventually(lambda: None not in {cost for _, cost in several(proxy.url)})


def several(url: str) -> list[tuple[int, str | None]]:
    """Status and cost of the same call on several new connections."""
    body = {"model": "no-such-model", "messages": HI, "max_completion_tokens": 10}
    answers = [httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60) for _ in range(8)]
    return [(answer.status_code, answer.headers.get("x-farthing-cost-usd")) for answer in answers]


def test_what_takes_a_restart_is_said_by_name(tmp_path: Path, fake_provider: FakeProvider) -> None:
    file = tmp_path / "farthing.toml"
    text = FILE.format(url=fake_provider.openai_url)
    file.write_text(text)
    with serving(file) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        changed = 'durability = "normal"\nwatch = false\n' + text.replace("ledger.db", "other.db")
        file.write_text(changed + '[proxy]\nworkers = 3\nsession = "x"\nhost = "::1"\nlog_format = "json"\n')
        proxy.hang_up("was read anew")
        said = [line for line in proxy.lines if "takes a restart" in line]
        assert [line.split()[1] for line in said] == ["host", "workers", "session", "ledger", "durability"]
        assert "[INFO] watch: true → false\n" in proxy.lines
        # The ledger is the one it was started with, and the log's format is another from now on.
        client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=10)
        assert json.loads(proxy.wait_for('"event": "call"'))["status"] == 200
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_admin_may_have_it_read_anew(tmp_path: Path, fake_provider: FakeProvider, workers: str) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(FILE.format(url=fake_provider.openai_url))
    ledger = open_store(str(tmp_path / "ledger.db"))
    admin = create_key(ledger, admin=True)
    with serving(file, "--workers", workers) as proxy:
        file.write_text(FILE.format(url=fake_provider.openai_url).replace("tokens = 1000", "tokens = 110"))
        answer = httpx2.post(f"{proxy.url}/admin/reload", headers={"authorization": f"Bearer {admin.text}"}, timeout=60)
        assert (answer.status_code, answer.json()) == (202, {"reloading": True})
        proxy.wait_for("was read anew")
    ledger.add_denials({}).result()  # looks at the file again
    assert ledger.catalogue().result().budgets["everything"].tokens == 110
    ledger.close()


def test_a_wrong_file_is_said_before_anything_is_served(tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text("[proxy]\nprot = 1\n[[budgets]]\nname = 'b'\ntokens = 'x'\n")
    program = "from farthing.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"farthing: {file}: line 2: proxy.prot: unknown key; did you mean 'port'?",
        f"farthing: {file}: line 5: budgets.b.tokens: must be an integer, not 'x'",
    ]


def test_the_environment_is_a_configuration_of_its_own(fake_provider: FakeProvider, tmp_path: Path) -> None:
    """In a container there may be no file at all."""
    said = {
        "FARTHING_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}",
        "FARTHING_UPSTREAMS__OPENAI__BASE_URL": fake_provider.openai_url,
        "FARTHING_UPSTREAMS__OPENAI__API_KEY": "env:TEST_PROVIDER_KEY",
        "FARTHING_BUDGETS__0__NAME": "everything",
        "FARTHING_BUDGETS__0__TOKENS": "100",
        "FARTHING_PROXY__DENY_STATUS": "402",
    }
    with serving(None, **said) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        assert client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=40).usage is not None
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
        assert (caught.value.status_code, caught.value.body["farthing"]["budget"]) == (402, "everything")  # type: ignore[index]
        assert fake_provider.requests[-1].headers["authorization"] == "Bearer sk-of-the-provider"
    assert not any("Per-request limit" in line for line in proxy.lines), "its budgets stand in the place of the default"
    wrong = subprocess.run(
        [sys.executable, "-m", "farthing", "serve", "--port", "0"],
        env={**os.environ, "FARTHING_UPSTREAMS__OPENAI__BASE_URI": fake_provider.openai_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert wrong.returncode == 2
    assert "FARTHING_UPSTREAMS__OPENAI__BASE_URI" in wrong.stderr or "base_url" in wrong.stderr
