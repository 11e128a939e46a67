"""Hits that are chunks, and several queries over both legs: the query's story over fakes."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.core import filters
from service.core.errors import SpaceRefused
from service.core.examples import Example, Like
from service.core.ids import DocumentId
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate, Group, Mode, Query, RerankRequest, SearchRequest
from service.search.candidates import MAX_PARALLEL_STATEMENTS
from tests.fakes import StoredChunk
from tests.unit.search.test_pipeline import NAME, TEXTS, Shouting, Zoo, zoo
from tests.world import NOW, doc

__all__ = ["zoo"]

ANIMAL = "A cat is a small animal that purrs and hunts mice."


async def put_chunks(zoo: Zoo, name: str, *texts: str, wheels: bool = False) -> None:
    """A document of several chunks, each with the vector of its own text."""
    document = doc(name, "".join(texts), wheels=wheels)
    await zoo.documents.put(zoo.animals.id, [document], NOW)
    await zoo.encode_all()
    version = await zoo.version()
    space = zoo.store.space(version)
    revision = space.pop((document.id, 0)).content_revision
    encoder, at = await zoo.verifier.ensure(version), 0
    for number, (text, row) in enumerate(zip(texts, encoder.encode(list(texts), "document"), strict=True)):
        space[document.id, number] = StoredChunk(revision, at, at + len(text), row.astype(np.float16))
        at += len(text)


@pytest.fixture
async def book(zoo: Zoo) -> Zoo:
    """Among short documents one of four chunks, two of which are about cats."""
    await put_chunks(
        zoo,
        "book",
        "The purring cat hunts small mice. ",
        "Parliament votes on the budget. ",
        "A small cat purrs beside its mice. ",
        "Rain falls in the mountains.",
    )
    return zoo


def chunks(answer: Any) -> list[tuple[str, int]]:
    return [(hit.id, hit.chunk) for hit in answer.hits]


async def test_of_a_document_only_its_best_chunk_is_a_hit_unless_chunks_are(book: Zoo) -> None:
    by_document = await book.search().run(NAME, SearchRequest(text="cat purrs mice", k=5))
    assert [hit.id for hit in by_document.hits].count(DocumentId("book")) == 1
    by_chunk = await book.search().run(NAME, SearchRequest(text="cat purrs mice", k=5, group_by="chunk"))
    assert len(by_chunk.hits) == len(set(chunks(by_chunk))) == 5
    assert {("book", 0), ("book", 2)} <= set(chunks(by_chunk)[:3])
    assert not by_chunk.dense.underfilled
    hit = next(hit for hit in by_chunk.hits if (hit.id, hit.chunk) == ("book", 2))
    (document,) = (await book.documents.get(book.animals.id, [hit.id])).values()
    assert document.text[hit.start : hit.end] == hit.text == "A small cat purrs beside its mice. "


async def test_each_chunk_counts_the_words_that_it_holds(book: Zoo) -> None:
    answer = await book.search().run(NAME, SearchRequest(text="cat purrs mice", k=20, group_by="chunk"))
    of_book = {hit.chunk: hit.explanation for hit in answer.hits if hit.id == "book"}
    assert len(of_book) == 4, "also the chunks that are about something else"
    lexical = {chunk: one.lexical and one.lexical.score for chunk, one in of_book.items()}
    assert lexical == {0: pytest.approx(2.0), 1: None, 2: 3.0, 3: None}, "of the score 3 of the document"
    assert len({one.dense.score for one in of_book.values() if one.dense is not None}) == 4
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)


async def test_chunks_that_the_index_did_not_give_are_looked_up_where_the_words_are(book: Zoo) -> None:
    async def nearest_alone(query: VectorQuery) -> tuple[Candidate, ...]:
        return (await book.vectors.nearest(query))[:1]

    request = SearchRequest(text="cat purrs mice", k=1, candidates=1, group_by="chunk", rerank=RerankRequest(depth=6))
    search = book.search(vectors=book.mocked_vectors(nearest_alone), reranker=Shouting("mice"))
    answer = await search.run(NAME, replace(request, k=4))
    found = {(hit.id, hit.chunk): hit.explanation.dense for hit in answer.hits}
    assert {("book", 0), ("book", 2)} <= found.keys()
    assert [one.rank for one in found.values() if one is not None].count(1) == 1
    assert all(one is not None for one in found.values())


async def test_each_chunk_is_read_by_the_reranker(book: Zoo) -> None:
    reranker = Shouting("Parliament")
    request = SearchRequest(text="cat purrs mice", k=3, group_by="chunk", rerank=RerankRequest(depth=10, weight=1.0))
    answer = await book.search(reranker=reranker).run(NAME, request)
    assert chunks(answer)[0] == ("book", 1)
    assert {"The purring cat hunts small mice. ", "Parliament votes on the budget. "} <= set(reranker.seen)


async def test_chunks_keep_to_filters_and_k_counts_chunks(book: Zoo) -> None:
    await put_chunks(book, "engines", "Engines burn oil. ", "Wheels turn fast. ", "A cat sleeps in a car.", wheels=True)
    where = filters.parse({"wheels": True})
    for cap in (100, 1):
        request = SearchRequest(text="cat car wheels", k=3, group_by="chunk", where=where)
        answer = await book.search(passing_cap=cap).run(NAME, request)
        assert len(answer.hits) == 3
        assert {hit.id for hit in answer.hits} <= {"engines", "car", "bus"}
        assert not answer.dense.underfilled
        everything = await book.search(passing_cap=cap).run(NAME, replace(request, k=50))
        assert sorted(chunks(everything)) == [("bus", 0), ("car", 0), *(("engines", at) for at in range(3))]


async def test_what_is_not_encoded_yet_is_one_hit_without_chunks(book: Zoo) -> None:
    await book.write({"cat": "The lynx prowls by night."}, encode=False)
    answer = await book.search().run(NAME, SearchRequest(text="lynx prowls night", k=20, group_by="chunk"))
    (cat,) = [hit for hit in answer.hits if hit.id == "cat"]
    assert (cat.chunk, cat.text) == (0, "The lynx prowls by night.")
    assert cat.explanation.dense is None


async def test_without_the_dense_leg_words_tell_chunks_apart_and_the_answer_says_that_it_is_missing(book: Zoo) -> None:
    refusing = book.mocked_verifier(side_effect=SpaceRefused("weights differ"))
    answer = await book.search(verifier=refusing).run(NAME, SearchRequest(text="cat purrs", group_by="chunk"))
    assert [chunk for chunk in chunks(answer) if chunk[0] == "book"] == [("book", 2), ("book", 0)]
    assert [one.stage for one in answer.degraded] == ["embed"]


async def test_a_long_example_with_many_chunks_leaves_room_for_others(zoo: Zoo) -> None:
    await put_chunks(zoo, "cats", *(f"{ANIMAL} Number {number}. " for number in range(40)))
    like = Like(positive=(Example(id=DocumentId("cats")),))
    for group, k in (("document", 5), ("chunk", 5)):
        request = SearchRequest(like=like, mode="dense", k=k, candidates=1, group_by=group)  # type: ignore[arg-type]
        answer = await zoo.search().run(NAME, request)
        assert {hit.id for hit in answer.hits} == set(TEXTS)
        assert answer.hits[0].id == "cat"
        assert not answer.dense.underfilled


async def test_a_document_is_one_example_in_the_direction_of_all_its_chunks(book: Zoo) -> None:
    space = book.store.space(await book.version())
    mean = np.mean([row.embedding.astype(np.float32) for (name, _), row in space.items() if name == "book"], axis=0)
    by_id = SearchRequest(like=Like(positive=(Example(id=DocumentId("book")),)), mode="dense", k=5)
    by_vector = replace(by_id, like=None, vector=tuple(mean.tolist()), embedder_version=(await book.version()).number)
    found = await book.search().run(NAME, by_id)
    expected = [hit for hit in (await book.search().run(NAME, replace(by_vector, k=6))).hits if hit.id != "book"]
    assert [hit.id for hit in found.hits] == [hit.id for hit in expected]


CATS, CARS = Query(text="small cat purrs"), Query(text="machine with wheels and engine")


@pytest.mark.parametrize("group", ["document", "chunk"])
@pytest.mark.parametrize("mode", ["hybrid", "dense"])
async def test_every_query_knows_the_cosine_of_what_others_found(book: Zoo, mode: Mode, group: Group) -> None:
    exact: dict[Query, dict[tuple[str, int], float]] = {}
    for query in (CATS, CARS):
        alone = SearchRequest(text=query.text, mode="dense", k=50, group_by="chunk")
        hits = (await book.search().run(NAME, alone)).hits
        exact[query] = {(hit.id, hit.chunk): hit.explanation.dense.score for hit in hits if hit.explanation.dense}
    request = SearchRequest(queries=(CATS, CARS), mode=mode, k=2, candidates=2, group_by=group)
    answer = await book.search().run(NAME, request)
    ranks = [one.dense and one.dense.rank for hit in answer.hits for one in hit.explanation.queries]
    assert None in ranks, "some were looked up"
    for hit in answer.hits:
        for query, explained in zip((CATS, CARS), hit.explanation.queries, strict=True):
            assert explained.dense is not None
            of_document = max(score for (id_, _), score in exact[query].items() if id_ == hit.id)
            expected = exact[query][hit.id, hit.chunk] if group == "chunk" else of_document
            assert explained.dense.score == pytest.approx(expected, abs=1e-3)


async def test_queries_do_not_depend_on_their_order(book: Zoo) -> None:
    asked = (replace(CATS, weight=2.0), CARS, Query(text="animal that barks"))
    answers = [await book.search().run(NAME, SearchRequest(queries=one, k=6)) for one in (asked, asked[::-1])]
    there, back = ([(hit.id, hit.score) for hit in answer.hits] for answer in answers)
    assert there == back


async def test_a_leg_that_fails_fails_for_all_queries_and_is_named_once(book: Zoo) -> None:
    answer = await book.search(lexicon=book.lost_lexicon()).run(NAME, SearchRequest(queries=(CATS, CARS)))
    assert [one.stage for one in answer.degraded] == ["lexical"]
    assert all(one.lexical is None for hit in answer.hits for one in hit.explanation.queries)


async def test_what_changed_between_queries_is_told_of_one_content_only(book: Zoo) -> None:
    """The second query sees a newer document than the first."""
    searches = itertools.count(1)

    async def nearest(query: VectorQuery) -> tuple[Candidate, ...]:
        if next(searches) == 2:
            await book.write({"cat": "A cat is a machine with wheels now."})
        return await book.vectors.nearest(query)

    search = book.search(vectors=book.mocked_vectors(nearest))
    answer = await search.run(NAME, SearchRequest(queries=(CATS, CARS), k=6))
    (cat,) = [hit for hit in answer.hits if hit.id == "cat"]
    assert cat.text == "A cat is a machine with wheels now."
    first, second = cat.explanation.queries
    assert first.dense is None, "its score speaks of another text"
    assert second.dense is not None


def test_the_wishes_of_each_query_are_its_own() -> None:
    """An odd quote in one does not swallow the next; what any of them excludes is excluded."""
    texts = ('an odd "quote', 'two" +must -not', '+must "a b"')
    asked = (*(Query(text=text) for text in texts), Query(vector=(1.0,)))
    words = SearchRequest(queries=asked).parsed_query
    assert (words.quoted, words.required, words.excluded) == (("a b",), ("must",), ("not",))
    assert SearchRequest(queries=asked, syntax="plain").parsed_query.has_constraints is False
    assert SearchRequest(vector=(1.0,)).parsed_query.text == ""


async def test_statements_of_one_search_are_bounded(book: Zoo) -> None:
    running, most = 0, 0

    async def nearest(query: VectorQuery) -> tuple[Candidate, ...]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return await book.vectors.nearest(query)

    asked = tuple(Query(text=f"cat number {number}") for number in range(16))
    await book.search(vectors=book.mocked_vectors(nearest)).run(NAME, SearchRequest(queries=asked))
    assert most == MAX_PARALLEL_STATEMENTS
