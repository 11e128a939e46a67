"""How fast a backfill is and when it ends, told from notes of how far it was. Pure.

Workers store whole batches, and nobody looks at the very moment in which one lands. So the rate is measured from the
first landing of a batch to the last one, never from one look to another: with ten batches in all, the time in which
the eleventh is half done would count for nothing and be wrong by a tenth.
"""

from collections.abc import Sequence
from itertools import pairwise

from service.core.versions import Progress

Note = tuple[float, int]
"""Seconds since the epoch, and the documents that were done by then."""
Notes = Sequence[Note]
"""In the order of time, all of one stretch of work."""

MOST_NOTES = 120
_RECENT_NOTES = 60
"""So many stay as they are; of older ones every second one goes, so that the start is never forgotten."""

_SHORTEST, _LONGEST = 0.25, 10.0
_SHARE = 0.01
"""Seconds from one note to the next: a hundredth of the time that it has taken so far, within these limits."""

SILENCE_SECONDS = 60.0
"""Where nobody took a note for so long, nobody kept the queue filled either: it rested, or no process ran."""

_SPAN_SECONDS = 180.0
_FEWEST = 10
"""The present rate is that of so long, and of so many notes at least."""


def due(notes: Notes, at: float) -> bool:
    """Is it time for another note? Counting costs something, and a long backfill needs no note each second."""
    if not notes:
        return True
    interval = min(_LONGEST, max(_SHORTEST, _SHARE * (at - notes[0][0])))
    return not 0 <= at - notes[-1][0] < interval


def noted(notes: Notes, at: float, done: int) -> Notes:
    """The notes with this one, at most MOST_NOTES. They begin anew after a silence, or where the clock went back.

    Until something is done the beginning moves along: loading a model is no part of the pace.
    """
    if not notes or not 0 <= at - notes[-1][0] <= SILENCE_SECONDS:
        return ((at, done),)
    if len(notes) == 1 and done <= notes[0][1]:
        return ((at, done),)
    notes = (*notes, (at, done))
    if len(notes) > MOST_NOTES:
        notes = (*notes[:-_RECENT_NOTES:2], *notes[-_RECENT_NOTES:])
    return notes


def rate(notes: Notes) -> float | None:
    """Documents per second of late; where nothing was done of late, since the beginning. None: not known yet."""
    if not notes:
        return None
    recent = [note for note in notes if note[0] >= notes[-1][0] - _SPAN_SECONDS]
    recent = max(recent, list(notes[-_FEWEST:]), key=len)
    return _measured(recent) or _measured(notes)


def _measured(notes: Notes) -> float | None:
    landings = [after for before, after in pairwise(notes) if after[1] != before[1]]
    if len(landings) < 2:
        return None
    (begun, before), (ended, after) = landings[0], landings[-1]
    # A batch that takes longer than any before it has become slow, or will not come at all.
    longest = max(later[0] - earlier[0] for earlier, later in pairwise(landings))
    ended += max(0.0, notes[-1][0] - ended - longest)
    return (after - before) / (ended - begun) if after > before else None


def of_backfill(notes: Notes, at: float, *, done: int, total: int, failed: int) -> Progress:
    """How far it is now, in documents; `notes` are those that were taken before."""
    left = total - done - failed
    per_second = rate(noted(notes, at, done))
    if left <= 0 or per_second is None:
        return Progress(done=done, total=total, failed=failed)
    return Progress(done=done, total=total, failed=failed, per_second=per_second, eta_seconds=left / per_second)


def of_build(rows: int, share: float, seconds: float) -> Progress:
    """How far the building of an index is, in rows: a share of the table was taken in within `seconds`."""
    done = round(rows * share)
    per_second = done / seconds if seconds > 0 else 0.0
    if per_second <= 0 or done >= rows:
        return Progress(done=done, total=rows, failed=0)
    return Progress(done=done, total=rows, failed=0, per_second=per_second, eta_seconds=(rows - done) / per_second)
