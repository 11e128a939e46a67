from contextlib import AbstractContextManager
from typing import Protocol


class ReadReplicas(Protocol):
    """Copies of the database that searches may read, and that lag behind it."""

    def reading(self, revision: int) -> AbstractContextManager[float | None]:
        """While the block runs, its reads go to one copy that has all up to `revision`; its lag in seconds, at most.

        None: they go to the database itself.
        """
