"""
The clients of the npm world through the proxy, as they are installed: their calls pass, and after a refusal they post
once. (npm's ``ai`` does not know ``x-should-retry``: for it there are the statuses that it does not repeat.)

What they are stands in ``npm/package-lock.json``; it is installed once, beside the environments that make keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from farthing.testing import FakeProvider, Reply
from tests.doors.proxy.running import proxy_before

HERE = Path(__file__).with_name("npm")
ROOT = Path(__file__).resolve().parents[3]
CLIENTS = (
    "openai", "openai-stream", "openai-responses", "anthropic", "anthropic-stream", "google", "google-stream", "ai",
)  # fmt: skip
SECONDS = 180

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="node and npm are not installed here"
)


@pytest.fixture(scope="session")
def modules() -> Path:
    """Where the locked clients are installed: a folder named after the lock, made by ``npm ci`` if it is not there."""
    lock = (HERE / "package-lock.json").read_bytes() + (HERE / "package.json").read_bytes()
    at = ROOT / f".venv-npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (at / "done").exists():
        made = Path(tempfile.mkdtemp(prefix=".venv-npm-", dir=ROOT))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, made)
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=made, check=True, capture_output=True, timeout=SECONDS,
        )  # fmt: skip
        (made / "done").touch()
        try:
            made.rename(at)
        except OSError:
            # Another run was faster.
            shutil.rmtree(made)
    # In one step: beside this one, another process of this run may be calling it.
    copy = Path(shutil.copy(HERE / "client.mjs", at / f"client-{os.getpid()}.mjs"))
    copy.replace(at / "client.mjs")
    return at


def call(modules: Path, client: str, url: str) -> Any:
    done = subprocess.run(
        ["node", "client.mjs", client, url], cwd=modules, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_pass(client: str, modules: Path, fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply("one two three")
    with proxy_before(fake_provider) as server:
        assert call(modules, client, server.url) == {"text": "one two three"}
        assert server.stats["tokens_used"] == fake_provider.billed_tokens > 0


@pytest.mark.parametrize("client", [client for client in CLIENTS if client != "ai"])
def test_a_refusal_is_posted_once(client: str, modules: Path, fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider, max_tokens_total=10) as server:
        told = call(modules, client, server.url)
        assert server.stats["requests"] == 1
    assert told["status"] == 429
    assert "budget 'max-tokens-total'" in told["message"]
    assert fake_provider.posts == 0


@pytest.mark.parametrize(("deny_status", "posts"), [(400, 1), (402, 1), (403, 1), (429, 3)])
def test_which_status_suits_vercels_client(
    deny_status: int, posts: int, modules: Path, fake_provider: FakeProvider
) -> None:
    with proxy_before(fake_provider, max_tokens_total=10, deny_status=deny_status) as server:
        told = call(modules, "ai", server.url)
        assert server.stats["requests"] == posts
    assert "budget 'max-tokens-total'" in told["message"]
    assert fake_provider.posts == 0
