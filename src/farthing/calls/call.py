"""One governed call: what a door hands to the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..kernel.hold import Hold
from ..kernel.scope import Tags
from ..runtime.ambient import Ambient
from ..runtime.events import Who
from ..runtime.runtime import Runtime
from ..wire.facts import Dialect, RequestFacts

if TYPE_CHECKING:
    from .admission import Admitted
    from .endings import Ending

TIMEOUT_SECONDS = 600.0
"""Assumed where a client has no read timeout: the SDKs' own default."""
HOLD_GRACE_MS = 60_000
OFFERED = "offer-"
"""How the ids of calls begin whose hold a proxy on the same ledger may take over (see ``handover``)."""


class History(NamedTuple):
    """An earlier call: the model that it was made to, and all its tokens, in and out."""

    model: str
    tokens: int


class Call:
    """
    One HTTP attempt, before it is sent. A client library's own retries are calls of their own.

    Args:
        url: where it goes; read as text only when something is said about it.
        timeout_seconds: how long the client waits for the next bytes; a hold outlives that by a minute.
        call_id: a new one, if none is given.
        free_tags: tags that its caller chose: they are recorded, and no budget matches them. The ambient ones go
            before.
        abort_margin_tokens: what this provider may go on to bill after a stream was cut; None: as the settings say.
        asks: it only asks for a stored answer: nothing is held for it (see ``polling``).
        offers: it goes to a host that may be a proxy on the same ledger (see ``handover``).
        replaces: the hold that was offered for it by whoever sent it here.
    """

    admitted: Admitted | None = None
    """On what terms it was let through."""
    ending: Ending | None = None
    """How it ended."""
    awaited = False
    """Somebody may look for its row as soon as its answer is whole."""

    def __init__(
        self,
        runtime: Runtime,
        dialect: Dialect,
        request: RequestFacts,
        ambient: Ambient,
        url: object,
        timeout_seconds: float = TIMEOUT_SECONDS,
        call_id: str = "",
        *,
        free_tags: Tags | None = None,
        abort_margin_tokens: int | None = None,
        asks: bool = False,
        offers: bool = False,
        replaces: Hold | None = None,
    ) -> None:
        self.runtime = runtime
        self.dialect = dialect
        self.request = request
        self.ambient = ambient
        self.url = url
        self.timeout_seconds = timeout_seconds
        self.id = call_id or (OFFERED + runtime.new_id() if offers else runtime.new_id())
        self.free_tags = free_tags
        self.abort_margin_tokens = abort_margin_tokens
        self.asks = asks
        self.offers = offers
        self.replaces = replaces
        self.started_ms = runtime.memory_store.now()
        self.tags = tuple({**free_tags, **dict(ambient.tags)}.items()) if free_tags else ambient.tags
        """What is recorded."""
        self.exact = False
        """Its long texts are counted: bounded by their bytes they did not fit."""
        self.history: History | None = None
        """What the answer that this request goes on from came to, where a ledger knows it."""
        self.ended = False
        """Its ending has been given to the ledgers: nothing else may be said about it."""
        self.counted_elsewhere = False
        """What it held on the durable ledger, and its row there, are those of a proxy that it went through."""

    def instead_of(self, hold: Hold, ambient: Ambient) -> Call:
        """The same call, made in another scope: it replaces this hold."""
        return Call(
            self.runtime,
            self.dialect,
            self.request,
            ambient,
            self.url,
            self.timeout_seconds,
            self.id,
            free_tags=self.free_tags,
            abort_margin_tokens=self.abort_margin_tokens,
            replaces=hold,
        )

    @property
    def hold_id(self) -> str:
        """The id under which the ledgers know it."""
        admitted = self.admitted
        return self.id if admitted is None or admitted.granted is None else admitted.granted.id

    def who(self, model: str) -> Who:
        """What is said of it, says this."""
        return Who(self.id, model, self.request.provider, dict(self.tags))

    def deadline_ms(self, now_ms: int) -> int:
        """Until when a hold placed, or shown to be alive, at this instant is good."""
        return now_ms + round(self.timeout_seconds * 1000) + HOLD_GRACE_MS
