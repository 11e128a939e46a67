"""How the processes of one machine start and stop."""

import asyncio
from contextlib import nullcontext

import pytest

from service.runtime import processes


@pytest.mark.parametrize("fails", [False, True])
async def test_what_ends_first_stops_the_others_in_order(fails: bool) -> None:
    stop, ended = asyncio.Event(), []

    async def first() -> None:
        await asyncio.sleep(0)
        if fails:
            raise RuntimeError("the model keeps failing")

    async def server() -> None:
        await stop.wait()
        await asyncio.sleep(0.01)  # answers what it has begun
        ended.append("in order")

    expected = pytest.raises(RuntimeError, match="keeps failing") if fails else nullcontext()
    with expected:
        await processes._until_all_end(stop, [server(), first()])
    assert ended == ["in order"]
