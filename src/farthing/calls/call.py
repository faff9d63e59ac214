"""One governed call: what a door hands to the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass
class Call:
    """
    One HTTP attempt, before it is sent. A client library's own retries are calls of their own.

    ``timeout_seconds`` is how long the client waits for the next bytes; a hold outlives that by a minute.
    """

    runtime: Runtime
    dialect: Dialect
    request: RequestFacts
    ambient: Ambient
    url: object
    """Where it goes; read as text only when something is said about it."""
    timeout_seconds: float = TIMEOUT_SECONDS
    id: str = ""
    started_ms: int = 0
    free_tags: Tags | None = None
    """Tags that its caller chose: they are recorded, and no budget matches them. The ambient ones go before."""
    abort_margin_tokens: int | None = None
    """What this provider may go on to bill after a stream was cut; None: as the settings say."""
    asks: bool = False
    """It only asks for a stored answer: nothing is held for it (see ``polling``)."""
    offers: bool = False
    """It goes to a host that may be a proxy on the same ledger (see ``handover``)."""
    replaces: Hold | None = None
    """The hold that was offered for it by whoever sent it here."""
    tags: Tags = field(init=False)
    """What is recorded."""
    exact: bool = field(init=False, default=False)
    """Its long texts are counted: bounded by their bytes they did not fit."""
    history: History | None = field(init=False, default=None)
    """What the answer that this request goes on from came to, where a ledger knows it."""
    ended: bool = field(init=False, default=False)
    """Its ending has been given to the ledgers: nothing else may be said about it."""
    admitted: Admitted | None = field(init=False, default=None)
    """On what terms it was let through."""
    ending: Ending | None = field(init=False, default=None)
    """How it ended."""
    awaited: bool = field(init=False, default=False)
    """Somebody may look for its row as soon as its answer is whole."""
    counted_elsewhere: bool = field(init=False, default=False)
    """What it held on the durable ledger, and its row there, are those of a proxy that it went through."""
    _matched: Tags = field(init=False)

    def __post_init__(self) -> None:
        if not self.id:
            self.id = f"{OFFERED}{self.runtime.new_id()}" if self.offers else self.runtime.new_id()
        self.started_ms = self.runtime.memory_store.now()
        self._matched = dict(self.ambient.tags)
        self.tags = {**self.free_tags, **self._matched} if self.free_tags else self._matched

    @property
    def hold_id(self) -> str:
        """The id under which the ledgers know it."""
        admitted = self.admitted
        return self.id if admitted is None or admitted.granted is None else admitted.granted.id

    def scope_tags(self, model: str) -> dict[str, str]:
        """The tags that budgets match: the ambient ones, and what the request itself says."""
        return {**self._matched, "model": model, "provider": self.request.provider}

    def who(self, model: str) -> Who:
        """What is said of it, says this."""
        return Who(self.id, model, self.request.provider, self.tags)

    def deadline_ms(self, now_ms: int) -> int:
        """Until when a hold placed, or shown to be alive, at this instant is good."""
        return now_ms + round(self.timeout_seconds * 1000) + HOLD_GRACE_MS
