"""
farthing's proxy as the bench runs it: one worker, a durable ledger on SQLite, five budgets that match every call.

``python -m bench.proxy.ours PORT UPSTREAM TLS_UPSTREAM LEDGER``: paths under ``/tls`` go to the second, and what goes
under ``/denied`` meets a sixth budget that is too small for any call.
"""

from __future__ import annotations

import sys
from decimal import Decimal

from farthing.kernel.budget import make_budget
from farthing.proxy.process.serve import serve
from farthing.proxy.settings import ProxySettings, Upstream
from farthing.runtime.settings import Settings

LIFETIME = "project"
"""The budget whose window never ends: what it has spent is what all calls have cost."""
BUDGETS = (
    make_budget("company", standing=True, usd=1_000_000, per="month"),
    make_budget("team", standing=True, usd=1_000_000, tokens=10**12, per="day"),
    make_budget("pace", standing=True, tokens=10**11, per="rolling 60s"),
    make_budget(LIFETIME, standing=True, usd=1_000_000, requests=10**9),
    make_budget("person", standing=True, usd=1_000_000, per="hour"),
    make_budget("nobody", standing=True, usd=Decimal("0.000001"), scope={"team": "nobody"}),
)


def settings(port: int, upstream: str, tls_upstream: str, ledger: str) -> ProxySettings:
    return ProxySettings(
        calls=Settings(ledger=ledger),
        upstreams=(
            Upstream("plain", f"{upstream}/v1", provider="openai"),
            Upstream("tls", f"{tls_upstream}/v1", provider="openai", prefix="/tls"),
            Upstream("denied", f"{upstream}/v1", provider="openai", prefix="/denied", trusted_tags=("team",)),
        ),
        budgets=BUDGETS,
        port=port,
        quiet=True,
    )


if __name__ == "__main__":
    _, port, upstream, tls_upstream, ledger = sys.argv
    serve(settings(int(port), upstream, tls_upstream, ledger))
