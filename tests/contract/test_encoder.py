"""What every encoder promises: the hashing encoder, the default model, a static one, and another service's."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite
from service.embedder.models.loader import ModelLoader
from service.embedder.models.registry import ModelRegistry
from service.embedder.models.remote_encoder import EncoderService, RemoteEncoder
from tests.models import encoders, static_model

TEXTS = ["How to cancel a task after a timeout?", "", " ", "🙂", "日本語の文章です。", "Übergrößenträger; naïve café."]
TEXTS += ["one " * 2000, "a\u0000b\ud7ff\u200bc"]

KINDS = [
    "hashing",
    pytest.param("all-MiniLM-L6-v2", marks=pytest.mark.model),
    pytest.param("static", marks=pytest.mark.model),
    "remote hashing",
    pytest.param("remote all-MiniLM-L6-v2", marks=pytest.mark.model),
]


@dataclass(frozen=True)
class Make:
    """Makes encoders of one kind. `texts`: those that have a vector in it."""

    load: Callable[[EmbedderSpec], Encoder]
    model: str
    texts: Sequence[str] = tuple(TEXTS)

    def __call__(self, **settings: Any) -> Encoder:
        return self.load(EmbedderSpec(model=self.model, **settings))


@pytest.fixture(scope="module", params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    loader = ModelLoader(device="cpu", precision="float32", threads=1)
    kind, _, model = str(request.param).rpartition(" ")
    if kind == "remote":
        with encoders(ModelRegistry(default=model, load=loader)) as running:
            remote = EncoderService(running.url)
            yield Make(lambda spec: RemoteEncoder(remote, spec), model)
            remote.close()
    elif model == "static":
        folder = static_model(tmp_path_factory.mktemp("static"))
        yield Make(
            loader, str(folder), [text for text in TEXTS if text.strip()]
        )  # the mean of no rows has no direction
    else:
        yield Make(loader, model)


def test_rows_have_length_one_and_the_stated_dimensions(make: Make) -> None:
    encoder = make()
    vectors = encoder.encode(make.texts, "document")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(make.texts), encoder.identity.dimensions)
    assert finite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert encoder.encode([], "document").shape == (0, encoder.identity.dimensions)


def test_a_text_lands_at_the_same_place_alone_and_in_any_company(make: Make) -> None:
    encoder = make()
    together = encoder.encode(make.texts, "document")
    for text, vector in zip(make.texts, together, strict=True):
        assert encoder.encode([text], "document")[0] @ vector > 0.9999


def test_threads_do_not_disturb_each_other(make: Make) -> None:
    encoder = make()
    alone = encoder.encode(make.texts, "document")
    with ThreadPoolExecutor(4) as pool:
        encoded = [pool.submit(encoder.encode, make.texts, "document") for _ in range(6)]
        counted = [pool.submit(encoder.lengths, make.texts, "query") for _ in range(6)]
        for future in encoded:
            assert (future.result() * alone).sum(axis=1).min() > 0.9999
        assert {tuple(future.result()) for future in counted} == {tuple(encoder.lengths(make.texts, "query"))}


def test_offsets_name_the_tokens_in_code_points_uncut(make: Make) -> None:
    encoder = make()
    text = "Émile, 日本 and\n🙂 more."
    (offsets,) = encoder.offsets([text])
    pieces = [text[start:end] for start, end in offsets]
    assert pieces[0].startswith("É")
    assert {"日", "本"} <= set("".join(pieces))
    assert offsets.dtype == np.int64
    assert (np.diff(offsets[:, 0]) >= 0).all()
    (empty,) = encoder.offsets([""])
    assert empty.shape == (0, 2)
    (long,) = encoder.offsets(["word " * 3000])
    assert len(long) == 3000


def test_lengths_count_everything_that_the_model_would_see(make: Make) -> None:
    encoder = make(query_prompt="search for this: ")
    texts = ["one two three", "one " * 3000]
    for role in ("query", "document"):
        expected = [encoder.overhead(role) + len(offsets) for offsets in encoder.offsets(texts)]
        assert encoder.lengths(texts, role) == expected
    assert encoder.overhead("query") > encoder.overhead("document")


def test_only_the_first_max_tokens_of_a_text_count(make: Make) -> None:
    encoder = make()
    room = encoder.identity.max_tokens - encoder.overhead("document")
    same, longer, shorter = encoder.encode(
        ["word " * room, "word " * room + "zebra " * 500, "word " * (room - 5) + "zebra " * 5], "document"
    )
    assert same @ longer > 0.99999
    assert same @ shorter < 0.99999


def test_prompts_work_by_role(make: Make) -> None:
    plain, prompted = make(), make(query_prompt="represent the question: ")
    text = ["How tall is the tower?"]
    assert plain.encode(text, "query")[0] @ prompted.encode(text, "query")[0] < 0.999
    assert plain.encode(text, "document")[0] @ prompted.encode(text, "document")[0] > 0.9999
    assert prompted.encode(text, "query")[0] @ plain.encode(["represent the question: " + text[0]], "query")[0] > 0.9999


def test_fewer_dimensions_are_the_first_ones_renormalised(make: Make) -> None:
    whole, part = make(), make(dimensions=32)
    assert part.identity.dimensions == 32
    expected = whole.encode(TEXTS[:1], "document")[0, :32]
    np.testing.assert_allclose(part.encode(TEXTS[:1], "document")[0], expected / np.linalg.norm(expected), atol=1e-5)
    with pytest.raises(Invalid, match="dimensions"):
        make(dimensions=whole.identity.dimensions + 1)


def test_whatever_moves_vectors_changes_the_fingerprint(make: Make) -> None:
    settings: list[dict[str, Any]] = [{}, {"query_prompt": "q: "}, {"document_prompt": "q: "}, {"dimensions": 32}]
    prints = [make(**each).identity.fingerprint for each in settings]
    assert len(set(prints)) == 4
    assert make().identity.fingerprint == prints[0]
