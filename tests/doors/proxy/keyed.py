"""
Proxies with keys on one ledger, each as a worker of its own: with its own store, cache of keys and event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from farthing.admin.keys import Made, create_key, revoke_key
from farthing.kernel.hold import Entry
from farthing.proxy.process.server import ProxyServer
from farthing.proxy.settings import ProxySettings, Upstream
from farthing.runtime.settings import Settings
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeProvider

UPSTREAM_KEY = "sk-of-the-operator-0123456789"
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_completion_tokens": 50,
}
CALL_TOKENS = 58
"""What BODY holds, and what it costs where the provider answers with 50 tokens."""


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@dataclass
class Desk:
    """The operator's side, on the ledger's file, and a client for each worker."""

    path: Path
    provider: FakeProvider
    store: SQLiteStore
    servers: list[ProxyServer] = field(default_factory=list)
    clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def client(self) -> httpx2.Client:
        return self.clients[0]

    def key(self, **terms: Any) -> Made:
        """Make a key; every worker knows it when this returns, as they do within a second."""
        made = create_key(self.store, **terms)
        self.settle_in()
        return made

    def revoke(self, made: Made) -> None:
        revoke_key(self.store, made.key.id)

    def entries(self) -> list[Entry]:
        """Every row of the ledger, those of answers included that a worker gave a moment ago."""
        for server in self.servers:
            server.runtime.main.store.add_denials({}).result()
        return list(self.store.entries().result())

    def settle_in(self) -> None:
        """Let everyone look at the ledger now: what was changed is in force."""
        self.store.add_denials({}).result()
        for server in self.servers:
            ledger = server.runtime.main
            ledger.store.add_denials({}).result()
            ledger.refresh(ledger.store.catalogue().result())

    def post(
        self, made: Made, *, worker: int = 0, headers: dict[str, str] | None = None, **changes: Any
    ) -> httpx2.Response:
        return self.clients[worker].post(CHAT, headers=bearer(made.text) | (headers or {}), json={**BODY, **changes})


@contextmanager
def workers(directory: Path, provider: FakeProvider, *, count: int = 1, **settings: Any) -> Iterator[Desk]:
    path = directory / "ledger.db"
    with ExitStack() as stack:
        store = SQLiteStore(path)
        stack.callback(store.close)
        desk = Desk(path, provider, store)
        upstreams = (
            Upstream("openai", provider.openai_url, api_key=UPSTREAM_KEY, **settings.pop("upstream", {})),
            Upstream("anthropic", provider.anthropic_url, api_key=UPSTREAM_KEY, speaks=("anthropic",)),
            Upstream("gemini", provider.gemini_url, api_key=UPSTREAM_KEY, speaks=("gemini",)),
        )
        for _ in range(count):
            calls = Settings(ledger=f"sqlite:///{path}", **settings.get("calls", {}))
            other = {name: value for name, value in settings.items() if name != "calls"}
            server = ProxyServer(ProxySettings(calls=calls, upstreams=upstreams, port=0, **other))
            server.start()
            stack.callback(server.stop)
            desk.servers.append(server)
            desk.clients.append(stack.enter_context(httpx2.Client(base_url=server.url, timeout=60)))
        yield desk
