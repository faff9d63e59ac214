"""The library's door for SDK clients: their HTTP seam, hooked."""

from __future__ import annotations

from .instrument import UngovernedClientWarning, instrument

__all__ = ["UngovernedClientWarning", "instrument"]
