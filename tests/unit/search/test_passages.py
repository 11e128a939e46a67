"""Which passage of a document is shown: over fakes, and of documents that are not encoded yet."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.collections import FusionSettings
from service.core.ids import DocumentId
from service.core.search import Query, RerankRequest, SearchRequest
from service.search import passages
from service.search.passages import UNEMBEDDED_LENGTH, windows
from tests.unit.search.test_pipeline import NAME, Shouting, Zoo, zoo
from tests.unit.search.test_pipeline_by_chunk import put_chunks

__all__ = ["zoo"]

SECTIONS = (
    "The pump of the unit moves water through the pipes of the unit. " * 10,
    "Fault 7325 means that a filter is blocked. ",
    "The pump of the unit needs oil and water, and the unit needs care. " * 10,
    "Fault 7352 means that a fuse is gone. ",
)


@pytest.fixture
async def manual(zoo: Zoo) -> Zoo:
    await put_chunks(zoo, "manual", *SECTIONS)
    return zoo


async def shown(zoo: Zoo, text: str = "pump of the unit 7325 filter blocked", **request: Any) -> Any:
    answer = await zoo.search().run(NAME, SearchRequest(text=text, k=6, **request))
    return next(hit for hit in answer.hits if hit.id == "manual")


@pytest.mark.parametrize(
    ("request_", "chunk"),
    [
        ({}, 1),
        ({"mode": "lexical"}, 1),
        ({"mode": "lexical", "text": "needs oil care"}, 2),
        ({"group_by": "chunk"}, 1),
        ({"group_by": "chunk", "mode": "lexical"}, 1),
        ({"group_by": "chunk", "fusion": FusionSettings(method="rrf")}, 1),
        ({"fusion": FusionSettings(alpha=0.0)}, 1),
        ({"diversity": 0.3}, 1),
        ({"rerank": RerankRequest(depth=5)}, 1),
        ({"text": "", "queries": (Query(text="cat purrs", weight=0.1), Query(text="7325 filter blocked"))}, 1),
    ],
)
async def test_the_passage_shown_is_the_best_by_both_legs(manual: Zoo, request_: dict[str, Any], chunk: int) -> None:
    search = manual.search(reranker=Shouting("blocked"))
    text = request_.pop("text", "7325 filter blocked")
    answer = await search.run(NAME, SearchRequest(text=text, k=6, **request_))
    hit = next(hit for hit in answer.hits if hit.id == "manual")
    assert (hit.chunk, hit.text) == (chunk, SECTIONS[chunk])
    assert hit.start == len("".join(SECTIONS[:chunk]))
    assert not answer.degraded


async def test_the_reranker_reads_and_the_vector_is_that_of_the_passage_shown(manual: Zoo) -> None:
    reranker = Shouting("blocked")
    request = SearchRequest(text="7325 blocked", mode="lexical", k=1, rerank=RerankRequest(depth=1))
    answer = await manual.search(reranker=reranker).run(NAME, replace(request, include=frozenset({"vector"})))
    assert reranker.seen == [f"{answer.hits[0].title}\n{SECTIONS[1]}".lstrip()]
    space = manual.store.space(await manual.version())
    assert answer.hits[0].vector == pytest.approx(tuple(space[DocumentId("manual"), 1].embedding), abs=1e-2)


async def test_the_choice_moves_no_document_and_dense_hits_keep_the_nearest_chunk(manual: Zoo) -> None:
    request = SearchRequest(text="unit 7325 animal", k=6)
    chosen = await manual.search().run(NAME, request)
    search = manual.search()
    search._passages.choose = lambda context, candidates, hits: _unchanged(hits)  # type: ignore[method-assign]
    before = await search.run(NAME, request)
    assert [(hit.id, hit.score, hit.explanation) for hit in chosen.hits] == [
        (hit.id, hit.score, hit.explanation) for hit in before.hits
    ]
    dense = await manual.search().run(NAME, replace(request, mode="dense"))
    assert "passages" not in dense.timings.seconds


async def _unchanged(hits: Any) -> Any:
    return hits


@pytest.mark.parametrize("group", ["document", "chunk"])
@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
async def test_a_document_that_is_not_encoded_yet_shows_the_sentences_with_the_words(
    zoo: Zoo, group: Any, mode: Any
) -> None:
    filler = "The staff cleans the unit with a dry cloth every week. " * 30
    text = f"{filler}Fault 7325 means a blocked filter. {filler}"
    await zoo.write({"manual": text}, encode=False)
    hit = await shown(zoo, "7325 blocked", group_by=group, mode=mode)
    assert "Fault 7325 means a blocked filter." in hit.text
    assert hit.text == text[hit.start : hit.end]
    assert len(hit.text) <= UNEMBEDDED_LENGTH
    await zoo.encode_all()
    await zoo.write({"manual": f"New. {text}"}, encode=False)
    assert "Fault 7325 means a blocked filter." in (await shown(zoo, "7325 blocked", group_by=group, mode=mode)).text


async def test_texts_that_are_not_read_are_reported(manual: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "TEXT_LIMIT", 10)
    await put_chunks(manual, "other", *SECTIONS)
    answer = await manual.search().run(NAME, SearchRequest(text="7325 filter blocked", k=6))
    assert [(one.stage, one.code) for one in answer.degraded] == [("passages", "incomplete")]
    assert "1 of 2 documents" in answer.degraded[0].reason
    assert answer.complete, "the ranking of documents does not depend on it"


@given(st.text(st.sampled_from("ab .\n。!"), max_size=3 * UNEMBEDDED_LENGTH))
def testwindows_cover_the_text_in_order_and_are_never_too_long(text: str) -> None:
    found = windows(DocumentId("a"), 1, text)
    pieces = [text[one.start : one.end] for one in found]
    assert "".join(pieces) == text
    assert all(len(piece) <= UNEMBEDDED_LENGTH for piece in pieces)
    assert all(pieces) or not text
