"""
The proxy beside nginx as a bare relay, beside a bare relay in Python on the same server and client, and beside no relay
at all: one provider that answers at once, one load generator (both in C, on a core of their own), the relay on the
other core.
"""

from .suite import measure

__all__ = ["measure"]
