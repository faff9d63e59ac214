"""What the tests of the doors share."""

from tests.doors.fixtures import claude, client, provider

__all__ = ["claude", "client", "provider"]
