"""The museum: faults that were measured elsewhere. Each test names its source; farthing does not have the fault."""

from tests.doors.fixtures import claude, client, provider

__all__ = ["claude", "client", "provider"]
