"""One bounded pass over what time has done to holds: whose process is dead, what is past its deadline, old suspects."""

from __future__ import annotations

from ...kernel import ledger
from ...kernel.hold import DELEGATION, Hold
from ...kernel.ledger import NOTHING, Change, Settled
from ..contract import SWEEP_BATCH, SweepPolicy
from . import rows
from .books import Books
from .owners import Owner

_OWNERS = "SELECT DISTINCT owner FROM holds WHERE state = 'held'"
_ENDS = f"holds.state = 'held' AND holds.dialect IS NOT '{DELEGATION}'"
"""What the end of a process or a deadline ends: a batch must not fill up with holds that outlive both."""
_EXPIRED = f"{rows.SELECT_HOLD} WHERE {_ENDS} AND holds.deadline_ms <= ? LIMIT ?"
_OF_OWNER = f"{rows.SELECT_HOLD} WHERE {_ENDS} AND holds.owner = ? LIMIT ?"
_OLD_SUSPECTS = f"{rows.SELECT_HOLD} WHERE holds.state = 'suspect' AND holds.changed_ms <= ? LIMIT ?"


def sweep(
    books: Books, now_ms: int, policy: SweepPolicy, owner: Owner, *, most: int = SWEEP_BATCH
) -> tuple[tuple[Settled, ...], Change]:
    """As :func:`farthing.kernel.ledger.sweep` says, on at most so many holds that it will change."""
    candidates, dead = _candidates(books, now_ms, policy, owner, most)
    results = ledger.sweep(
        books,
        candidates,
        now_ms=now_ms,
        dead_owners=dead,
        suspect_after_ms=policy.suspect_after_ms,
        suspect_policy=policy.suspect_policy,
    )
    for _, change in results:
        books.apply(change)
    return tuple([settled for settled, _ in results]), NOTHING


def _candidates(
    books: Books, now_ms: int, policy: SweepPolicy, owner: Owner, most: int
) -> tuple[list[Hold], frozenset[str]]:
    """
    The earlier commands of this group are not in the file yet: a hold that they have ended is found here as held, and
    the kernel's rules, which read the books, pass it over.
    """
    found: dict[str, Hold] = {}

    def look(sql: str, value: object) -> None:
        room = most - len(found)
        for row in books.select(sql, (value, room)):
            hold = rows.hold_from_row(row)
            found[hold.id] = books.hold(hold.id) or hold

    dead = owner.dead(name for (name,) in books.select(_OWNERS, ()))
    for name in sorted(dead):
        look(_OF_OWNER, name)
    look(_EXPIRED, now_ms)
    if policy.suspect_policy != "keep":
        look(_OLD_SUSPECTS, now_ms - policy.suspect_after_ms)
    return list(found.values()), dead
