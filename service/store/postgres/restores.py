"""Recognises that another state of the database has taken the place of the one that this process has read from.

What a process remembers of a database (which version has which embedder, whose ids pass a filter, the numbers of types)
is then wrong. Lexical indexes check by themselves whether the database still has all that they contain (`IndexMark`).
"""

import asyncio

from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool

SQL = sql_files.load("restores")

_READ_SECONDS = 5.0


class RestoreWatch:
    """Compares the database with what it was at the first look."""

    def __init__(self) -> None:
        self._known: tuple[str, int] | None = None
        """What comes back with no dump, backup or replica; and the bytes of the write-ahead log, which only grows: a
        folder that was copied back has fewer."""

    async def restored(self, pool: Pool) -> bool:
        """Whether it is another one: then what was read from it has to be read anew, and a new watch begun.

        DatabaseUnavailable where tables are missing altogether.
        """
        async with asyncio.timeout(_READ_SECONDS):
            row = await pool.fetch_one(SQL.state)
        if row is None:
            return False  # a dump is just being restored
        identity, written = str(row[0]), int(row[1])
        if self._known is not None and (identity != self._known[0] or written < self._known[1]):
            return True
        self._known = (identity, written)
        return False
