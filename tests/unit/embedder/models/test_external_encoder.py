"""Vectors that clients bring: what must be declared, and that nothing here pretends to make them."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.embedder.models.registry import ModelRegistry


@pytest.fixture
def models() -> ModelRegistry:
    return ModelRegistry(default="hashing")


def spec(**changes: Any) -> EmbedderSpec:
    declared: dict[str, Any] = {"dimensions": 768, "identity": "clip-vit-l-14, 2024-05"}
    return EmbedderSpec(model="external", **declared | changes)


@pytest.mark.parametrize("dimensions", [1, 4000])
def test_dimensions_and_identity_are_all_that_is_asked_for(models: ModelRegistry, dimensions: int) -> None:
    assert models.resolve(spec(dimensions=dimensions)) == spec(dimensions=dimensions)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dimensions": None}, "embedder.dimensions"),
        ({"dimensions": 0}, "embedder.dimensions"),
        ({"dimensions": 4001}, "embedder.dimensions"),
        ({"identity": None}, "embedder.identity"),
        ({"identity": " \n"}, "embedder.identity"),
        ({"revision": "main"}, "embedder.revision"),
        ({"query_prompt": "q: "}, "embedder.query_prompt"),
        ({"document_prompt": "d: "}, "embedder.document_prompt"),
    ],
)
def test_what_is_refused(models: ModelRegistry, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        models.resolve(spec(**changes))
    assert [error.field for error in refused.value.errors] == [field]


@pytest.mark.parametrize("model", ["default", "hashing:64", "all-MiniLM-L6-v2"])
def test_other_models_cannot_be_renamed(models: ModelRegistry, model: str) -> None:
    with pytest.raises(Invalid) as refused:
        models.resolve(EmbedderSpec(model=model, identity="mine"))
    assert refused.value.errors[0].field == "embedder.identity"


async def test_another_identity_is_another_space(models: ModelRegistry) -> None:
    one, same, other, shorter = [
        (await models.get(each)).identity for each in (spec(), spec(), spec(identity="another"), spec(dimensions=512))
    ]
    assert one.fingerprint == same.fingerprint
    assert one.differing(other) == ("identity",)
    assert one.differing(shorter) == ("dimensions",)


async def test_nothing_is_encoded(models: ModelRegistry) -> None:
    encoder = await models.get(spec())
    assert encoder.unchanged()
    asked: list[Callable[[], object]] = [
        lambda: encoder.encode(["text"], "document"),
        lambda: encoder.lengths(["text"], "query"),
        lambda: encoder.offsets(["text"]),
        lambda: encoder.overhead("query"),
    ]
    for ask in asked:
        with pytest.raises(Invalid, match="send `vector`"):
            ask()
    with pytest.raises(Invalid, match="send `vector`"):
        await models.embed(spec(), ["text"], "query")
    await models.close()


@pytest.mark.slow
def test_neither_external_vectors_nor_a_remote_encoder_need_torch() -> None:
    program = (
        "import asyncio, sys\n"
        "from service.core.collections import EmbedderSpec\n"
        "from service.embedder.worker import worker\n"
        "from service.embedder.models.registry import ModelRegistry\n"
        "from service.core.errors import ModelUnavailable\n"
        "async def main():\n"
        "    models = ModelRegistry(default='all-MiniLM-L6-v2', encoder_url='http://127.0.0.1:9')\n"
        "    await models.get(EmbedderSpec(model='external', dimensions=3, identity='mine'))\n"
        "    try:\n"
        "        await models.get(EmbedderSpec())\n"
        "    except ModelUnavailable as error:\n"
        "        print(error.detail)\n"
        "    await models.close()\n"
        "asyncio.run(main())\n"
        "print({'torch', 'transformers', 'sentence_transformers', 'tokenizers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, loaded = run.stdout.splitlines()
    assert "127.0.0.1:9 does not answer" in said
    assert loaded == "set()"
