"""The order of forward passes: which texts share one, whose turn it is, who is not delayed, who gets which error."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from service.core.caller import CALLER, Caller
from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable, Overloaded
from service.core.ids import Role, Vectors
from service.embedder.models import scheduler as module
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.models.scheduler import PassScheduler
from tests.encoders import ScriptedEncoder
from tests.running import until

PLAIN = HashingEncoder(EmbedderSpec(model="hashing:64"))
SPEC = EmbedderSpec(model="hashing:64")


@pytest.fixture
def encoder() -> ScriptedEncoder:
    return ScriptedEncoder()


@asynccontextmanager
async def scheduling(
    encoder: ScriptedEncoder, *, batch_tokens: int = 8192, **settings: Any
) -> AsyncIterator[ModelRegistry]:
    models = ModelRegistry(default="hashing:64", batch_tokens=batch_tokens, load=lambda _: encoder)
    await models.scheduler.close()
    models.scheduler = PassScheduler(**{"pass_seconds": None, **settings})
    try:
        yield models
    finally:
        encoder.gate.set()
        await models.close()


async def start(
    models: ModelRegistry, *requests: Sequence[str], role: Role = "query", caller: Caller | None = None
) -> list[asyncio.Task[Vectors]]:
    """Each is a request of its own, of one client, unless a caller is named."""
    await models.get(SPEC)
    tasks = []
    for texts in requests:
        context = contextvars.copy_context()
        context.run(CALLER.set, caller or Caller("client"))
        tasks.append(asyncio.create_task(models.embed(SPEC, texts, role), context=context))
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@asynccontextmanager
async def busy(encoder: ScriptedEncoder, **settings: Any) -> AsyncIterator[ModelRegistry]:
    """The model is held by one text, so that what comes now must wait until the gate opens."""
    async with scheduling(encoder, **settings) as models:
        encoder.gate.clear()
        (held,) = await start(models, ["held"], caller=Caller("holder"))
        await asyncio.to_thread(encoder.started.wait, 10)
        yield models
        await held


def named(name: str, count: int) -> list[str]:
    return [f"{name} {n}" for n in range(count)]


def order(encoder: ScriptedEncoder) -> list[str]:
    """Whose passes there were, in their order; the first word of a text is its request."""
    return [batch[0].split()[0] for batch in encoder.batches]


async def test_a_lone_query_does_not_wait_for_company(encoder: ScriptedEncoder) -> None:
    async with scheduling(encoder, window_seconds=3600) as models:
        vectors = await asyncio.wait_for(models.embed(SPEC, ["alone"], "query"), 10)
        np.testing.assert_array_equal(vectors, PLAIN.encode(["alone"], "query"))
        assert await asyncio.wait_for(models.embed(SPEC, ["again"], "query"), 10) is not None
    assert encoder.batches == [["alone"], ["again"]]


async def test_what_came_while_the_model_was_busy_shares_a_pass_in_one_thread(encoder: ScriptedEncoder) -> None:
    async with busy(encoder) as models:
        others = await start(models, *([f"text {n}"] for n in range(5)))
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

    async def pause(self: PassScheduler) -> None:
        paused.set()
        await over.wait()

    monkeypatch.setattr(PassScheduler, "_pause", pause)
    async with scheduling(encoder) as models:
        first = await start(models, ["a"], ["b"])
        await paused.wait()
        late = await start(models, ["c"])
        over.set()
        await asyncio.gather(*first, *late)
    assert encoder.batches == [["a", "b", "c"]]


async def test_the_budget_of_tokens_is_kept_and_an_oversize_text_goes_alone(encoder: ScriptedEncoder) -> None:
    texts = ["five words are in here"] * 6 + ["word " * 200]
    async with busy(encoder, batch_tokens=20) as models:
        others = await start(models, *([text] for text in texts), texts)
        encoder.gate.set()
        await asyncio.gather(*others)
    sizes = [len(batch) * max(len(text.split()) for text in batch) for batch in encoder.batches[1:]]
    assert sizes.count(200) == 2
    assert all(size <= 20 for size in sizes if size != 200)


async def test_a_query_is_not_delayed_by_bulk_requests(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, batch_tokens=8) as models:
        *bulks, query = await start(models, *(named("bulk", 40) for _ in range(5)), ["query"])
        encoder.gate.set()
        await query
        assert not any(bulk.done() for bulk in bulks)
        vectors = await bulks[0]
    assert order(encoder)[1] == "query"
    np.testing.assert_array_equal(vectors, PLAIN.encode(named("bulk", 40), "query"))


async def test_clients_take_turns_and_so_do_their_requests(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, batch_tokens=8) as models:
        (first,) = await start(models, named("a1", 16), caller=Caller("a"))
        (second,) = await start(models, named("a2", 16), caller=Caller("a"))
        other = await start(models, named("b", 16), caller=Caller("b"))
        encoder.gate.set()
        await asyncio.gather(first, second, *other)
    assert order(encoder)[1:] == ["a1", "b", "a2", "b", "a1", "b", "a2", "b", "a1", "a2", "a1", "a2"]


async def test_the_parts_of_one_request_are_one_in_its_turns(encoder: ScriptedEncoder) -> None:
    many, one = Caller("client"), Caller("client")
    async with busy(encoder, batch_tokens=8) as models:
        parts = await start(models, *(named("many", 8) for _ in range(6)), caller=many)
        others = await start(models, named("one", 12), caller=one)
        encoder.gate.set()
        await asyncio.gather(*parts, *others)
    assert order(encoder)[1:7] == ["many", "one", "many", "one", "many", "one"]


async def test_a_bulk_request_does_not_starve_while_queries_keep_coming(
    encoder: ScriptedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGING_SECONDS", 0.02)
    async with busy(encoder, batch_tokens=8) as models:
        (bulk,) = await start(models, named("bulk", 12))
        encoder.fault = lambda _: asyncio.run(asyncio.sleep(0.005))  # in the model's thread: a pass takes its time
        encoder.gate.set()
        queries = await start(models, *([f"query {n} {'x ' * 5}"] for n in range(8)))
        while not bulk.done():
            await asyncio.wait(queries, return_when=asyncio.FIRST_COMPLETED)
            queries = [query for query in queries if not query.done()]
            queries += await start(models, [f"query {'x ' * 6}"])
        await asyncio.gather(*queries)
    before_the_last = order(encoder)[: len(order(encoder)) - order(encoder)[::-1].index("bulk")]
    assert before_the_last.count("query") > before_the_last.count("bulk") > 2


async def test_roles_do_not_mix(encoder: ScriptedEncoder) -> None:
    async with busy(encoder) as models:
        others = [*await start(models, ["query"]), *await start(models, ["document"], role="document")]
        encoder.gate.set()
        await asyncio.gather(*others)
    assert encoder.batches[1:] == [["query"], ["document"]]


async def test_cancelled_callers_are_dropped_before_encoding(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, batch_tokens=8) as models:
        leaves, bulk, stays = await start(models, ["leaves"], named("bulk", 100), ["stays"])
        leaves.cancel()
        bulk.cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        await stays
    assert encoder.batches == [["held"], ["stays"]]


async def test_a_fault_fails_its_own_caller_with_the_cause_and_nobody_beside(encoder: ScriptedEncoder) -> None:
    encoder.fail_on("poison", ValueError("no such luck"))
    async with busy(encoder) as models:
        poison, innocent = await start(models, ["poison"], ["innocent"])
        encoder.gate.set()
        with pytest.raises(ModelUnavailable, match="no such luck") as failed:
            await poison
        assert isinstance(failed.value.__cause__, ValueError)
        assert (await innocent).shape == (1, 64)


async def test_where_memory_is_short_passes_are_halved_and_grow_back(encoder: ScriptedEncoder) -> None:
    short = True

    def fault(texts: Sequence[str]) -> None:
        if short and len(texts) > 4:
            raise MemoryError

    encoder.fault = fault
    async with scheduling(encoder, batch_tokens=32) as models:
        texts = named("text", 40)
        np.testing.assert_array_equal(await models.embed(SPEC, texts, "query"), PLAIN.encode(texts, "query"))
        await models.embed(SPEC, texts, "query")
        assert max(map(len, encoder.batches[-10:])) == 4
        short = False
        for _ in range(12):
            await models.embed(SPEC, texts, "query")
        assert max(map(len, encoder.batches[-10:])) > 8


async def test_a_text_that_does_not_fit_at_all_fails(encoder: ScriptedEncoder) -> None:
    encoder.fail_on("large", MemoryError("no room"))
    async with busy(encoder) as models:
        large, small = await start(models, ["small", "large"], ["small"])
        encoder.gate.set()
        with pytest.raises(ModelUnavailable, match="no room"):
            await large
        assert (await small).shape == (1, 64)


async def test_who_has_too_much_waiting_is_refused_at_once_and_others_are_not(encoder: ScriptedEncoder) -> None:
    async with busy(encoder, most_waiting=9) as models:
        greedy = Caller("greedy")
        waiting = await start(models, ["a", "b"], ["c"], caller=greedy)
        (refused,) = await start(models, ["d", "e"], caller=greedy)
        with pytest.raises(Overloaded) as overloaded:
            await refused
        assert overloaded.value.retry_after >= 1
        # Larger than any share, but nothing else of this client waits: it could never be taken otherwise.
        waiting += await start(models, named("large", 20), caller=Caller("modest"))
        encoder.gate.set()
        await asyncio.gather(*waiting)
        assert (await (await start(models, ["d", "e"], caller=greedy))[0]).shape == (2, 64)


async def test_closing_fails_those_who_wait(encoder: ScriptedEncoder) -> None:
    encoder.gate.clear()
    async with scheduling(encoder) as models:
        (held,) = await start(models, ["held"])
        await asyncio.to_thread(encoder.started.wait, 10)
        (waiting,) = await start(models, ["waits"])
        closing = asyncio.create_task(models.close())
        await until(waiting.done)
        encoder.gate.set()
        await closing
        for outcome in await asyncio.gather(held, waiting, return_exceptions=True):
            assert isinstance(outcome, ModelUnavailable)


async def test_nothing_gives_nothing(encoder: ScriptedEncoder) -> None:
    async with scheduling(encoder) as models:
        assert (await models.embed(SPEC, [], "query")).shape == (0, 64)
    assert encoder.batches == []
