"""How far an index has come, in a file beside it, and the mark of those that are damaged."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from service.core.change_feed import NOTHING_SEEN, IndexMark, Position, Snapshot

POSITION_FILE = "position.json"
_DAMAGE_FILE = "damaged"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexProgress:
    """What an index contains. `complete` is False from a (re)start at zero until it has once caught up.

    `generation` identifies one life of the directory: a reader that finds another one must open it anew.
    `seen`: all changes of these transactions are in it, too, although some lie after the position.
    `opstamp`: the number of Tantivy's commit that holds all this. `token`: see `IndexMark`.
    """

    generation: str
    position: Position
    complete: bool = False
    seen: Snapshot = NOTHING_SEEN
    opstamp: int = 0
    token: str = ""

    @property
    def mark(self) -> IndexMark:
        return IndexMark(generation=self.generation, token=self.token)

    def includes(self, position: Position) -> bool:
        return self.position >= position or self.seen.includes(position.xid)


def read_progress(path: Path) -> IndexProgress | None:
    """None where there is none that can be trusted."""
    try:
        raw = json.loads((path / POSITION_FILE).read_bytes())
        position = Position(**raw["position"])
        seen = Snapshot(xmax=raw["seen"]["xmax"], running=tuple(raw["seen"]["running"]))
        return IndexProgress(
            generation=str(raw["generation"]),
            position=position,
            complete=raw["complete"] is True,
            seen=seen,
            opstamp=int(raw["opstamp"]),
            token=str(raw["token"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_progress(path: Path, progress: IndexProgress) -> None:
    """Atomic: a reader, or the next start after a crash, sees the old one or the new one."""
    draft = path / f"{POSITION_FILE}.draft"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(progress), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path / POSITION_FILE)


def mark_damaged(path: Path) -> None:
    with suppress(OSError):
        (path / _DAMAGE_FILE).touch()


def is_damaged(path: Path) -> bool:
    return (path / _DAMAGE_FILE).exists()
