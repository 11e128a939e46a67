"""Which models may be named, and that each is loaded once."""

import asyncio
import gc
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.core import metrics
from service.core.collections import EmbedderSpec
from service.core.errors import Invalid, Misconfigured, ModelUnavailable
from service.core.ids import Role, Vectors
from service.core.ports.embedder import Encoder
from service.embedder.models import loading, registry
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from service.runtime.settings import Settings
from tests.encoders import ScriptedEncoder
from tests.running import until


def spec(model: str = "default", **settings: object) -> EmbedderSpec:
    return EmbedderSpec(model=model, **settings)  # type: ignore[arg-type]


def test_default_is_resolved_to_its_name_and_what_was_asked_for_stays() -> None:
    models = ModelRegistry(default="sentence-transformers/all-MiniLM-L6-v2")
    resolved = spec("all-MiniLM-L6-v2", query_prompt="q: ", dimensions=128)
    assert models.resolve(spec(query_prompt="q: ", dimensions=128)) == resolved == models.resolve(resolved)


@pytest.mark.parametrize("model", ["someone/else", "/etc", "../model", "", "hashing:x", "all-MiniLM-L6-v2/../.."])
def test_a_client_cannot_name_models_of_its_own(model: str) -> None:
    with pytest.raises(Invalid) as refused:
        ModelRegistry(default="all-MiniLM-L6-v2", allowed=["BAAI/bge-small-en-v1.5"]).resolve(spec(model))
    assert refused.value.errors[0].field == "embedder.model"


@pytest.mark.parametrize("model", ["default", "all-MiniLM-L6-v2", "hashing", "hashing:64", "BAAI/bge-small-en-v1.5"])
def test_allowed_models(model: str) -> None:
    ModelRegistry(default="hashing", allowed=["BAAI/bge-small-en-v1.5"]).resolve(spec(model))


def test_revisions_are_the_operators_choice() -> None:
    models = ModelRegistry(default="hashing", allowed=["some/model@abc123", "other/model"])
    assert models.resolve(spec("some/model")).revision == "abc123"
    assert models.resolve(spec("some/model", revision="abc123")).revision == "abc123"
    for model, revision in (("some/model", "refs/pr/1"), ("other/model", "main"), ("hashing", "1")):
        with pytest.raises(Invalid) as refused:
            models.resolve(spec(model, revision=revision))
        assert refused.value.errors[0].field == "embedder.revision"


def test_other_names_of_models_are_those_of_the_operator() -> None:
    models = ModelRegistry(default="hashing", aliases={"ada": "default", "small": "all-MiniLM-L6-v2"})
    assert [models.resolve(spec(name)).model for name in ("ada", "small")] == ["hashing", "all-MiniLM-L6-v2"]
    assert {"ada", "small"} <= models.models().keys()
    own = ModelRegistry(default="hashing", aliases={"all-MiniLM-L6-v2": "hashing"})
    assert own.resolve(spec("all-MiniLM-L6-v2")).model == "all-MiniLM-L6-v2"  # the name of a model stays its own
    with pytest.raises(Misconfigured, match="AZIMUTH_MODEL_ALIASES: 'someone/else' is not one of the models"):
        ModelRegistry(default="hashing", aliases={"ada": "someone/else"})


@pytest.mark.parametrize("text", ["ada", "ada=", "=hashing", "ada=hashing=x", "ada = hashing"])
def test_an_alias_is_a_name_and_a_model(text: str) -> None:
    assert Settings.model_validate({"model_aliases": "a=b, c=d"}).aliases == {"a": "b", "c": "d"}
    with pytest.raises(ValidationError, match="model_aliases"):
        Settings.model_validate({"model_aliases": text})


