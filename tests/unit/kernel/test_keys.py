"""Key rings: which text opens what, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.keys import PARENTS_MAX, Key, KeyRing, Refused, hash_of

NOW = 1_000_000
TEXT = f"fk_{'a1' * 6}_{'0f' * 32}"
KEY = Key("a1" * 6, hash_of(TEXT))


def ring(*keys: Key) -> KeyRing:
    return KeyRing(1, {key.id: key for key in keys})


def test_the_text_is_not_in_what_is_kept() -> None:
    secret = TEXT.rpartition("_")[2]
    assert secret not in repr(KEY)
    assert KEY.shown == f"fk_{KEY.id}_…"
    assert len(KEY.hash) == 64
    assert KEY.hash != secret


@given(st.text())
def test_no_other_text_opens_it(text: str) -> None:
    assert ring(KEY).recognise(text, NOW) == (KEY if text == TEXT else Refused("unknown"))


@pytest.mark.parametrize("index", range(len(TEXT)))
def test_every_character_counts(index: int) -> None:
    other = "b" if TEXT[index] != "b" else "c"
    assert ring(KEY).recognise(TEXT[:index] + other + TEXT[index + 1 :], NOW) == Refused("unknown")


@pytest.mark.parametrize("text", [TEXT + " ", TEXT + "\n", TEXT.upper(), "", "fk_", "Bearer " + TEXT, "\udc80"])
def test_nearly_is_not_good_enough(text: str) -> None:
    assert ring(KEY).recognise(text, NOW) == Refused("unknown")


def test_a_key_expires_at_its_instant() -> None:
    key = KEY._replace(expires_ms=NOW)
    assert ring(key).recognise(TEXT, NOW - 1) == key
    assert ring(key).recognise(TEXT, NOW) == Refused("expired", key.shown)


def test_what_it_was_delegated_from_ends_it() -> None:
    parent = Key("b2" * 6, hash_of("x"))
    child = KEY._replace(parent=parent.id)
    assert ring(parent, child).recognise(TEXT, NOW) == child
    assert ring(parent._replace(revoked_ms=5), child).recognise(TEXT, NOW) == Refused("revoked", child.shown)
    assert ring(parent._replace(expires_ms=5), child).recognise(TEXT, NOW) == Refused("expired", child.shown)
    assert ring(child).recognise(TEXT, NOW) == Refused("revoked", child.shown)


def test_a_circle_of_parents_opens_nothing() -> None:
    key = KEY._replace(parent=KEY.id)
    assert ring(key).recognise(TEXT, NOW) == Refused("revoked", key.shown)


def test_a_line_of_delegation_has_a_length() -> None:
    line = [Key(f"{number:012x}", hash_of("x"), parent=f"{number + 1:012x}") for number in range(PARENTS_MAX + 1)]
    last = Key(f"{PARENTS_MAX + 1:012x}", hash_of("x"))
    assert ring(*line, last).ended(line[1], NOW) is None
    assert ring(*line, last).ended(line[0], NOW) == "revoked"


def test_what_is_known_of_a_key_is_good_until_something_ends() -> None:
    parent = Key("b2" * 6, hash_of("x"), expires_ms=NOW + 70)
    child = KEY._replace(parent=parent.id, expires_ms=NOW + 90)
    rotated = KEY._replace(previous_hash=hash_of("y"), previous_until_ms=NOW + 5)
    assert ring(KEY).good_until_ms(KEY, NOW) is None
    assert ring(parent, child).good_until_ms(child, NOW) == NOW + 70
    assert ring(rotated).good_until_ms(rotated, NOW) == NOW + 5
    assert ring(rotated).good_until_ms(rotated, NOW + 5) is None
    circle = KEY._replace(parent=KEY.id)
    assert ring(circle).good_until_ms(circle, NOW) is None
