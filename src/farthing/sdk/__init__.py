"""The library's door for SDK clients: their HTTP seam, hooked."""

from __future__ import annotations

from .instrument import instrument
from .watch import UngovernedClientWarning

__all__ = ["UngovernedClientWarning", "instrument"]
