"""Answers as JSON."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from service.api.bodies import written

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda of: st.lists(of, max_size=20) | st.dictionaries(st.text(max_size=3), of))


@given(VALUES)
def test_what_is_written_in_parts_is_what_the_library_writes_at_once(value: Any) -> None:
    assert written(value) == orjson.dumps(value)
