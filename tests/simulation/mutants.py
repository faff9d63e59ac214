"""
Mutants: farthing with one classic fault put back in, to show that the simulation would see it.

Each is a context manager that replaces a function of the kernel, of the life of a call, or of the scheduler's store for
a while. No file is touched. What each one does is what one of the predecessors, or a bigger system, was seen to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from farthing.calls import admission, endings, holding, last_words, life
from farthing.calls.endings import Lost, Settle
from farthing.kernel import ledger, plan
from farthing.kernel.balances import UNITS, ZERO, Balances, change, change_of, minus
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import NOTHING, Change, Settled
from farthing.kernel.plan import Account, evaluate, make_plan
from farthing.kernel.scope import concrete
from farthing.proxy import sharing
from farthing.runtime import in_force, ledgers
from farthing.runtime.in_force import Side
from farthing.stores.memory import MemoryStore
from farthing.wire.openai.chat import OpenAIChat

from . import handover
from .faults import Command, SlowStore

Patch = pytest.MonkeyPatch


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault by name, and how to put it in."""

    name: str
    apply: Callable[[Patch], None]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self.apply(patch)
            yield


MUTANTS: list[Mutant] = []


def without(row: Balances, state: str) -> Balances:
    """A row in which nothing is in this state."""
    return row._replace(**{f"{state}_{unit}": 0 for unit in UNITS})


