"""
A hundred thousand calls through one proxy, with faults on both sides, and what they leave behind: nothing.

Clients and the provider live in one process, so that a client can go at the very moment at which its request was heard,
and every answer, bill and entry can be compared call by call. Only the proxy, a process of its own, stands between.
"""

from .suite import measure

__all__ = ["measure"]
