"""
Texts and requests to tokens: exact where the model's vocabulary is public, a stated upper estimate elsewhere.

Importing this is cheap: a tokeniser loads when something is first counted, and never over the network.
"""

from __future__ import annotations

from .count import Weight, bound, count, count_text, surely, weigh
from .families import Family, family_of, register, unregister
from .images import image_tokens
from .learning import learned, ratio_of
from .models import ModelFacts, facts_of
from .vocab import backend

__all__ = [
    "Family",
    "ModelFacts",
    "Weight",
    "backend",
    "bound",
    "count",
    "count_text",
    "facts_of",
    "family_of",
    "image_tokens",
    "learned",
    "ratio_of",
    "register",
    "surely",
    "unregister",
    "weigh",
]
