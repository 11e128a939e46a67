"""The estimated end of a backfill is right within a fifth after the first tenth, whatever the batches are like.

Only completed batches are known, so what is estimated is the time for all batches that are not: the one in progress
counts in full until its very end.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from service.store.postgres.versions import backfill_rate

START = 1_750_000_000.0


@dataclass
class Backfill:
    """Batches are completed evenly, one after the other, after the model was loaded; samples are taken regularly."""

    batch: int
    batches: int
    seconds: float
    loading: float
    samples: backfill_rate.Samples = ()

    @property
    def total(self) -> int:
        return self.batch * self.batches

    @property
    def ends(self) -> float:
        return self.loading + self.batches * self.seconds

    def done(self, after: float) -> int:
        return self.batch * min(self.batches, max(0, int((after - self.loading) / self.seconds)))

    def sample(self, after: float) -> None:
        if backfill_rate.is_due(self.samples, START + after):
            self.samples = backfill_rate.add_sample(self.samples, START + after, self.done(after))

    def eta(self, after: float) -> float | None:
        progress = partial(backfill_rate.backfill_progress, self.samples, START + after, total=self.total)
        return progress(done=self.done(after), failed=0).eta_seconds


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 2_000),
    batches=st.integers(120, 1_000),
    seconds=st.floats(0.05, 20),
    loading=st.floats(0, 50),
    looks=st.floats(0.2, 3.0),
    phase=st.floats(0, 1),
)
def test_the_end_is_right_within_a_fifth_after_the_first_tenth(
    batch: int, batches: int, seconds: float, loading: float, looks: float, phase: float
) -> None:
    tenth = batches * seconds / 10
    look = min(looks, tenth / 12)
    backfill = Backfill(batch, batches, seconds, loading)
    at, looked = phase * look, 0
    while at < backfill.ends:
        backfill.sample(at)
        looked += 1
        if looked % 7 == 0 and at >= loading + tenth and backfill.done(at) < backfill.total:
            left = (backfill.total - backfill.done(at)) // batch * seconds
            eta = backfill.eta(at)
            assert eta is not None
            assert abs(eta - left) <= 0.2 * left + look
        at += look


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0, 200), max_size=400), steps=st.lists(st.integers(-5, 50), min_size=400, max_size=400))
def test_notes_stay_few_and_in_order_and_begin_where_the_work_began(gaps: list[float], steps: list[int]) -> None:
    notes: backfill_rate.Samples = ()
    at, done, begun = START, 0, (START, 0)
    for gap, step in zip(gaps, steps, strict=False):
        at, done = at + gap, max(0, done + step)
        if not notes or gap > backfill_rate.SILENCE_SECONDS or (len(notes) == 1 and done <= notes[0][1]):
            begun = (at, done)
        notes = backfill_rate.add_sample(notes, at, done)
        assert notes[0] == begun
        assert notes[-1] == (at, done)
        assert len(notes) <= backfill_rate.MAX_SAMPLES
        assert all(earlier[0] <= later[0] for earlier, later in pairwise(notes))


def even(seconds: int, per_second: float, start: float = 0, done: int = 0) -> backfill_rate.Samples:
    return [(START + start + second, done + round(per_second * second)) for second in range(seconds)]


def test_nothing_is_told_before_two_batches_have_landed() -> None:
    samples = [(START, 0), (START + 5, 64), (START + 6, 64), (START + 10, 128)]
    for too_few in ([], [(START, 0), (START + 5, 0)], samples[:3]):
        assert backfill_rate.rate(too_few) is None
    assert backfill_rate.rate(samples) == 64 / 5


def test_a_change_of_pace_shows_within_minutes() -> None:
    notes = [*even(1_000, 10), *even(240, 2, start=1_000, done=10_000)]
    rate = backfill_rate.rate(notes)
    assert rate is not None
    assert abs(rate - 2) < 0.1


def test_who_stands_still_seems_ever_slower() -> None:
    notes: backfill_rate.Samples = even(100, 10)
    stalls = [[(START + 100 + second, 990) for second in range(0, stalled, 10)] for stalled in (20, 60, 900)]
    rates = [rate for stalled in stalls if (rate := backfill_rate.rate([*notes, *stalled])) is not None]
    assert (len(rates), rates) == (3, sorted(rates, reverse=True))
    assert rates[-1] < 2


def test_a_rest_is_no_part_of_the_pace() -> None:
    notes: backfill_rate.Samples = ()
    for at, done in [*even(50, 10), *even(50, 10, start=50 + 3_600, done=500)]:
        notes = backfill_rate.add_sample(notes, at, done)
    assert notes[0][0] > START + 3_600
    assert backfill_rate.rate(notes) == 10


def test_a_clock_that_went_back_begins_anew() -> None:
    assert backfill_rate.is_due([(START, 5)], START - 10)
    assert backfill_rate.add_sample([(START, 5)], START - 10, 6) == ((START - 10, 6),)


def test_nothing_left_has_no_end() -> None:
    progress = backfill_rate.backfill_progress(even(20, 10), START + 20, done=195, total=200, failed=5)
    assert (progress.per_second, progress.eta_seconds) == (None, None)


def test_a_build_goes_on_as_it_went() -> None:
    now = backfill_rate.build_progress(1_000, 0.25, 10.0)
    assert (now.done, now.total, now.per_second, now.eta_seconds) == (250, 1_000, 25.0, 30.0)
    for share, seconds in ((0.0, 10.0), (1.0, 10.0), (0.5, 0.0)):
        assert backfill_rate.build_progress(1_000, share, seconds).eta_seconds is None
