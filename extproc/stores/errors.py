"""How a store fails, whatever the library under it calls it."""

from extproc.errors import DependencyError

REDIS = "redis"


class StoreUnavailable(DependencyError):
    """It can't be reached, refuses to serve, or holds something unreadable."""

    def __init__(self, message: str) -> None:
        super().__init__(REDIS, message)


class StoreTimeout(StoreUnavailable):
    """It is there, or seems to be, and did not answer in time."""


class StoreRefused(StoreUnavailable):
    """Redis answered, and what it said is that it can't do this."""
