"""
A state machine that does to a ledger whatever a program, a clock, a crash or a person may do, in any order, and
compares every answer and every balance with an independent model (:mod:`tests.properties.ledger_model`).

:func:`ledger_machine` makes one for any store: give it a function from a clock to an empty store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from farthing.errors import HoldConflict, HoldNotFound
from farthing.kernel import ledger
from farthing.kernel.balances import UNITS, ZERO, Balance, Balances
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.catalogue import Grant
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Denied, Placed, Settled, Stale
from farthing.kernel.plan import Ask, CallFacts, Formula, LineResult, Plan, make_plan
from farthing.kernel.usage import Usage
from farthing.stores.contract import Clock, Store, SweepPolicy
from farthing.testing import FakeClock

from .ledger_model import HOUR_MS, Call, Failed, Key, Model, Raise, Row, Terms

NAMES = ("a", "b", "c")
USERS = st.sampled_from([{}, {"user": "u"}, {"user": "v"}])
NONE = Balance()
PRICES = st.none() | st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(1, 7))
SMALL = st.integers(0, 30)
MOST = {"tokens": 400, "usd": 300, "requests": 9, "concurrency": 4}

Answer = tuple[str, Any]


@st.composite
def terms(
    draw: st.DrawFn, pers: tuple[str, ...] = ("lifetime", "minute", "day", "rolling 60s", "request")
) -> dict[str, Any]:
    per = draw(st.sampled_from(pers))
    units = draw(st.sets(st.sampled_from(UNITS if per == "lifetime" else UNITS[:3]), min_size=1))
    mode = draw(st.sampled_from(["block", "block", "clamp", "warn", "raise"]))
    if mode == "raise" and (per == "request" or "concurrency" in units):
        mode = "block"
    if mode == "clamp" and not units & {"tokens", "usd"}:
        units = {*units, "tokens"}
    return {
        "per": per,
        "each": draw(st.sampled_from([(), ("user",)])),
        "mode": mode,
        "limits": {unit: draw(st.integers(0, MOST[unit]) | st.just(MOST[unit])) for unit in UNITS if unit in units},
    }


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    want = draw(st.integers(0, 30))
    return {
        "tags": draw(USERS),
        "input_tokens": draw(SMALL),
        "choices": draw(st.integers(1, 3)),
        "price": draw(PRICES),
        "want": want,
        "floor": draw(st.integers(0, want)),
        "ours": draw(st.booleans()),
        "among": draw(st.just(set(NAMES)) | st.sets(st.sampled_from(NAMES))),
        "timeout_ms": draw(st.sampled_from([1, 60_000, 2 * HOUR_MS])),
    }


class LedgerMachine(RuleBasedStateMachine):
    """See the module. ``make_store`` and ``keeps_every_entry`` are set by :func:`ledger_machine`."""

    make_store: Callable[[Clock], Store]
    keeps_every_entry = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store: Store = type(self).make_store(self.clock)
        self.model = Model()
        self.budgets: dict[str, Budget] = {}
        self.version = 0
        self.plans: dict[str, Plan] = {}
        self.outcomes: dict[str, Outcome | None] = {}
        self.count = 0
        self.jumped_far = False
        self.last_now = 0

    def teardown(self) -> None:
        self.store.close()

    # -- helpers -------------------------------------------------------------------------------------------------

    def now(self) -> int:
        now = self.store.now()
        assert self.jumped_far or now >= max(self.last_now, self.clock()), "time ran back"
        self.last_now = now
        return now

    def plan(self, call: Call, deadline_ms: int, now: int) -> Plan:
        catalogue = self.store.catalogue().result()
        assert catalogue.version >= self.version
        self.version = catalogue.version
        facts = CallFacts(
            model="m",
            tags=tuple(sorted(call.tags.items())),
            input_tokens=call.input_tokens,
            choices=call.choices,
            price=None if call.price is None else Formula(*call.price),
            ceiling_ours=call.ours,
        )
        ask = Ask(call.id, facts, call.want, call.floor, deadline_ms)
        accounts = [catalogue.account(catalogue.budgets[name], call.tags, now) for name in call.budgets]
        return make_plan(ask, accounts, catalogue_version=catalogue.version)

    def call(self, given: dict[str, Any]) -> Call:
        """A call on those of the named budgets that exist; a budget in USD needs a price."""
        self.count += 1
        names = tuple(name for name in sorted(given["among"]) if name in self.model.budgets)
        price = given["price"]
        if price is None and any("usd" in self.model.budgets[name].limits for name in names):
            price = (5, 3, 2)
        kept = ("tags", "input_tokens", "choices", "want", "floor", "ours")
        return Call(id=f"h{self.count}", budgets=names, price=price, **{name: given[name] for name in kept})

    def row(self, pick: int, *states: str) -> Row | None:
        rows = [row for row in self.model.rows.values() if not states or row.state in states]
        return rows[pick % len(rows)] if rows else None

    def outcome(self, row: Row, size: str, by: int) -> tuple[Outcome, dict[str, int]]:
        """What a call says of itself: below, at or above its hold."""
        assumed = self.model.assume(row)
        sign = {"below": -1, "at": 0, "above": 1}[size]
        usage = Usage(input=max(0, assumed["input"] + sign * by), output=max(0, assumed["output"] + sign * by))
        said = {"input": usage.input, "output": usage.output, "tokens": usage.total_tokens, "requests": 1}
        if row.call.price is not None:
            said["usd"] = max(0, assumed["usd"] + sign * by)
        return Outcome((said["tokens"], said.get("usd", 0), 1, 0), usage, said.get("usd")), said

    def compare_failures(self, found: tuple[LineResult, ...], expected: list[Failed]) -> None:
        """I6: a denial names the budgets that were in the way, with the figures of that instant."""
        as_found = Counter(
            Failed(r.line.budget.name, r.line.unit, r.line.ceiling, *r.balance, r.asked).__repr__() for r in found
        )
        assert as_found == Counter(map(repr, expected))

    # -- budgets -------------------------------------------------------------------------------------------------

    @initialize(first=terms(), second=terms(pers=("minute", "rolling 60s")))
    def some_budgets(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        self.put_budget("a", first)
        self.put_budget("b", second)

    @rule(name=st.sampled_from(NAMES), given=terms())
    def put_budget(self, name: str, given: dict[str, Any]) -> None:
        known = self.model.budgets.get(name)
        if known is not None:
            # Another window would be another account. What may change are limits and the mode.
            given = {**given, "per": known.per, "each": known.each}
            same_units = {unit: given["limits"].get(unit, limit) for unit, limit in known.limits.items()}
            given["limits"], given["mode"] = same_units, known.mode
        limits = dict(given["limits"])
        usd = {"usd": Decimal(limits["usd"]).scaleb(-9)} if "usd" in limits else {}
        counts = {unit: limit for unit, limit in limits.items() if unit != "usd"}
        budget = make_budget(name, per=given["per"], each=given["each"], on_exceed=given["mode"], **counts, **usd)
        before = self.store.catalogue().result().version
        catalogue = self.store.put_budget(budget, update=True).result()
        assert catalogue.budgets[name] == budget
        assert (catalogue.version == before) == (self.budgets.get(name) == budget)
        self.budgets[name] = budget
        if known is None:
            self.model.budgets[name] = Terms(name, limits, given["per"], given["each"], given["mode"])
        else:
            known.limits = limits

    @rule(name=st.sampled_from(NAMES), frozen=st.booleans())
    def freeze(self, name: str, frozen: bool) -> None:
        if name in self.model.budgets:
            self.store.freeze(name, frozen=frozen).result()
            self.model.budgets[name].frozen = frozen

    @rule(
        name=st.sampled_from(NAMES),
        unit=st.sampled_from(UNITS),
        amount=st.integers(1, 40),
        lasts_ms=st.none() | st.sampled_from([1, 30_000, HOUR_MS]),
        tags=USERS,
    )
    def grant(self, name: str, unit: str, amount: int, lasts_ms: int | None, tags: dict[str, str]) -> None:
        known = self.model.budgets.get(name)
        if known is None or unit not in known.limits:
            return
        now = self.now()
        until = None if lasts_ms is None else now + lasts_ms
        scope = tuple(sorted(tags.items())) if known.each else ()
        self.store.grant(Grant(name, unit, amount, now, until, scope)).result()
        known.grants.append(Raise(unit, amount, now, until, scope))

    # -- time ----------------------------------------------------------------------------------------------------

    @rule(by_ms=st.sampled_from([1, 999, 5_000, 30_000, 60_000, 61_000, HOUR_MS, 3 * HOUR_MS, 25 * HOUR_MS]))
    def time_passes(self, by_ms: int) -> None:
        self.clock.advance(seconds=by_ms / 1000)

    @rule(short_ms=st.sampled_from([0, 1]), pick=st.integers(0, 99))
    def time_passes_until_something_ends(self, short_ms: int, pick: int) -> None:
        """To the very millisecond, or one before it."""
        now = self.now()
        ends = [grant.until for known in self.model.budgets.values() for grant in known.grants if grant.until]
        ends += [end for known in self.model.budgets.values() if (end := known.end(known.start(now)))]
        ends += [end for known in self.model.budgets.values() if (end := known.changes_at(now))]
        ends += [row.deadline for row in self.model.rows.values() if row.state == "held"]
        ahead = sorted({end - short_ms for end in ends if end - short_ms > now})
        if ahead:
            self.clock.advance(seconds=(ahead[pick % len(ahead)] - self.clock()) / 1000)

    @rule(by_ms=st.sampled_from([1, 5_000, 60_000, HOUR_MS - 1]))
    def the_clock_jumps_back(self, by_ms: int) -> None:
        """By less than an hour in all: the ledger's time stands still until the clock has caught up."""
        self.now()
        if not self.jumped_far and self.last_now - (self.clock() - by_ms) <= HOUR_MS:
            self.clock.jump_back(seconds=by_ms / 1000)

    # -- placing -------------------------------------------------------------------------------------------------

    @rule(several=st.lists(calls(), min_size=1, max_size=4))
    def place(self, several: list[dict[str, Any]]) -> None:
        for given in several:
            now = self.now()
            self.place_call(self.call(given), now, now + given["timeout_ms"])

    def place_call(self, call: Call, now: int, deadline: int, *, replaces: Row | None = None) -> None:
        plan = self.plan(call, deadline, now)
        if replaces is not None:
            assert replaces.state == "held"
            replaces.state = "gone"  # while the model looks: its amounts go back in the same step
        x, failed, shadow = self.model.admit(call, now)
        if replaces is not None:
            replaces.state = "held"
        answer = self.store.place(plan, replaces=None if replaces is None else replaces.call.id).result()
        if x is None:
            assert isinstance(answer, Denied), f"admitted past {failed}"
            self.compare_failures(answer.failed, failed)
            return
        assert isinstance(answer, Placed), f"refused although x={x} fits: {answer}"
        assert answer.hold.x == x
        assert answer.hold.state == "held"
        self.compare_failures(answer.advisory, shadow)
        if replaces is not None:
            self.model.end(replaces, state="voided", verb="void", said=None, now=now)
            self.outcomes[replaces.call.id] = None
        keys, ends = self.model.keys(call, now)
        self.model.rows[call.id] = Row(call, x, now, deadline, now, keys, ends)
        self.plans[call.id] = plan
        self.check_ceilings(call, now)

    def check_ceilings(self, call: Call, now: int) -> None:
        """I1: on no account of a hard budget does an admitted hold pass the ceiling of that instant."""
        for name in call.budgets:
            terms_ = self.model.budgets[name]
            if terms_.mode in ("warn", "raise") or terms_.per == "request":
                continue
            for unit in terms_.limits:
                ceiling = terms_.ceiling(unit, call.tags, now)
                assert sum(self.model.used(terms_, unit, call.tags, now)) <= ceiling
                if terms_.per == "rolling 60s":
                    assert self.model.placed_within(name, unit, call.tags, now) <= ceiling

    @rule(given=calls(), pick=st.integers(0, 99))
    def replace_a_hold(self, given: dict[str, Any], pick: int) -> None:
        row = self.row(pick, "held")
        if row is not None:
            now = self.now()
            self.place_call(self.call(given), now, now + given["timeout_ms"], replaces=row)

    @rule(pick=st.integers(0, 99))
    def place_again(self, pick: int) -> None:
        """I3: the same id with the same body is answered with the hold as it is, however stale the plan is."""
        row = self.row(pick)
        if row is not None and row.call.id in self.plans:
            answer = self.store.place(self.plans[row.call.id]).result()
            assert isinstance(answer, Placed)
            assert (answer.hold.id, answer.hold.x, answer.hold.state) == (row.call.id, row.x, row.state)

    @rule(given=calls(), short_ms=st.sampled_from([0, 1]), change=st.booleans())
    def a_plan_grows_old(self, given: dict[str, Any], short_ms: int, change: bool) -> None:
        """It is good until its earliest window or grant ends, and while the catalogue is the one it was made from."""
        now = self.now()
        call = self.call(given)
        known = [self.model.budgets[name] for name in call.budgets]
        ends = [end for budget in known if (end := budget.changes_at(now, call.tags)) is not None]
        if not ends:
            return
        plan = self.plan(call, now + HOUR_MS, now)
        self.clock.advance(seconds=(min(ends) - short_ms - self.clock()) / 1000)
        if change:
            self.freeze("a", not self.model.budgets["a"].frozen)
        version = self.store.catalogue().result().version
        answer = self.store.place(plan).result()
        if short_ms == 0 or change:
            assert answer == Stale(version)
        else:
            assert not isinstance(answer, Stale)
            if isinstance(answer, Placed):
                assert self.store.void(call.id).result().entry is None

    @rule(given=calls(), size=st.sampled_from(["below", "at", "above"]), by=st.integers(1, 20))
    def record(self, given: dict[str, Any], size: str, by: int) -> None:
        now = self.now()
        call = self.call(given)
        plan = self.plan(call, now + HOUR_MS, now)
        keys, ends = self.model.keys(call, now)
        row = Row(call, call.want, now, plan.deadline_ms, now, keys, ends)
        outcome, said = self.outcome(row, size, by)
        for _ in range(2):
            settled = self.store.record(plan, outcome).result()
            assert settled.hold.state == "settled"
        self.model.rows[call.id] = row
        self.plans[call.id] = plan
        self.outcomes[call.id] = outcome
        self.model.end(row, state="settled", verb="settle", said=said, now=now)

    # -- while it is open ----------------------------------------------------------------------------------------

    @rule(pick=st.integers(0, 99), x=st.integers(-1, 31))
    def resize(self, pick: int, x: int) -> None:
        row = self.row(pick)
        if row is None:
            return
        if row.state != "held":
            with pytest.raises(HoldConflict):
                self.store.resize(row.call.id, x=x).result()
        elif not 0 <= x <= row.x:
            with pytest.raises(ValueError, match="shrink"):
                self.store.resize(row.call.id, x=x).result()
        else:
            assert self.store.resize(row.call.id, x=x).result().x == x
            row.x = x

    @rule(pick=st.integers(0, 99), by_ms=st.sampled_from([-5_000, 0, 60_000]))
    def extend(self, pick: int, by_ms: int) -> None:
        row = self.row(pick)
        if row is not None:
            hold = self.store.extend(row.call.id, deadline_ms=row.deadline + by_ms).result()
            if row.state == "held":
                row.deadline += max(0, by_ms)
            assert hold.deadline_ms == row.deadline

    # -- endings -------------------------------------------------------------------------------------------------

    def attempt(self, run: Callable[[], Settled]) -> Settled | type[Exception]:
        try:
            return run()
        except HoldConflict as error:
            return type(error)

    def say(self, row: Row, verb: str, outcome: Outcome | None, said: dict[str, int] | None) -> None:
        """The call's word about its hold, at whatever time it comes."""
        hold_id = row.call.id
        state = "settled" if verb == "settle" else "voided"
        speak: Callable[[], Settled] = (
            (lambda: self.store.settle(hold_id, outcome).result())  # type: ignore[arg-type]
            if verb == "settle"
            else (lambda: self.store.void(hold_id, outcome).result())
        )
        answer = self.attempt(speak)
        if row.live or row.automatic:
            assert isinstance(answer, Settled), f"a {row.state} hold refused its call's word"
            assert (answer.hold.state, answer.hold.automatic) == (state, False)
            was_counted = row.rows > 0
            assert (answer.entry is None) == (outcome is None and not was_counted)
            if answer.entry is not None:
                assert answer.entry.kind == ("correction" if was_counted else "call")
                self.check_overrun(row, answer, said)
            self.model.end(row, state=state, verb=verb, said=said if said or not was_counted else {}, now=self.now())
            self.outcomes[hold_id] = outcome
        elif row.verb == verb and self.outcomes.get(hold_id) == outcome:
            assert isinstance(answer, Settled)
            assert answer.hold.state == state
        else:
            assert answer is HoldConflict, f"a {row.state} hold took a second word"

    def check_overrun(self, row: Row, answer: Settled, said: dict[str, int] | None) -> None:
        """I1: what goes beyond the hold is itemised."""
        assert answer.entry is not None
        posted = set(row.keys.values())
        over = {unit: amount - row.held(unit) for unit, amount in (said or {}).items() if unit in posted}
        assert dict(answer.entry.overrun) == {unit: amount for unit, amount in over.items() if amount > 0}

    @rule(pick=st.integers(0, 99), size=st.sampled_from(["below", "at", "above"]), by=st.integers(1, 20))
    def settle(self, pick: int, size: str, by: int) -> None:
        row = self.row(pick)
        if row is not None:
            self.say(row, "settle", *self.outcome(row, size, by))

    @rule(pick=st.integers(0, 99), size=st.sampled_from(["below", "at", "above"]), by=st.integers(1, 20))
    def settle_late(self, pick: int, size: str, by: int) -> None:
        """After a suspicion, or after a policy has ended one: accepted, once."""
        rows = [row for row in self.model.rows.values() if row.automatic or row.state == "suspect"]
        if rows:
            row = rows[pick % len(rows)]
            outcome, said = self.outcome(row, size, by)
            self.say(row, "settle", outcome, said)
            self.say(row, "settle", outcome, said)

    @rule(pick=st.integers(0, 99))
    def void_untried(self, pick: int) -> None:
        row = self.row(pick)
        if row is not None:
            self.say(row, "void", None, None)

    @rule(pick=st.integers(0, 99))
    def void_unbilled(self, pick: int) -> None:
        row = self.row(pick)
        if row is not None:
            cost = None if row.call.price is None else 0
            self.say(row, "void", Outcome((0, 0, 1, 0), Usage(), cost, ending="refused"), {"requests": 1})

    @rule(pick=st.integers(0, 99), any_state=st.booleans())
    def suspect(self, pick: int, any_state: bool) -> None:
        row = self.row(pick, *(() if any_state else ("held",)))
        if row is not None:
            was_held = row.state == "held"
            answer = self.store.suspect(row.call.id, ending="timeout").result()
            if was_held:
                assert answer.entry is not None
                assert answer.entry.suspect
                self.model.lose(row, self.now())
            assert answer.hold.state == row.state

    @rule(
        pick=st.integers(0, 99),
        policy=st.sampled_from(["settle_at_hold", "settle_at_hold", "release", "release", "keep"]),
        any_state=st.booleans(),
    )
    def resolve(self, pick: int, policy: str, any_state: bool) -> None:
        row = self.row(pick, *(() if any_state else ("suspect",)))
        if row is None:
            return
        if policy not in ("settle_at_hold", "release"):
            with pytest.raises(ValueError, match="policy"):
                self.store.resolve(row.call.id, policy).result()
        elif row.state != "suspect":
            with pytest.raises(HoldConflict):
                self.store.resolve(row.call.id, policy).result()
        else:
            self.store.resolve(row.call.id, policy).result()
            self.resolved(row, policy, self.now())

    @rule(pick=st.integers(0, 99), policy=st.sampled_from(["settle_at_hold", "release"]))
    def give_one_up(self, pick: int, policy: str) -> None:
        row = self.row(pick, "held")
        if row is not None:
            self.store.suspect(row.call.id, ending="timeout").result()
            self.model.lose(row, self.now())
            self.store.resolve(row.call.id, policy).result()
            self.resolved(row, policy, self.now())

    def resolved(self, row: Row, policy: str, now: int) -> None:
        if policy == "release":
            self.model.end(row, state="voided", verb=None, said={}, now=now)
        else:
            self.model.end(row, state="settled", verb=None, said=self.model.assume(row), now=now)

    @rule(policy=st.sampled_from(["settle_at_hold", "release", "keep"]), after_ms=st.sampled_from([1, 24 * HOUR_MS]))
    def sweep(self, policy: str, after_ms: int) -> None:
        now = self.now()
        expected = set()
        for row in self.model.rows.values():
            if row.state == "held" and now >= row.deadline:
                expected.add((row.call.id, "suspect"))
                self.model.lose(row, now)
            elif row.state == "suspect" and policy != "keep" and now - row.changed >= after_ms:
                expected.add((row.call.id, "voided" if policy == "release" else "settled"))
                self.resolved(row, policy, now)
        results = self.store.sweep(SweepPolicy(after_ms, policy)).result()
        assert {(settled.hold.id, settled.hold.state) for settled in results} == expected

    @rule()
    def put_the_past_away(self) -> None:
        """Counters of windows that are over go; what a hold may still change stays."""
        self.now()
        while self.store.roll_up().result():
            pass

    # -- what is refused -------------------------------------------------------------------------------------------

    @rule(pick=st.integers(0, 99))
    def nonsense_changes_nothing(self, pick: int) -> None:
        row = self.row(pick)
        if row is not None and row.call.id in self.plans:
            plan = self.plans[row.call.id]
            for other in (plan._replace(x_want=plan.x_want + 1), plan._replace(facts=plan.facts._replace(model="n"))):
                with pytest.raises(HoldConflict) as conflict:
                    self.store.place(other).result()
                assert conflict.value.hold_id == row.call.id
            if row.state != "held":
                fresh = self.plan(replace(row.call, id="new"), plan.deadline_ms, self.now())
                with pytest.raises(HoldConflict):
                    self.store.place(fresh, replaces=row.call.id).result()
        if row is not None:
            for unit, wrong in (("tokens", -1), ("usd", 1.0), ("requests", True), ("tokens", None)):
                amounts: Any = tuple(wrong if of == unit else 7 for of in UNITS)  # (True equals 1: no repetition)
                with pytest.raises((ValueError, HoldConflict)) as refused:
                    self.store.settle(row.call.id, Outcome(amounts)).result()
                assert unit in str(refused.value) or not (row.live or row.automatic)
        with pytest.raises(HoldNotFound) as missing:
            self.store.settle("nobody", Outcome()).result()
        assert missing.value.hold_id == "nobody"

    # -- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def balances_are_right(self) -> None:
        """I2, I5: every counter is what the holds and outcomes on it add up to."""
        rows = self.store.balances().result()
        found = {key: of for name, row in rows.items() for key, of in _by_unit(name, row) if of != NONE}
        expected = {key: balance for key, balance in self.model.balances().items() if balance != (0, 0, 0)}
        for key in found.keys() | expected.keys():
            if key not in found and self.model.may_be_gone(key, self.last_now):
                continue
            assert found.get(key, NONE) == expected.get(key, NONE), f"counter {key}"
        assert all(amount >= 0 for balance in found.values() for amount in balance)

    @invariant()
    def ceilings_are_right(self) -> None:
        catalogue, now = self.store.catalogue().result(), self.now()
        for name, known in self.model.budgets.items():
            for tags in ({}, {"user": "u"}):
                account = catalogue.account(catalogue.budgets[name], tags, now)
                ceilings = {unit: known.ceiling(unit, tags, now) for unit in known.limits}
                assert {unit: account.ceiling(unit) for unit in known.limits} == ceilings
                assert account.frozen == known.frozen

    @invariant()
    def the_journal_says_the_same(self) -> None:
        """I4, bit for bit."""
        journal = self.store.journal().result()
        replayed = ledger.replay(dict(journal.settled_before), journal.entries, journal.holds)
        balances = {name: balance for name, balance in self.store.balances().result().items() if balance != ZERO}
        assert replayed == balances
        assert all(type(amount) is int for row in balances.values() for amount in row)

    @invariant()
    def live_holds_are_listed(self) -> None:
        expected = [(row.call.id, row.state, row.x) for row in self.model.rows.values() if row.live]
        assert [(hold.id, hold.state, hold.x) for hold in self.store.holds().result()] == expected
        held = [hold.id for hold in self.store.holds("held").result()]
        assert held == [row.call.id for row in self.model.rows.values() if row.state == "held"]

    @invariant()
    def every_call_has_its_rows(self) -> None:
        """I8: one row that says how the call ended, and a correction for each later truth. I9: no false zero."""
        if not self.keeps_every_entry:
            return
        entries = self.store.entries().result()
        assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
        by_call: dict[str, list[Any]] = {}
        for entry in entries:
            by_call.setdefault(entry.hold_id, []).append(entry)
        assert by_call.keys() <= self.model.rows.keys()
        for hold_id, row in self.model.rows.items():
            rows = by_call.get(hold_id, [])
            assert [entry.kind for entry in rows] == ["call", *["correction"] * (row.rows - 1)][: row.rows]
            usage = {
                kind: total for kind in ("input", "output") if (total := sum(entry.tokens(kind) for entry in rows))
            }
            assert usage == {kind: count for kind, count in row.usage.items() if count}
            costs = [entry.cost_nano for entry in rows]
            if row.call.price is None:
                assert costs == [None] * len(costs)
            else:
                assert sum(costs) == row.cost


def _by_unit(name: str, row: Balances) -> list[tuple[Key, Balance]]:
    budget, scope, start = json.loads(name)
    tags = tuple((tag, value) for tag, value in scope)
    return [((budget, tags, start, unit), row.of(unit)) for unit in UNITS]


def ledger_machine(
    make_store: Callable[[Clock], Store], *, keeps_every_entry: bool = True
) -> type[RuleBasedStateMachine]:
    """The machine for one kind of store. Each run gets an empty store, and closes it."""
    body = {"make_store": staticmethod(make_store), "keeps_every_entry": keeps_every_entry}
    return type("LedgerMachineOfOneStore", (LedgerMachine,), body)
