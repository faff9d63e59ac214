"""What the races share."""

from tests.doors.fixtures import claude, client, provider

__all__ = ["claude", "client", "provider"]
