"""What a figure means: where the limits are, which side of them is bad, and what the worst of all makes of it."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.verdict import Verdict, worst_verdict
from service.diagnostics.thresholds import GUARD, THRESHOLDS, GeometryMeasureName, assess_measure, not_measured


def test_every_measure_has_a_threshold() -> None:
    assert set(THRESHOLDS) == set(get_args(GeometryMeasureName))


@pytest.mark.parametrize("name", get_args(GeometryMeasureName))
def test_verdicts_follow_the_limits_and_come_with_advice(name: GeometryMeasureName) -> None:
    threshold = THRESHOLDS[name]
    if threshold.limits is None:
        assert assess_measure(name, 1e6, None).verdict == "healthy"
        return
    watch, broken = threshold.limits
    inside, beyond, before = (watch + broken) / 2, 2 * broken - watch, watch - (broken - watch) / 10
    for value, verdict in ((before, "healthy"), (inside, "watch"), (beyond, "broken")):
        found = assess_measure(name, value, abs(broken - watch) / 21)
        assert (found.verdict, found.watch, found.broken) == (verdict, watch, broken)
        assert bool(found.advice) == (verdict != "healthy")
        assert (threshold.problem in found.message) == (verdict != "healthy")


@pytest.mark.parametrize("name", [name for name, threshold in THRESHOLDS.items() if threshold.limits is not None])
@given(beyond=st.floats(0.001, 50), error=st.floats(0, 10))
def test_a_value_is_bad_only_where_its_interval_lies_beyond_the_limit(
    name: GeometryMeasureName, beyond: float, error: float
) -> None:
    watch, broken = THRESHOLDS[name].limits or (0.0, 0.0)
    step = broken - watch
    found = assess_measure(name, watch + beyond * step, error * abs(step))
    low = beyond - GUARD * error
    assert found.verdict == ("healthy" if low <= 1e-9 else "watch" if low <= 1 + 1e-9 else "broken") or low < 1e-6
    assert assess_measure(name, watch - beyond * step, error).verdict == "healthy"


def test_an_unknown_error_is_taken_for_none() -> None:
    assert [assess_measure("meaning", 3.0, error).verdict for error in (None, float("nan"))] == ["broken"] * 2


def test_a_small_sample_cannot_have_a_large_rank() -> None:
    assert assess_measure("effective_rank", 20.0, None).verdict == "watch"
    scaled = assess_measure("effective_rank", 20.0, None, scale=0.3)
    assert scaled.verdict == "healthy"
    assert scaled.watch == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), None),
        (("healthy", "healthy"), "healthy"),
        (("healthy", "watch"), "watch"),
        (("broken", "watch", "healthy"), "broken"),
    ],
)
def test_the_worst_verdict_decides(verdicts: tuple[Verdict, ...], expected: Verdict | None) -> None:
    values = {"healthy": 0.1, "watch": 0.7, "broken": 0.99}
    measures = [
        not_measured("words", "nobody asked"),
        *(assess_measure("mean_cosine", values[one], None) for one in verdicts),
    ]
    assert worst_verdict(one.verdict for one in measures) == expected


def test_an_unmeasured_value_has_a_reason() -> None:
    found = not_measured("meaning", "nobody can be asked")
    assert (found.value, found.verdict, found.advice) == (None, None, "")
    assert found.message == "not measured: nobody can be asked"
