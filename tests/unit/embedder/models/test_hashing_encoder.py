"""The hashing encoder: near where words are shared, the same everywhere."""

import subprocess
import sys

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.embedder.models.hashing_encoder import HashingEncoder, dimensions_of


def encoder(model: str = "hashing", **settings: object) -> HashingEncoder:
    return HashingEncoder(EmbedderSpec(model=model, **settings))  # type: ignore[arg-type]


def test_names() -> None:
    assert dimensions_of("hashing") == 256
    assert dimensions_of("hashing:64") == 64
    assert dimensions_of("hashings") is None
    assert encoder("hashing:64").identity.dimensions == 64
    with pytest.raises(Invalid, match=r"embedder\.model"):
        encoder("hashing:4")
    with pytest.raises(Invalid, match=r"embedder\.dimensions"):
        encoder("hashing:64", dimensions=65)


def test_shared_words_are_near_and_similar_words_nearer_than_others() -> None:
    query, same, similar, other = encoder().encode(
        ["cancel a running task", "how to cancel the task", "cancelled tasks", "weather in Paris"], "document"
    )
    assert query @ same > 0.4
    assert query @ similar > query @ other + 0.1


def test_case_does_not_matter_and_order_of_texts_neither() -> None:
    one = encoder().encode(["Hello World", "other"], "query")
    two = encoder().encode(["other", "hello world"], "query")
    np.testing.assert_array_equal(one[0], two[1])


def test_another_process_gives_the_same_vectors() -> None:
    program = (
        "from service.core.collections import EmbedderSpec\n"
        "from service.embedder.models.hashing_encoder import HashingEncoder\n"
        "encoder = HashingEncoder(EmbedderSpec(model='hashing:64'))\n"
        "print(encoder.encode(['stable across processes'], 'query').tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == encoder("hashing:64").encode(["stable across processes"], "query").tobytes().hex()
