"""The online batcher: who shares a pass, who does not wait, who gets which error."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable, Overloaded
from service.core.ids import Role, Vectors
from service.embedder.models.batcher import Batcher
from service.embedder.models.hashing_encoder import HashingEncoder


class Watched(HashingEncoder):
    """Notes each pass; the gate holds passes back until the test opens it."""

    def __init__(self) -> None:
        super().__init__(EmbedderSpec(model="hashing:64"))
        self.passes: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        self.passes.append(list(texts))
        self.threads.add(threading.get_ident())
        self.started.release()
        assert self.gate.wait(10)
        if "poison" in texts:
            raise ValueError("no such luck")
        return super().encode(texts, role)


@pytest.fixture
def encoder() -> Watched:
    return Watched()


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def busy(encoder: Watched, batcher: Batcher) -> Awaitable[Vectors]:
    """Hold the model with one text, so that what comes now must wait."""
    encoder.gate.clear()
    held = asyncio.create_task(batcher.embed(["held"], "query"))
    await asyncio.to_thread(encoder.started.acquire, timeout=10)
    return held


async def test_a_lone_query_does_not_wait_for_company(encoder: Watched) -> None:
    batcher = Batcher(encoder, window_seconds=3600)
    vectors = await asyncio.wait_for(batcher.embed(["alone"], "query"), 10)
    np.testing.assert_array_equal(vectors, HashingEncoder(EmbedderSpec(model="hashing:64")).encode(["alone"], "query"))
    assert await asyncio.wait_for(batcher.embed(["again"], "query"), 10) is not None
    assert encoder.passes == [["alone"], ["again"]]
    await batcher.close()


async def test_what_came_while_the_model_was_busy_shares_a_pass_in_one_thread(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    held = await busy(encoder, batcher)
    others = [asyncio.create_task(batcher.embed([f"text {n}"], "query")) for n in range(5)]
    await asyncio.sleep(0)
    encoder.gate.set()
    await held
    vectors = await asyncio.gather(*others)
    assert encoder.passes == [["held"], [f"text {n}" for n in range(5)]]
    assert len(encoder.threads) == 1
    for n, vector in enumerate(vectors):
        np.testing.assert_array_equal(vector[0], encoder.encode([f"text {n}"], "query")[0])
    await batcher.close()


async def test_callers_that_come_within_the_window_share_a_pass(
    encoder: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, over = asyncio.Event(), asyncio.Event()

    async def pause(self: Batcher) -> None:
        paused.set()
        await over.wait()

    monkeypatch.setattr(Batcher, "_pause", pause)
    batcher = Batcher(encoder)
    first = [asyncio.create_task(batcher.embed([text], "query")) for text in ("a", "b")]
    await paused.wait()
    late = asyncio.create_task(batcher.embed(["c"], "query"))
    await asyncio.sleep(0)
    over.set()
    await asyncio.gather(*first, late)
    assert encoder.passes == [["a", "b", "c"]]
    await batcher.close()


async def test_the_budget_of_tokens_is_kept_and_an_oversize_text_goes_alone(encoder: Watched) -> None:
    batcher = Batcher(encoder, batch_tokens=20)
    held = await busy(encoder, batcher)
    texts = ["five words are in here"] * 6 + ["word " * 200]
    others = [asyncio.create_task(batcher.embed([text], "query")) for text in texts]
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(held, *others)
    assert sorted(len(batch) for batch in encoder.passes[1:]) == [1, 2, 4]
    assert [texts[-1]] in encoder.passes
    await batcher.close()


async def test_a_query_is_not_held_up_by_a_bulk_request(encoder: Watched) -> None:
    batcher = Batcher(encoder, batch_tokens=8)
    held = await busy(encoder, batcher)
    bulk = asyncio.create_task(batcher.embed([f"bulk {n}" for n in range(40)], "query"))
    await asyncio.sleep(0)
    query = asyncio.create_task(batcher.embed(["query"], "query"))
    await asyncio.sleep(0)
    encoder.gate.set()
    await query
    assert not bulk.done()
    vectors = await bulk
    assert vectors.shape == (40, 64)
    np.testing.assert_array_equal(vectors[39], encoder.encode(["bulk 39"], "query")[0])
    await held
    await batcher.close()


async def test_roles_do_not_mix(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    held = await busy(encoder, batcher)
    others = [asyncio.create_task(batcher.embed([role], role)) for role in ("query", "document")]
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(held, *others)
    assert encoder.passes[1:] == [["query"], ["document"]]
    await batcher.close()


async def test_cancelled_callers_are_dropped_before_encoding(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    held = await busy(encoder, batcher)
    leaves = asyncio.create_task(batcher.embed(["leaves"], "query"))
    stays = asyncio.create_task(batcher.embed(["stays"], "query"))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(held, stays)
    assert encoder.passes == [["held"], ["stays"]]
    await batcher.close()


async def test_a_failed_batch_fails_each_waiter_with_the_cause_and_the_next_one_works(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    held = await busy(encoder, batcher)
    others = [asyncio.create_task(batcher.embed([text], "query")) for text in ("poison", "innocent")]
    await asyncio.sleep(0)
    encoder.gate.set()
    await held
    for outcome in await asyncio.gather(*others, return_exceptions=True):
        assert isinstance(outcome, ModelUnavailable)
        assert "no such luck" in outcome.detail
        assert isinstance(outcome.__cause__, ValueError)
    assert (await batcher.embed(["innocent"], "query")).shape == (1, 64)
    await batcher.close()


async def test_too_much_waiting_is_refused_at_once_with_a_time_to_come_back(encoder: Watched) -> None:
    batcher = Batcher(encoder, most_waiting=3)
    held = await busy(encoder, batcher)
    waiting = asyncio.create_task(batcher.embed(["a", "b"], "query"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await batcher.embed(["c", "d"], "query")
    assert refused.value.retry_after >= 1
    encoder.gate.set()
    await asyncio.gather(held, waiting)
    # Larger than the bound, but nothing else waits: it could never be taken otherwise.
    assert (await batcher.embed(["a", "b", "c", "d"], "query")).shape == (4, 64)
    await batcher.close()


async def test_closing_fails_those_who_wait(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    held = await busy(encoder, batcher)
    waiting = asyncio.create_task(batcher.embed(["waits"], "query"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await eventually(lambda: waiting.done())
    encoder.gate.set()
    await closing
    for outcome in await asyncio.gather(held, waiting, return_exceptions=True):
        assert isinstance(outcome, ModelUnavailable)


async def test_nothing_gives_nothing(encoder: Watched) -> None:
    batcher = Batcher(encoder)
    assert (await batcher.embed([], "query")).shape == (0, 64)
    assert encoder.passes == []
    await batcher.close()
