"""Calls and budgets for the suite: amounts that can be added up in one's head."""

from __future__ import annotations

from collections.abc import Iterable

from farthing.kernel.hold import Outcome
from farthing.kernel.plan import Ask, CallFacts, Formula, Plan, make_plan
from farthing.kernel.usage import Usage
from farthing.stores.contract import Store

FAR_MS = 4_000_000_000_000
INPUT_TOKENS = 100
PRICE = Formula(1_000, 7, 3)
"""ceil((1000 + 7x) / 3) nano-dollars: never a whole number of them by itself."""


def plan(
    store: Store,
    call: str,
    *,
    want: int = 50,
    floor: int = 16,
    ours: bool = False,
    budgets: Iterable[str] | None = None,
    tags: dict[str, str] | None = None,
    deadline_ms: int = FAR_MS,
    input_tokens: int = INPUT_TOKENS,
) -> Plan:
    """A call of 100 input and up to *want* output tokens on these budgets (all), as the catalogue is now."""
    catalogue = store.catalogue().result()
    tags = tags or {}
    names = list(catalogue.budgets) if budgets is None else budgets
    accounts = [catalogue.account(catalogue.budgets[name], tags, store.now()) for name in names]
    facts = CallFacts(
        model="gpt-4o",
        provider="openai",
        dialect="openai.chat",
        tags=tuple(sorted(tags.items())),
        budgets=tuple(names),
        input_tokens=input_tokens,
        price=PRICE,
        price_version="v1",
        bound="open",
        asked_model="gpt-5",
        ceiling_ours=ours,
    )
    asked = Ask(call, facts, want, floor, deadline_ms)
    return make_plan(asked, accounts, catalogue_version=catalogue.version)


def outcome(
    *,
    input: int = 100,  # noqa: A002 - the name of the kind
    output: int = 20,
    usd: int = 400,
    ending: str = "ok",
    note: str | None = None,
) -> Outcome:
    """Usage as a provider would report it, with some of every kind of field that an entry keeps."""
    usage = Usage(input=input, output=output, reasoning=output // 2)
    return Outcome((usage.total_tokens, usd, 1, 0), usage, usd, ending, "provider", "gpt-4o-2024-11-20", note)
