"""Every fault of `loadtests.chaos` once, in quick succession; for ten minutes and more with `make chaos`."""

import os
from pathlib import Path

import pytest

from loadtests.chaos import WRONG, run, show

pytestmark = pytest.mark.faults


def test_a_service_that_is_broken_all_the_time_loses_nothing_and_says_nothing_wrong(scratch: Path) -> None:
    minutes = float(os.environ.get("CHAOS_MINUTES", "1.1"))
    report = run(scratch, minutes, seed=1, every_seconds=5.0 if minutes < 5 else 10.0)
    show(report)
    assert {what: report.total(what) for what in WRONG} == dict.fromkeys(WRONG, 0), report.examples
    assert report.total("answered") > 100
