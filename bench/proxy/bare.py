"""
A bare relay in Python: the server and the client that the proxy stands on, and nothing between them.

``python -m bench.proxy.bare PORT UPSTREAM TLS_UPSTREAM``: paths under ``/tls`` go to the second.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from farthing.proxy.http1.client import Http1Client
from farthing.proxy.settings import Timeouts

_NOT_RELAYED = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive"})
_TIMEOUTS = Timeouts()


class Relay:
    def __init__(self, upstream: str, tls_upstream: str) -> None:
        self._upstreams = (upstream, tls_upstream)
        self._client = Http1Client()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["raw_path"].decode()
        secure = path.startswith("/tls/")
        url = self._upstreams[secure] + (path[4:] if secure else path)
        headers = [header for header in scope["headers"] if header[0] not in _NOT_RELAYED]
        response = await self._client.request(scope["method"], url, headers, body, timeouts=_TIMEOUTS)
        back = [header for header in response.headers if header[0].lower() != b"transfer-encoding"]
        await send({"type": "http.response.start", "status": response.status, "headers": back})
        while piece := await response.receive():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    _, port, upstream, tls_upstream = sys.argv
    uvicorn.run(
        Relay(upstream, tls_upstream),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
