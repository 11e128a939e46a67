"""Recognises that another state of the database has taken the place of the one that this process has read from.

What a process remembers of a database (which version has which embedder, whose ids pass a filter, the numbers of types)
is then wrong. Lexical indexes check by themselves whether the database still has all that they contain (`IndexMark`).
"""

import asyncio
from dataclasses import dataclass

from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool

SQL = sql_files.load("restores")

_READ_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseState:
    """`identity` comes back with no dump, backup or replica. `written`: bytes of the write-ahead log, which only grows:
    a folder that was copied back has fewer."""

    identity: str
    written: int

    def continues(self, former: "DatabaseState") -> bool:
        return self.identity == former.identity and self.written >= former.written


class RestoreWatch:
    """Compares the database with what it was at the first look."""

    def __init__(self) -> None:
        self._known: DatabaseState | None = None

    async def restored(self, pool: Pool) -> bool:
        """Whether it is another one: then what was read from it has to be read anew, and a new watch begun."""
        async with asyncio.timeout(_READ_SECONDS):
            state = await read_state(pool)
        if state is None or (self._known is not None and not state.continues(self._known)):
            return state is not None
        self._known = state
        return False


async def read_state(pool: Pool) -> DatabaseState | None:
    """None where a dump is just being restored. DatabaseUnavailable where tables are missing altogether."""
    row = await pool.fetch_one(SQL.state)
    return None if row is None else DatabaseState(identity=row[0], written=int(row[1]))
