"""The rate of a backfill and the time that it still takes, from samples of its progress. Pure.

Workers store whole batches, and no sample falls on the moment in which one is stored. So the rate is measured from the
first completed batch to the last one, never from one sample to another: with ten batches in all, counting the time in
which the eleventh is half done would be wrong by a tenth.
"""

from collections.abc import Sequence
from itertools import pairwise

from service.core.versions import Progress

Samples = Sequence[Sequence[float]]
"""Pairs of the time (seconds since the epoch) and the documents that were done by then, oldest first, of one run."""

MAX_SAMPLES = 120
_RECENT_SAMPLES = 60
"""So many are all kept; of older ones every second one is dropped, so that the start is never forgotten."""

_MIN_INTERVAL, _MAX_INTERVAL = 0.25, 10.0
_INTERVAL_SHARE = 0.01
"""Seconds between two samples: a hundredth of the time that the backfill has taken, within these limits."""

SILENCE_SECONDS = 60.0
"""Without a sample for so long, nobody kept the queue filled either: the backfill was paused, or no process ran."""

_RATE_SECONDS = 180.0
_MIN_RATE_SAMPLES = 10
"""The current rate is that of the last so many seconds, and of so many samples at least."""


def is_due(samples: Samples, at: float) -> bool:
    """Whether to take another sample: counting has a cost, and a long backfill needs no sample each second."""
    if not samples:
        return True
    interval = min(_MAX_INTERVAL, max(_MIN_INTERVAL, _INTERVAL_SHARE * (at - samples[0][0])))
    return not 0 <= at - samples[-1][0] < interval


def add_sample(samples: Samples, at: float, done: float) -> Samples:
    """The samples with this one, at most MAX_SAMPLES. They begin anew after a silence, or where the clock went back.

    Until something is done the beginning moves along: loading a model does not count for the rate.
    """
    if not samples or not 0 <= at - samples[-1][0] <= SILENCE_SECONDS:
        return ((at, done),)
    if len(samples) == 1 and done <= samples[0][1]:
        return ((at, done),)
    samples = (*samples, (at, done))
    if len(samples) > MAX_SAMPLES:
        samples = (*samples[:-_RECENT_SAMPLES:2], *samples[-_RECENT_SAMPLES:])
    return samples


def rate(samples: Samples) -> float | None:
    """Current documents per second; where nothing was done recently, since the beginning. None: not known yet."""
    if not samples:
        return None
    recent = [sample for sample in samples if sample[0] >= samples[-1][0] - _RATE_SECONDS]
    recent = max(recent, list(samples[-_MIN_RATE_SAMPLES:]), key=len)
    return _measured_rate(recent) or _measured_rate(samples)


def _measured_rate(samples: Samples) -> float | None:
    batches = [after for before, after in pairwise(samples) if after[1] != before[1]]
    if len(batches) < 2:
        return None
    (start, before), (end, after) = batches[0], batches[-1]
    # A batch that takes longer than any before it has become slow, or will never be completed.
    longest = max(later[0] - earlier[0] for earlier, later in pairwise(batches))
    end += max(0.0, samples[-1][0] - end - longest)
    return (after - before) / (end - start) if after > before else None


def backfill_progress(samples: Samples, at: float, *, done: int, total: int, failed: int) -> Progress:
    """The progress now, in documents; `samples` are those that were taken before."""
    return _progress(done, total, failed, rate(add_sample(samples, at, done)))


def build_progress(rows: int, share: float, seconds: float) -> Progress:
    """The progress of an index build, in rows: a share of the table was indexed within `seconds`."""
    done = round(rows * share)
    return _progress(done, rows, 0, done / seconds if seconds > 0 else None)


def _progress(done: int, total: int, failed: int, per_second: float | None) -> Progress:
    left = total - done - failed
    if left <= 0 or not per_second:
        return Progress(done=done, total=total, failed=failed)
    return Progress(done=done, total=total, failed=failed, per_second=per_second, eta_seconds=left / per_second)
