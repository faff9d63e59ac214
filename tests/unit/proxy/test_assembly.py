"""Which client a proxy sends by."""

from __future__ import annotations

import asyncio

import pytest

from farthing.proxy.aio import AioClient
from farthing.proxy.assembly import upstream_client
from farthing.proxy.http1.client import Http1Client


@pytest.mark.parametrize(
    ("name", "kind"),
    [(None, Http1Client), ("HTTPS_PROXY", AioClient), ("http_proxy", AioClient), ("NO_PROXY", Http1Client)],
)
def test_the_lean_client_unless_there_is_a_forward_proxy(
    name: str | None, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def main() -> None:
        client = upstream_client()
        assert type(client) is kind
        await client.close()

    asyncio.run(main())