class Loads:
    """Counts loads; fails while told to."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, asked: EmbedderSpec) -> Encoder:
        self.count += 1
        assert self.gate.wait(10)
        if self.failure:
            raise self.failure
        return HashingEncoder(asked)


async def test_concurrent_callers_share_one_load() -> None:
    loads = Loads()
    loads.gate.clear()
    models = ModelRegistry(default="hashing", load=loads)
    callers = [asyncio.create_task(models.get(spec())) for _ in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    loads.gate.set()
    results = await asyncio.gather(*callers[1:])
    assert loads.count == 1
    assert len({id(encoder) for encoder in results}) == 1
    assert await models.get(spec("hashing")) is results[0]
    assert await models.get(spec(query_prompt="q: ")) is not results[0]


async def test_a_failed_load_tells_why_is_not_repeated_at_once_and_can_be_repeated_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads = Loads()
    loads.failure = OSError("disk is gone")
    models = ModelRegistry(default="hashing", load=loads)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="disk is gone"):
            await models.get(spec())
    assert loads.count == 1
    loads.failure = None
    monkeypatch.setattr(loading, "RETRY_SECONDS", 0.0)
    assert (await models.get(spec())).identity.dimensions == 256


async def test_what_the_client_got_wrong_stays_the_clients_error() -> None:
    with pytest.raises(Invalid, match="dimensions"):
        await ModelRegistry(default="hashing").get(spec(dimensions=10_000))


async def test_texts_of_both_roles_are_embedded() -> None:
    models = ModelRegistry(default="hashing:64")
    first, second = await asyncio.gather(models.embed(spec(), ["a"], "query"), models.embed(spec(), ["b"], "document"))
    assert first.shape == second.shape == (1, 64)
    await models.close()


async def test_no_batch_of_a_forgotten_model_is_answered() -> None:
    old, new = ScriptedEncoder(), HashingEncoder(EmbedderSpec(model="hashing:128"))
    encoders = iter((old, new))
    old.gate.clear()
    models = ModelRegistry(default="hashing", load=lambda _: next(encoders))
    under_way = asyncio.create_task(models.embed(spec(), ["under way"], "query"))
    await asyncio.to_thread(old.started.wait, 10)
    waiting = asyncio.create_task(models.embed(spec(), ["waits"], "query"))
    await asyncio.sleep(0)
    await models.forget(spec())
    old.gate.set()
    await asyncio.wait([under_way, waiting])
    assert {type(outcome.exception()) for outcome in (under_way, waiting)} == {ModelUnavailable}
    assert (await models.embed(spec(), ["after"], "query")).shape == (1, 128)
    assert await models.get(spec()) is new
    await models.close()


async def test_a_model_that_is_forgotten_while_it_loads_reaches_nobody() -> None:
    loads = Loads()
    loads.gate.clear()
    models = ModelRegistry(default="hashing:64", load=loads)
    asked = [asyncio.create_task(models.get(spec())), asyncio.create_task(models.embed(spec(), ["text"], "query"))]
    await until(lambda: loads.count > 0)
    await models.forget(spec())
    loads.gate.set()
    encoder, _ = await asyncio.gather(*asked)
    assert loads.count == 2
    assert await models.get(spec()) is encoder
    await models.close()


@pytest.mark.slow
async def test_what_somebody_holds_stays_the_same_however_many_others_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "CACHED_ENCODERS", 4)
    loads = Loads()
    models = ModelRegistry(default="hashing:64", load=loads)
    held = await models.get(spec())
    await models.embed(spec(query_prompt="first: "), ["text"], "query")
    for n in range(20):
        await models.embed(spec(query_prompt=f"{n}: "), ["text"], "query")
    assert await models.get(spec()) is held
    assert loads.count == 22
    async with asyncio.timeout(10):  # threads that end hold on to their encoder until they have
        while gc.collect() or sum(encoder is not None for encoder in models._alive.values()) > 5:
            await asyncio.sleep(0.01)
    await models.embed(spec(query_prompt="first: "), ["text"], "query")
    assert loads.count == 23
    await models.close()


async def test_what_was_not_used_for_long_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModelRegistry(default="hashing:64", load=Loads())
    await models.embed(spec(query_prompt="retired: "), ["text"], "query")
    await models.get(spec())
    assert len(models._cache) == 2
    monkeypatch.setattr(registry, "IDLE_SECONDS", 0.0)
    held = await models.get(spec())
    assert [encoder for _, encoder in models._cache.values()] in ([held], [])
    await models.close()


async def test_models_are_listed_and_none_is_loaded_for_it() -> None:
    loads = Loads()
    models = ModelRegistry(default="hashing:64", allowed=["some/model@abc"], load=loads)
    assert dict(models.models()) == dict.fromkeys(["hashing:64", "all-MiniLM-L6-v2", "some/model", "hashing"])
    assert loads.count == 0
    encoder = await models.get(spec())
    assert models.models()["hashing:64"] is encoder


@pytest.mark.parametrize("url", ["encoder:8000", "ftp://encoder", "http://", "/encoder"])
def test_an_address_that_is_none_is_told_at_the_start(url: str) -> None:
    with pytest.raises(Misconfigured, match="no address of an encoder"):
        ModelRegistry(default="hashing", encoder_url=url)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(Misconfigured, match="AZIMUTH_ENCODER_KEY") as caught:
        ModelRegistry(default="hashing", encoder_url="https://me:s3cret@encoder")
    assert "s3cret" not in str(caught.value)


async def test_the_vector_of_a_query_is_kept_for_the_encoder_that_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CACHED_QUERIES", 2)
    models = ModelRegistry(default="hashing:64")
    encoder = await models.get(spec())
    calls: list[str] = []
    forward = HashingEncoder.forward

    def counted(self: HashingEncoder, inputs: Sequence[Any], role: Role) -> Vectors:
        calls.extend([f"{role}"] * len(inputs))
        return forward(self, inputs, role)

    monkeypatch.setattr(HashingEncoder, "forward", counted)

    async def passes(texts: Sequence[str], role: Role = "query") -> int:
        calls.clear()
        vectors = await models.embed(spec(), texts, role)
        np.testing.assert_array_equal(vectors, encoder.encode(texts, role))
        return len(calls) - len(texts)  # less those of the comparison

    hits = metrics.QUERY_VECTORS.labels("hit")._value.get()
    assert await passes(["a", "b", "a"]) == 2
    assert await passes(["b"]) == 0
    assert metrics.QUERY_VECTORS.labels("hit")._value.get() == hits + 1
    assert await passes(["b"], "document") == 1
    assert await passes(["c"]) == 1  # in place of `a`, which was asked for before `b`
    assert await passes(["b", "a"]) == 1
    assert [await passes(["x" * 501]) for _ in range(2)] == [1, 1]
    assert [await passes(["y"] * 17) for _ in range(2)] == [17, 17]
    assert await passes([]) == 0
    await models.forget(spec())
    assert await passes(["b"]) == 1  # another model may have been loaded