def mutant(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS.append(Mutant(apply.__name__, apply))
    return apply


def _with(record: Any, **changes: Any) -> Any:
    """A copy of a frozen record, tuple or dataclass, with these fields changed."""
    copied = getattr(record, "_replace", None)
    return copied(**changes) if copied is not None else dataclasses.replace(record, **changes)


# -- admission -------------------------------------------------------------------------------------------------------


@mutant
def check_then_act(patch: Patch) -> None:
    """The budget is looked at when the call asks, and the hold is posted later, whatever has happened in between."""
    ask = SlowStore._ask

    def asked(self: SlowStore, command: Command) -> Any:
        if command.verb == "place" and isinstance(self.inner, MemoryStore) and not self.dead:
            (asks,) = command.args
            if not evaluate(asks, self.inner.balance).failed:
                command = Command("place", (asks._replace(lines=()),))
        return ask(self, command)

    patch.setattr(SlowStore, "_ask", asked)


@mutant
def holds_are_not_counted(patch: Patch) -> None:
    """Only what is settled counts against a limit: every call in flight sees the same room."""

    def settled_only(asked: Any, read: Callable[[str], Balances]) -> Any:
        return evaluate(asked, lambda key: without(read(key), "held"))

    patch.setattr(ledger, "evaluate", settled_only)


@mutant
def suspects_are_not_counted(patch: Patch) -> None:
    patch.setattr(ledger, "evaluate", lambda asked, read: evaluate(asked, lambda key: without(read(key), "suspect")))


@mutant
def one_short_of_the_limit(patch: Patch) -> None:
    """Exactly at the limit is refused."""

    def strict(asked: Any, read: Callable[[str], Balances]) -> Any:
        lines = tuple(replace(line, ceiling=line.ceiling - 1) for line in asked.lines)
        return evaluate(asked._replace(lines=lines), read)

    patch.setattr(ledger, "evaluate", strict)


@mutant
def the_inner_budget_masks_the_outer(patch: Patch) -> None:
    """Only the last budget in force is looked at."""

    def innermost(ask: Any, accounts: Any, **given: Any) -> Any:
        return make_plan(ask, tuple(accounts)[-1:], **given)

    patch.setattr(holding, "make_plan", innermost)


@mutant
def memory_is_kept_when_the_durable_ledger_refuses(patch: Patch) -> None:
    patch.setattr(holding, "_give_back", lambda held, hold_id: None)


@mutant
def memory_does_not_shrink_to_what_was_granted(patch: Patch) -> None:
    """The durable ledger granted less, and memory goes on counting more: refusals of what would fit."""
    resize = ledger.resize
    patch.setattr(
        ledger, "resize", lambda books, hold_id, *, x, now_ms: (resize(books, hold_id, x=x, now_ms=now_ms)[0], NOTHING)
    )


@mutant
def a_stale_plan_is_taken(patch: Patch) -> None:
    """Limits that were changed, and windows that are over, go unnoticed."""
    place = ledger.place

    def placed(books: Any, asked: Any, *, catalogue_version: int, **given: Any) -> Any:
        blind = asked._replace(catalogue_version=catalogue_version, valid_until_ms=None)
        return place(books, blind, catalogue_version=catalogue_version, **given)

    patch.setattr(ledger, "place", placed)


@mutant
def old_terms_pass_under_a_new_version(patch: Patch) -> None:
    """
    As it was: another call learns of a change while this one is planned, and its plan goes by the old terms with the
    new version.
    """

    class Late(Side):
        """Its version is looked at when a plan is made, and not before its budgets are."""

        version = property(lambda self: self.ledger.catalogue.version, lambda self, version: None)  # type: ignore[assignment]

    patch.setattr(in_force, "Side", Late)


@mutant
def choices_are_counted_once(patch: Patch) -> None:
    """``n=3`` is held as one answer."""
    read = OpenAIChat.read_request

    def single(self: OpenAIChat, body: bytes) -> Any:
        return read(self, body).but(choices=1)

    patch.setattr(OpenAIChat, "read_request", single)


@mutant
def the_clamp_stays_off_the_wire(patch: Patch) -> None:
    """The hold shrinks, the request does not."""
    rewrite = OpenAIChat.rewrite
    patch.setattr(
        OpenAIChat, "rewrite", lambda self, facts, **given: rewrite(self, facts, **{**given, "output_ceiling": None})
    )


# -- endings ---------------------------------------------------------------------------------------------------------


@mutant
def a_void_forgets_one_posting(patch: Patch) -> None:
    """A leaked hold: sooner or later a phantom 'budget exceeded'."""
    void = ledger.void

    def leaky(books: Any, hold_id: str, outcome: Any, **given: Any) -> Any:
        answer, change = void(books, hold_id, outcome, **given)
        balances = dict(list(change.balances.items())[:-1])
        return answer, change._replace(balances=balances) if change is not NOTHING else change

    patch.setattr(ledger, "void", leaky)


@mutant
def an_exception_ends_nothing(patch: Patch) -> None:
    """A call that fails on its way leaves its hold behind."""
    end = life.end

    def only_good_ends(call: Any, admitted: Any, ending: Any, *rest: Any, **given: Any) -> Any:
        if isinstance(ending, Settle):
            return (yield from end(call, admitted, ending, *rest, **given))
        return None

    patch.setattr(life, "end", only_good_ends)


@mutant
def a_settle_counts_twice(patch: Patch) -> None:
    """A repeated settle is posted again."""
    settle = ledger.settle

    def again(books: Any, hold_id: str, outcome: Outcome, *, now_ms: int) -> Any:
        hold = books.hold(hold_id)
        if hold is None or hold.outcome != outcome:
            return settle(books, hold_id, outcome, now_ms=now_ms)
        posted = change(settled=outcome.amounts)
        balances = {posting.key: books.balance(posting.key).plus(posted) for posting in hold.postings}
        return Settled(hold, books.entry(hold_id)), Change(balances, {})

    patch.setattr(ledger, "settle", again)


@mutant
def another_outcome_is_taken(patch: Patch) -> None:
    """The same id with another body overwrites the first: whoever comes last is right."""
    finish = ledger._finish

    def reopened(books: Any, hold_id: str, outcome: Any, **given: Any) -> Any:
        hold = books.hold(hold_id)
        if hold is not None and hold.outcome is not None and hold.outcome != outcome:
            return Settled(hold, books.entry(hold_id)), NOTHING
        return finish(books, hold_id, outcome, **given)

    patch.setattr(ledger, "_finish", reopened)


@mutant
def a_late_word_is_taken_twice(patch: Patch) -> None:
    """After a suspect was resolved, its call's word is accepted again and again."""
    late = ledger._late

    def forgetful(books: Any, hold: Any, outcome: Any, state: str, now_ms: int, *, automatic: bool) -> Any:
        answer, change = late(books, hold, outcome, state, now_ms, automatic=automatic)
        open_again = answer.hold._replace(automatic=True, outcome=None)
        return answer, change._replace(holds={hold.id: open_again})

    patch.setattr(ledger, "_late", forgetful)


@mutant
def a_late_word_is_lost(patch: Patch) -> None:
    """What a call says after it was swept is thrown away."""
    finish = ledger._finish

    def deaf(books: Any, hold_id: str, outcome: Any, **given: Any) -> Any:
        hold = books.hold(hold_id)
        if hold is not None and hold.state == "suspect":
            return Settled(hold, books.entry(hold_id)), NOTHING
        return finish(books, hold_id, outcome, **given)

    patch.setattr(ledger, "_finish", deaf)


@mutant
def a_suspect_frees_its_room(patch: Patch) -> None:
    """An unknown outcome is taken for no cost."""
    move = ledger._move
    patch.setattr(ledger, "_move", lambda *args, to_suspect: move(*args, to_suspect=False))


@mutant
def a_concurrency_slot_is_lost_in_a_crash(patch: Patch) -> None:
    """What should be released at the deadline becomes suspect instead."""
    move = ledger._move

    def keeps(books: Any, balances: Any, hold: Any, *given: Any, to_suspect: bool) -> Any:
        posted = move(books, balances, hold, *given, to_suspect=to_suspect)
        for posting in hold.postings if to_suspect else ():
            # Still held: nothing will ever take it off.
            balances[posting.key] = balances[posting.key].plus(change_of("concurrency", held=1))
        return posted

    patch.setattr(ledger, "_move", keeps)


@mutant
def an_overrun_is_hidden(patch: Patch) -> None:
    """What the provider reports beyond the hold is cut off."""
    settle = ledger.settle

    def capped(books: Any, hold_id: str, outcome: Outcome, *, now_ms: int) -> Any:
        hold = books.hold(hold_id)
        if hold is not None:
            tokens, usd, requests, _ = map(min, outcome.amounts, hold.amounts)
            outcome = outcome._replace(amounts=(tokens, usd, requests, 0))
        return settle(books, hold_id, outcome, now_ms=now_ms)

    patch.setattr(ledger, "settle", capped)


@mutant
def an_overrun_is_not_itemised(patch: Patch) -> None:
    patch.setattr(ledger, "_overrun", lambda hold, used: ())


# -- windows ---------------------------------------------------------------------------------------------------------


@mutant
def a_settle_goes_to_the_first_window_it_finds(patch: Patch) -> None:
    """A call is settled into another window than it was held in."""
    finish = ledger._finish

    def moved(books: Any, hold_id: str, outcome: Any, *, state: str, now_ms: int) -> Any:
        answer, made = finish(books, hold_id, outcome, state=state, now_ms=now_ms)
        balances = dict(made.balances)
        for posting in answer.hold.postings:
            before, after = books.balance(posting.key), balances.get(posting.key, ZERO)
            used = change(settled=after.settled).plus(change(settled=minus(before.settled)))
            if posting.ends_ms is not None and now_ms >= posting.ends_ms and max(used) > 0:
                later = posting.key.replace(f'"{posting.key.split(chr(34))[-2]}"]', f'"{now_ms}"]')
                balances[later] = used
                balances[posting.key] = after.plus(change(settled=minus(used.settled)))
        return answer, made._replace(balances=balances)

    patch.setattr(ledger, "_finish", moved)


@mutant
def a_rollover_drops_what_is_held(patch: Patch) -> None:
    """The end of a window wipes its counters, held amounts too."""

    def wipe(self: MemoryStore, now_ms: int) -> None:
        for key, ends_ms in list(self._ends.items()):
            if ends_ms <= now_ms:
                self._balances.pop(key, None)
                self._ends.pop(key, None)

    patch.setattr(Account, "kept_until_ms", property(lambda account: account.ends_ms))
    patch.setattr(MemoryStore, "_put_accounts_away", wipe)


@mutant
def a_rolling_window_sees_its_last_bucket_only(patch: Patch) -> None:
    accounts = ledgers.Ledger.accounts

    def short(self: Any, *args: Any) -> Any:
        return tuple(
            replace(account, limits=tuple((unit, ceiling, keys[-1:]) for unit, ceiling, keys in account.limits))
            for account in accounts(self, *args)
        )

    patch.setattr(ledgers.Ledger, "accounts", short)


@mutant
def each_is_ignored(patch: Patch) -> None:
    """One account for all users: whoever comes first eats everybody's budget."""
    patch.setattr(plan, "concrete", lambda scope, each, tags: concrete(scope, each, dict.fromkeys(each, "all")))


# -- metering --------------------------------------------------------------------------------------------------------


@mutant
def a_cut_stream_costs_nothing(patch: Patch) -> None:
    of_cut = endings.of_cut

    def free(answer: Any, limits: Any, *, ending: str, note: str | None, arrived: bool = True) -> Any:
        if answer.usage is None:
            return endings.refused(ending)
        return of_cut(answer, limits, ending=ending, note=note, arrived=arrived)

    patch.setattr(endings, "of_cut", free)


@mutant
def a_cut_stream_forgets_the_margin(patch: Patch) -> None:
    """The provider goes on writing for a while after an abort, and bills it."""
    of_cut = endings.of_cut

    def at_once(answer: Any, limits: Any, **given: Any) -> Any:
        bounds = limits.bounds()._replace(margin_tokens=0)
        return of_cut(answer, limits._replace(bounds=lambda: bounds), **given)

    patch.setattr(endings, "of_cut", at_once)


@mutant
def hidden_reasoning_is_not_counted(patch: Patch) -> None:
    """A reasoning model's cut stream is counted by what was delivered."""
    of_cut = endings.of_cut

    def visible(answer: Any, limits: Any, **given: Any) -> Any:
        bounds = limits.bounds()._replace(unseen_output=False)
        return of_cut(answer, limits._replace(bounds=lambda: bounds), **given)

    patch.setattr(endings, "of_cut", visible)


@mutant
def an_answer_without_usage_is_free(patch: Patch) -> None:
    of_answer = endings.of_answer

    def absent_is_zero(answer: Any, status: int, limits: Any) -> Any:
        if answer.usage is None and not answer.error and not endings.unpaid(status) and status < 300:
            return endings.refused("ok")
        return of_answer(answer, status, limits)

    patch.setattr(endings, "of_answer", absent_is_zero)


@mutant
def cached_input_costs_the_full_rate(patch: Patch) -> None:
    priced = endings._priced

    def full(usage: Any, *args: Any, **given: Any) -> Any:
        return priced(_with(usage, input=usage.input + usage.cached, cached=0), *args, **given)

    patch.setattr(endings, "_priced", full)


@mutant
def a_timeout_is_taken_for_free(patch: Patch) -> None:
    words = last_words._last_words

    def free(call: Any, admitted: Any, ending: Any, *rest: Any, **given: Any) -> Any:
        return words(
            call, admitted, endings.refused(ending.ending) if isinstance(ending, Lost) else ending, *rest, **given
        )

    patch.setattr(last_words, "_last_words", free)


@mutant
def an_unpriced_call_costs_zero(patch: Patch) -> None:
    priced = endings._priced

    def zero(*args: Any, **given: Any) -> Any:
        outcome = priced(*args, **given)
        return outcome if outcome.cost_nano is not None else outcome._replace(cost_nano=0)

    patch.setattr(endings, "_priced", zero)


@mutant
def a_downgraded_call_is_priced_as_it_was_asked(patch: Patch) -> None:
    """As it was: a call that left every budget's scope by its downgrade was recorded at the dearer model's price."""
    limits = last_words.limits

    def as_asked(call: Any, admitted: Any) -> Any:
        return limits(call, admitted if admitted.granted is not None else _with(admitted, model=call.request.model))

    patch.setattr(life, "limits", as_asked)
    patch.setattr(last_words, "limits", as_asked)


@mutant
def a_call_without_budgets_leaves_no_entry(patch: Patch) -> None:
    end = life.end

    def silent(call: Any, admitted: Any, ending: Any, *rest: Any, **given: Any) -> Any:
        if admitted.granted is None:
            return None
        return (yield from end(call, admitted, ending, *rest, **given))

    patch.setattr(life, "end", silent)


@mutant
def an_interrupted_ending_is_said_again(patch: Patch) -> None:
    """As it was: a task that is cancelled while its call is settled ends it a second time, differently."""
    end = life.end

    def again(call: Any, admitted: Any, ending: Any, *rest: Any, **given: Any) -> Any:
        try:
            return (yield from end(call, admitted, ending, *rest, **given))
        except BaseException:
            call.ended = False
            raise

    patch.setattr(life, "end", again)


# -- one call, two sides ---------------------------------------------------------------------------------------------


@mutant
def what_is_taken_over_stays_held(patch: Patch) -> None:
    """The proxy holds beside the program's own hold."""
    place = ledger.place
    patch.setattr(ledger, "place", lambda books, asked, **given: place(books, asked, **{**given, "replaces": None}))


@mutant
def what_was_lost_before_it_was_taken_over_stays_lost(patch: Patch) -> None:
    """As it was: who leaves before the proxy holds keeps a suspect beside the proxy's row."""

    def nothing(*given: Any) -> Iterator[Any]:
        yield from ()

    patch.setattr(holding, "take_back", nothing)
    patch.setattr(admission, "take_back", nothing)


@mutant
def what_is_offered_for_a_refused_call_is_forgotten(patch: Patch) -> None:
    async def nothing(*given: Any) -> None:
        return

    patch.setattr(handover, "refused", nothing)


@mutant
def the_proxy_holds_on_its_own_accounts_alone(patch: Patch) -> None:
    """It replaces the hold of the program, whose budgets count nothing any more."""
    patch.setattr(sharing, "_joined", lambda call, hold, durable: call.instead_of(hold, call.ambient))


@mutant
def whoever_answers_is_believed(patch: Patch) -> None:
    """An answer that says that it came through a proxy is enough to leave the counting to it."""

    def believed(call: Any) -> Iterator[Any]:
        call.counted_elsewhere = True
        yield from ()

    patch.setattr(life, "taken_over", believed)
