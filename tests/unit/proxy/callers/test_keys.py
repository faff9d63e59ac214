"""Who calls, by key: at once from what is known, and never longer than what is known is good."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator

import pytest

from farthing.admin.keys import Made, create_key, revoke_key, rotate_key
from farthing.errors import StoreUnavailable
from farthing.proxy.callers.identity import Caller, Identity, Refused
from farthing.proxy.callers.keys import KeyIdentify
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.contract import Ready, Ticket
from farthing.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def runtime(clock: FakeClock) -> Iterator[Runtime]:
    runtime = Runtime(Settings(), clock=clock)
    yield runtime
    runtime.close()


def make(runtime: Runtime, **terms: object) -> Made:
    return create_key(runtime.main.store, **terms)  # type: ignore[arg-type]


def whose(identify: KeyIdentify, text: str | None, address: str | None = "127.0.0.1") -> Identity:
    found = identify(Caller(text, {}, address))
    assert isinstance(found, Identity)
    return found


def code(identify: KeyIdentify, text: str | None, address: str | None = "127.0.0.1") -> str:
    with pytest.raises(Refused) as caught:
        identify(Caller(text, {}, address))
    return caught.value.code


def test_the_same_key_is_the_same_identity(runtime: Runtime) -> None:
    made = make(runtime, user="alice", deny_status=403)
    identify = KeyIdentify(runtime)
    first = whose(identify, made.text)
    assert (dict(first.tags)["user"], first.key_id, first.deny_status) == ("alice", made.key.id, 403)
    assert whose(identify, made.text) is first


def test_what_is_known_ends_with_the_key(runtime: Runtime, clock: FakeClock) -> None:
    made = make(runtime, expires="1h")
    child = make(runtime, parent=made.key.id, tags={"agent": "x"}, expires="30m")
    identify = KeyIdentify(runtime)
    for _ in range(2):
        assert whose(identify, made.text).key_id == made.key.id
        assert whose(identify, child.text).key_id == child.key.id
    clock.advance(minutes=30)
    assert (code(identify, child.text), whose(identify, made.text).key_id) == ("expired_key", made.key.id)
    clock.advance(minutes=30)
    assert code(identify, made.text) == "expired_key"


def test_what_is_known_ends_with_the_overlap_of_a_rotation(runtime: Runtime, clock: FakeClock) -> None:
    made = make(runtime, user="alice")
    again = rotate_key(runtime.main.store, made.key.id, overlap="1h")
    identify = KeyIdentify(runtime)
    for _ in range(2):
        assert whose(identify, made.text).key_id == whose(identify, again.text).key_id == made.key.id
    clock.advance(hours=1)
    assert code(identify, made.text) == "unknown_key"
    assert whose(identify, again.text) is whose(identify, again.text)


def test_what_is_known_ends_with_a_revocation(runtime: Runtime) -> None:
    made, other = make(runtime, user="alice"), make(runtime, user="bob")
    identify = KeyIdentify(runtime)
    assert whose(identify, made.text).key_id == made.key.id
    revoke_key(runtime.main.store, made.key.id)
    assert code(identify, made.text) == "revoked_key"
    assert whose(identify, other.text).key_id == other.key.id


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "::ffff:10.0.0.7", "2001:db8::1"])
def test_without_keys_nobody_calls_from_elsewhere(runtime: Runtime, address: str) -> None:
    make(runtime, admin=True)
    assert code(KeyIdentify(runtime), None, address) == "missing_key"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", None])
def test_without_keys_this_machine_calls(runtime: Runtime, address: str | None) -> None:
    identify = KeyIdentify(runtime)
    assert whose(identify, None, address) == Identity()
    assert whose(identify, "sk-of-the-provider", address) == Identity()


def test_a_key_of_ours_is_never_taken_for_a_providers(runtime: Runtime) -> None:
    made = make(runtime, admin=True)
    identify = KeyIdentify(runtime)
    assert code(identify, "fk_anything") == "unknown_key"
    assert code(identify, made.text) == "admin_key"


class _Later:
    """A ticket whose answer is not here yet."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __await__(self) -> Generator[object, None, object]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer
        yield


def test_only_a_ring_that_is_too_old_is_waited_for(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(runtime, user="alice")
    store = runtime.main.store
    ring = store.keys().result()
    identify = KeyIdentify(runtime)
    assert whose(identify, made.text).key_id == made.key.id
    answers: list[Ticket[object]] = [_Later(ring), Ready(ring)]  # type: ignore[list-item]
    monkeypatch.setattr(store, "keys", lambda *, fresh=False: answers.pop(0))
    waited = identify(Caller(made.text, {}, None))
    assert not isinstance(waited, Identity)

    async def wait() -> Identity:
        return await waited

    assert asyncio.run(wait()).key_id == made.key.id
    assert whose(identify, made.text).key_id == made.key.id


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_a_ledger_that_does_not_answer(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    runtime.reconfigure(runtime.settings.changed(on_store_failure=policy))
    made = make(runtime, user="alice")
    seen, unseen = KeyIdentify(runtime), KeyIdentify(runtime)
    assert whose(seen, made.text).key_id == made.key.id
    monkeypatch.setattr(runtime.main.store, "keys", lambda *, fresh=False: _Later(StoreUnavailable("ledger", "locked")))

    async def ask(identify: KeyIdentify) -> Identity:
        found = identify(Caller(made.text, {}, None))
        return found if isinstance(found, Identity) else await found

    if policy == "allow":
        assert asyncio.run(ask(seen)).key_id == made.key.id
    else:
        with pytest.raises(StoreUnavailable):
            asyncio.run(ask(seen))
    # Nothing was ever known: nobody can be let in, whatever the policy.
    with pytest.raises(StoreUnavailable):
        asyncio.run(ask(unseen))
