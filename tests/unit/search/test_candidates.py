"""What the legs brought, completed: each has the exact scores of what only the other found."""

from typing import Any
from unittest.mock import AsyncMock

import pytest

from service.core.collections import FusionSettings
from service.core.errors import LexiconUnavailable
from service.core.ids import DocumentId
from service.core.search import Candidate
from service.search.candidates import CandidateSet, QueryCandidates, keep_newest_content
from service.search.dense_certainty import DenseCertainty
from service.search.fusion import fuse
from service.search.retrievers import LegResult
from tests.edge import Edge, api_fixture
from tests.fakes import FakeLexicon

DOCUMENTS = [{"id": f"d{at}", "text": " ".join(["whale"] * at + [f"word{at}", "sea"])} for at in range(1, 9)]


api = api_fixture(*DOCUMENTS)


async def test_what_only_one_leg_found_has_its_score_of_the_other_and_no_rank(api: Edge) -> None:
    everything = await api.search("whale word3 sea", k=8, explain=True)
    few = await api.search("whale word3 sea", k=1, candidates=2, explain=True)
    wide = {hit["id"]: hit["explain"] for hit in everything["hits"]}
    for hit in few["hits"]:
        for leg in ("dense", "lexical"):
            assert hit["explain"][leg]["score"] == wide[hit["id"]][leg]["score"]
    hits = (await api.search("whale word3 sea", k=2, candidates=2, explain=True))["hits"]
    ranks = [hit["explain"][leg]["rank"] for hit in hits for leg in ("dense", "lexical")]
    assert all(rank is None or rank <= 2 for rank in ranks)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
async def test_few_candidates_fuse_to_the_scores_that_many_do(api: Edge, alpha: float) -> None:
    fusion = {"method": "convex", "alpha": alpha}
    scores = {hit["id"]: hit["score"] for hit in (await api.search("sea word5", k=8, fusion=fusion))["hits"]}
    for hit in (await api.search("sea word5", k=3, candidates=3, fusion=fusion))["hits"]:
        assert hit["score"] == pytest.approx(scores[hit["id"]])


async def test_a_lexicon_that_is_lost_between_search_and_look_up_takes_no_answer_away(
    api: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = FakeLexicon.search

    async def failing(self: FakeLexicon, *query: Any) -> tuple[Candidate, ...]:
        if query[-1] is not None:  # the ids of a look-up
            raise LexiconUnavailable("being built")
        return await search(self, *query)

    monkeypatch.setattr(FakeLexicon, "search", failing)
    answer = await api.search("word4", k=8, candidates=2, explain=True)
    assert (bool(answer["hits"]), answer["degraded"]) == (True, [])


async def test_the_dense_leg_weighs_as_much_as_it_is_certain(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    sure = await api.search("whale word2", explain=True)
    assert {hit["explain"]["certainty"] for hit in sure["hits"]} == {1.0}, "of a handful of chunks nothing is known"
    monkeypatch.setattr(DenseCertainty, "certainty", AsyncMock(return_value=0.0))
    unsure = await api.search("whale word2", explain=True)
    assert {hit["explain"]["dense"]["share"] for hit in unsure["hits"]} == {0.0}
    assert unsure["hits"][0]["explain"]["lexical"]["share"] == 1.0
    dense = await api.search("whale word2", explain=True, mode="dense")
    assert dense["hits"][0]["score"] == 1.0, "alone it decides, however little it is certain"


@pytest.mark.parametrize(
    ("best", "most", "certain"),
    [(5.0, 10.0, 1.0), (0.5, 10.0, 0.0), (1.75, 10.0, 0.5), (0.5, None, 1.0), (0.5, 0.0, 1.0)],
)
def test_a_lexical_leg_that_found_little_of_the_query_is_not_certain(
    best: float, most: float | None, certain: float
) -> None:
    """Such as names and numbers of a question in another language."""
    found = Candidate(document_id=DocumentId("d"), content_revision=1, score=best)
    leg = LegResult(candidates={(found.document_id, None): found}, exhausted=True)
    query = QueryCandidates(vector=None, dense=None, lexical=leg, max_score=most)
    assert query.lexical_certainty == pytest.approx(certain)


async def test_what_is_left_of_a_document_that_changed_is_what_its_new_words_say() -> None:
    """The space has its former content, the look-up by words brought the new one: a find all the same."""
    name = DocumentId("d")
    former = Candidate(document_id=name, content_revision=1, score=0.9, chunk=0)
    other = Candidate(document_id=DocumentId("e"), content_revision=1, score=3.0)
    changed = Candidate(document_id=name, content_revision=2, score=2.0)
    found = QueryCandidates(
        vector=None,
        dense=LegResult(candidates={(name, None): former}, exhausted=True),
        lexical=LegResult(candidates={(other.document_id, None): other}, exhausted=True),
        lexical_lookups={(name, None): changed},
    )
    left = keep_newest_content(CandidateSet(queries=(found,)))
    ranking = fuse(left.leg_scores([1.0]), FusionSettings())
    left_over = {fused.item: left.candidate(fused.item) for fused in ranking[:]}
    assert left_over == {(name, None): changed, (other.document_id, None): other}
