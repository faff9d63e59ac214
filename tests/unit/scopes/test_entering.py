"""One object that many enter: each finds again, where it leaves, what was in force where it entered."""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import farthing
from farthing.runtime.ambient import Ambient, current


def tags() -> dict[str, str]:
    return dict(current().tags)


def in_its_own() -> Callable[..., object]:
    """What runs functions in a context of their own, as a task does."""
    context = contextvars.Context()
    return context.run


def test_two_tasks_that_share_tags_leave_to_where_they_came_from() -> None:
    """Inside, both look the same: which of them leaves cannot be told by what is in force."""
    shared = farthing.track(job="shared")
    one, other = in_its_own(), in_its_own()

    one(farthing.track(user="alice", job="own").__enter__)
    other(farthing.track(user="alice").__enter__)
    one(shared.__enter__)
    other(shared.__enter__)
    assert one(tags) == other(tags) == {"user": "alice", "job": "shared"}
    one(shared.__exit__, None, None, None)
    other(shared.__exit__, None, None, None)
    assert one(tags) == {"user": "alice", "job": "own"}
    assert other(tags) == {"user": "alice"}


def test_who_did_not_enter_leaves_nothing() -> None:
    shared = farthing.track(job="shared")
    one, other = in_its_own(), in_its_own()
    one(shared.__enter__)
    other(farthing.track(job="shared").__enter__)
    other(shared.__exit__, None, None, None)
    assert other(tags) == {"job": "shared"}
    one(shared.__exit__, None, None, None)
    assert one(current) == Ambient()


def test_tags_that_are_left_before_what_was_entered_later() -> None:
    outer, inner = farthing.track(a=1), farthing.track(b=2)
    own = in_its_own()
    for step in (outer, inner):
        own(step.__enter__)
    own(outer.__exit__, None, None, None)
    assert own(tags)["b"] == "2"
    own(inner.__exit__, None, None, None)
    assert own(current) == Ambient()


def test_a_budget_that_is_left_later_than_the_tags_around_it_stays_in_force() -> None:
    with farthing.track(a=1) as outer:
        budget = farthing.budget(tokens=5).__enter__()
        outer.__exit__(None, None, None)
        assert tags() == {}
        assert len(current().bindings) == 1
        budget.__exit__(None, None, None)
        assert current() == Ambient()
