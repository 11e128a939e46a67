"""What a figure means: where the limits are, which side of them is bad, and what the worst of all makes of it."""

from typing import get_args

import pytest

from service.core.verdict import Verdict
from service.diagnostics.thresholds import THRESHOLDS, Name, assess, unknown, worst


def test_every_figure_has_its_words() -> None:
    assert set(THRESHOLDS) == set(get_args(Name))


@pytest.mark.parametrize("name", get_args(Name))
def test_limits_are_in_order_and_told_with_advice(name: Name) -> None:
    symptom = THRESHOLDS[name]
    if symptom.watch is None or symptom.broken is None:
        assert assess(name, 1e6, None).verdict == "healthy"
        return
    inside = (symptom.watch + symptom.broken) / 2
    beyond = symptom.broken + (symptom.broken - symptom.watch)
    before = symptom.watch - (symptom.broken - symptom.watch) / 10
    assert (symptom.broken < symptom.watch) == symptom.lower
    for value, verdict in ((before, "healthy"), (inside, "watch"), (beyond, "broken")):
        found = assess(name, value, 0.1)
        assert (found.verdict, found.watch, found.broken) == (verdict, symptom.watch, symptom.broken)
        assert bool(found.do) == (verdict != "healthy")
        assert (symptom.trouble in found.says) == (verdict != "healthy")


def test_a_small_sample_cannot_have_a_large_rank() -> None:
    assert assess("effective_rank", 20.0, None).verdict == "watch"
    assert assess("effective_rank", 20.0, None, share=0.3).verdict == "healthy"
    assert assess("effective_rank", 20.0, None, share=0.3).watch == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), None),
        (("healthy", "healthy"), "healthy"),
        (("healthy", "watch"), "watch"),
        (("broken", "watch", "healthy"), "broken"),
    ],
)
def test_the_worst_decides(verdicts: tuple[Verdict, ...], expected: Verdict | None) -> None:
    values = {"healthy": 0.1, "watch": 0.7, "broken": 0.99}
    measures = [unknown("words", "nobody asked"), *(assess("mean_cosine", values[one], None) for one in verdicts)]
    assert worst(measures) == expected


def test_what_could_not_be_measured_says_why() -> None:
    found = unknown("meaning", "nobody can be asked")
    assert (found.value, found.verdict, found.do) == (None, None, "")
    assert found.says == "not measured: nobody can be asked"
