"""The online batcher: which texts share a pass, who is not delayed, who gets which error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable, Overloaded
from service.core.ids import Role, Vectors
from service.embedder.models.batcher import Batcher
from service.embedder.models.hashing_encoder import HashingEncoder
from tests.encoders import ScriptedEncoder
from tests.running import until

PLAIN = HashingEncoder(EmbedderSpec(model="hashing:64"))


@pytest.fixture
def encoder() -> ScriptedEncoder:
    return ScriptedEncoder()


@asynccontextmanager
async def batching(encoder: ScriptedEncoder, **settings: Any) -> AsyncIterator[Batcher]:
    batcher = Batcher(encoder, **settings)
    try:
        yield batcher
    finally:
        encoder.gate.set()
        await batcher.close()


async def start(batcher: Batcher, *requests: list[str], role: Role = "query") -> list[asyncio.Task[Vectors]]:
    tasks = [asyncio.create_task(batcher.embed(texts, role)) for texts in requests]
    await asyncio.sleep(0)
    return tasks


@asynccontextmanager
async def busy(encoder: ScriptedEncoder, **settings: Any) -> AsyncIterator[Batcher]:
    """A batcher whose model is held by one text, so that what comes now must wait until the gate opens."""
    async with batching(encoder, **settings) as batcher:
        encoder.gate.clear()
        (held,) = await start(batcher, ["held"])
        await asyncio.to_thread(encoder.started.wait, 10)
        yield batcher
        await held


async def test_a_lone_query_does_not_wait_for_company(encoder: ScriptedEncoder) -> None:
    async with batching(encoder, window_seconds=3600) as batcher:
        vectors = await asyncio.wait_for(batcher.embed(["alone"], "query"), 10)
        np.testing.assert_array_equal(vectors, PLAIN.encode(["alone"], "query"))
        assert await asyncio.wait_for(batcher.embed(["again"], "query"), 10) is not None
    assert encoder.batches == [["alone"], ["again"]]


async def test_what_came_while_the_model_was_busy_shares_a_pass_in_one_thread(encoder: ScriptedEncoder) -> None:
    async with busy(encoder) as batcher:
        others = await start(batcher, *([f"text {n}"] for n in range(5)))
        encoder.gate.set()
        vectors = await asyncio.gather(*others)
    assert encoder.batches == [["held"], [f"text {n}" for n in range(5)]]
    assert len(encoder.threads) == 1
    for n, vector in enumerate(vectors):
        np.testing.assert_array_equal(vector, PLAIN.encode([f"text {n}"], "query"))


async def test_callers_that_come_within_the_window_share_a_pass(
    encoder: ScriptedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, over = asyncio.Event(), asyncio.Event()

    async def pause(self: Batcher) -> None:
        paused.set()
        await over.wait()

    monkeypatch.setattr(Batcher, "_pause", pause)
    async with batching(encoder) as batcher:
        first = await start(batcher, ["a"], ["b"])
        await paused.wait()
        late = await start(batcher, ["c"])
        over.set()
        await asyncio.gather(*first, *late)
    assert encoder.batches == [["a", "b", "c"]]


async def test_the_budget_of_tokens_is_kept_and_an_oversize_text_goes_alone(encoder: ScriptedEncoder) -> None:
    texts = ["five words are in here"] * 6 + ["word " * 200]
    async with busy(encoder, batch_tokens=20) as batcher:
        others = await start(batcher, *([text] for text in texts))
        encoder.gate.set()
        await asyncio.gather(*others)
    assert sorted(len(batch) for batch in encoder.batches[1:]) == [1, 2, 4]
    assert [texts[-1]] in encoder.batches


async def test_a_query_is_not_delayed_by_a_bulk_request(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, batch_tokens=8) as batcher:
        bulk, query = await start(batcher, [f"bulk {n}" for n in range(40)], ["query"])
        encoder.gate.set()
        await query
        assert not bulk.done()
        vectors = await bulk
    assert vectors.shape == (40, 64)
    np.testing.assert_array_equal(vectors[39], PLAIN.encode(["bulk 39"], "query")[0])


async def test_roles_do_not_mix(encoder: ScriptedEncoder) -> None:
    async with busy(encoder) as batcher:
        others = [*await start(batcher, ["query"]), *await start(batcher, ["document"], role="document")]
        encoder.gate.set()
        await asyncio.gather(*others)
    assert encoder.batches[1:] == [["query"], ["document"]]


async def test_cancelled_callers_are_dropped_before_encoding(encoder: ScriptedEncoder) -> None:
    async with busy(encoder) as batcher:
        leaves, stays = await start(batcher, ["leaves"], ["stays"])
        leaves.cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        await stays
    assert encoder.batches == [["held"], ["stays"]]


async def test_a_failed_batch_fails_each_waiter_with_the_cause_and_the_next_one_works(encoder: ScriptedEncoder) -> None:
    encoder.fail_on("poison", ValueError("no such luck"))
    async with busy(encoder) as batcher:
        others = await start(batcher, ["poison"], ["innocent"])
        encoder.gate.set()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(outcome, ModelUnavailable)
            assert "no such luck" in outcome.detail
            assert isinstance(outcome.__cause__, ValueError)
        assert (await batcher.embed(["innocent"], "query")).shape == (1, 64)


async def test_too_much_waiting_is_refused_at_once_with_a_time_to_come_back(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, most_waiting=3) as batcher:
        (waiting,) = await start(batcher, ["a", "b"])
        with pytest.raises(Overloaded) as refused:
            await batcher.embed(["c", "d"], "query")
        assert refused.value.retry_after >= 1
        encoder.gate.set()
        await waiting
        await until(lambda: not batcher.busy)
        # Larger than the bound, but nothing else waits: it could never be taken otherwise.
        assert (await batcher.embed(["a", "b", "c", "d"], "query")).shape == (4, 64)


async def test_closing_fails_those_who_wait(encoder: ScriptedEncoder) -> None:
    encoder.gate.clear()
    async with batching(encoder) as batcher:
        (held,) = await start(batcher, ["held"])
        await asyncio.to_thread(encoder.started.wait, 10)
        (waiting,) = await start(batcher, ["waits"])
        closing = asyncio.create_task(batcher.close())
        await until(waiting.done)
        encoder.gate.set()
        await closing
        for outcome in await asyncio.gather(held, waiting, return_exceptions=True):
            assert isinstance(outcome, ModelUnavailable)


async def test_nothing_gives_nothing(encoder: ScriptedEncoder) -> None:
    async with batching(encoder) as batcher:
        assert (await batcher.embed([], "query")).shape == (0, 64)
    assert encoder.batches == []
