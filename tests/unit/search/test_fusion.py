from collections.abc import Iterable, Mapping, Sequence

import pytest

from service.core.collections import FusionSettings
from service.core.ids import DocumentId
from service.search import fusion
from service.search.fusion import FusedItem, LegScores, rank_scores

A, B, C = (DocumentId(name) for name in "abc")
CONVEX = FusionSettings(method="convex", alpha=0.5)
Scores = Mapping[DocumentId, float]


def said(
    dense: Scores | None, lexical: Scores | None, *, found: int | None = None, weight: float = 1.0
) -> LegScores[DocumentId]:
    """What the legs say of one query; of `dense` the first `found` were found, the others looked up."""
    ranked = None if dense is None else rank_scores(dense, found)
    return LegScores(dense=ranked, lexical=None if lexical is None else rank_scores(lexical), weight=weight)


def fuse_queries(queries: Sequence[LegScores[DocumentId]], how: FusionSettings) -> list[FusedItem[DocumentId]]:
    return fusion.fuse(queries, how)[:]


def fuse(
    dense: Scores | None, lexical: Scores | None, how: FusionSettings, found_by_dense: int | None = None
) -> list[FusedItem[DocumentId]]:
    return fuse_queries([said(dense, lexical, found=found_by_dense)], how)


def scores(ranking: Iterable[FusedItem[DocumentId]]) -> dict[DocumentId, float]:
    return {fused.item: fused.score for fused in ranking}


def test_convex_weighs_scores_scaled_from_their_lower_bound_to_the_best() -> None:
    ranking = fuse({A: 0.8, B: 0.2}, {B: 12.0, C: 3.0}, FusionSettings(method="convex", alpha=0.6))
    assert scores(ranking) == pytest.approx({A: 0.6 * 1.0, B: 0.6 * 0.2 / 0.8 + 0.4 * 1.0, C: 0.4 * 3.0 / 12.0})


def test_rrf_is_the_formula_of_cormack() -> None:
    ranking = fuse({A: 0.9, B: 0.8}, {B: 7.0, C: 5.0}, FusionSettings(method="rrf", k=60))
    assert scores(ranking) == pytest.approx({A: 1 / 61, B: 1 / 62 + 1 / 61, C: 1 / 62})


def test_all_scores_equal_ties_are_broken_by_id() -> None:
    ranking = fuse({C: 0.5, A: 0.5, B: 0.5}, {}, CONVEX)
    assert [fused.item for fused in ranking] == [A, B, C]
    assert len({fused.score for fused in ranking}) == 1


def test_a_leg_with_nothing_to_say_does_not_diminish_the_scores_of_the_other() -> None:
    """Such as the words of a query that no document has, or of a space in which all is unlike."""
    for dense, lexical in (({A: 0.9, B: 0.3}, None), ({A: 0.9, B: 0.3}, {}), ({A: 0.9, B: 0.3}, {A: 0.0})):
        ranking = fuse(dense, lexical, FusionSettings(alpha=0.3))
        assert [(fused.item, fused.score) for fused in ranking] == [(A, 1.0), (B, pytest.approx(1 / 3))]
    for silent in (None, {}, {A: -0.5, B: 0.0}):
        ranking = fuse(silent, {B: 8.0, C: 2.0}, FusionSettings(alpha=0.3))
        assert silent or ranking[0].explanation.dense is None
        assert {fused.item: fused.score for fused in ranking if fused.score} == {B: 1.0, C: 0.25}


def test_equal_ranks_of_one_leg_each_are_told_apart_by_what_was_looked_up() -> None:
    dense = rank_scores({B: 0.9, A: 0.1}, 1)
    lexical = rank_scores({A: 9.0, B: 2.0}, 1)
    ranking = fuse_queries([LegScores(dense=dense, lexical=lexical)], FusionSettings(method="rrf"))
    assert [fused.item for fused in ranking] == [B, A]
    assert len({fused.score for fused in ranking}) == 1
    words = LegScores(lexical=rank_scores({B: 9.0, A: 2.0}, 0))
    assert [fused.item for fused in fuse_queries([words], FusionSettings(method="rrf"))] == [B, A]


def test_how_many_candidates_a_leg_brought_moves_no_score() -> None:
    """Cut at different depths, what both know has the same score: nothing is scaled from the last candidate."""
    dense, lexical = {A: 0.9, B: 0.6, C: 0.3}, {C: 8.0, B: 6.0, A: 1.0}
    cut = fuse({A: 0.9, B: 0.6}, {C: 8.0, B: 6.0}, CONVEX)
    assert scores(cut)[B] == scores(fuse(dense, lexical, CONVEX))[B]


def test_a_dense_leg_that_is_not_certain_weighs_less_and_the_other_more() -> None:
    evidence = LegScores(dense=rank_scores({A: 0.8}), lexical=rank_scores({B: 5.0}), certainty=0.5)
    found = scores(fuse_queries([evidence], FusionSettings(alpha=0.6)))
    assert found == pytest.approx({A: 0.3 / 0.7, B: 0.4 / 0.7}), "odds of 0.6 to 0.4, halved"
    of_dense = fuse_queries([evidence], FusionSettings(alpha=1.0))
    assert scores(of_dense) == {A: 1.0, B: 0.0}, "who wants the dense leg alone gets it"


@pytest.mark.parametrize(
    ("dense", "lexical", "shares"), [(1, 0.5, (2, 1)), (0.5, 0.5, (1, 1)), (0, 0, (0, 1)), (1, 0, (1, 0))]
)
def test_each_leg_weighs_as_much_as_it_is_certain(dense: float, lexical: float, shares: tuple[int, int]) -> None:
    evidence = LegScores(
        dense=rank_scores({A: 0.8}), lexical=rank_scores({B: 5.0}), certainty=dense, lexical_certainty=lexical
    )
    found = scores(fuse_queries([evidence], CONVEX))
    assert (found[A], found[B]) == pytest.approx(tuple(share / sum(shares) for share in shares), abs=2e-3)


def test_a_space_in_a_narrow_cone_is_fused_as_the_same_space_without_it() -> None:
    """Cosines count from where texts lie that have nothing in common."""
    dense, lexical = {A: 0.8, B: 0.5, C: -0.1}, rank_scores({C: 8.0, B: 6.0})
    plain = fuse_queries([LegScores(dense=rank_scores(dense), lexical=lexical)], CONVEX)
    cone = rank_scores({item: 0.75 + cosine / 4 for item, cosine in dense.items()}, floor=0.75)
    found = fuse_queries([LegScores(dense=cone, lexical=lexical)], CONVEX)
    assert scores(found) == pytest.approx(scores(plain))
    assert {fused.explanation.floor for fused in found} == {0.75}


def test_scores_that_were_looked_up_count_but_have_no_rank() -> None:
    ranking = fuse({A: 0.9, B: 0.3}, {B: 5.0}, CONVEX, found_by_dense=1)
    explained = {fused.item: fused.explanation.dense for fused in ranking}
    assert {item: leg and (leg.rank, leg.normalised) for item, leg in explained.items()} == {
        A: (1, 1.0),
        B: (None, pytest.approx(0.3 / 0.9)),
    }
    rrf = fuse({A: 0.9, B: 0.3}, {B: 5.0}, FusionSettings(method="rrf"), found_by_dense=1)
    assert scores(rrf)[B] == pytest.approx(1 / 61), "a looked-up score is no rank of the leg"


def test_what_lies_at_the_lower_bound_is_still_told_apart_by_its_cosine() -> None:
    for lexical in (None, {A: 0.0}):
        ranking = fuse({B: -0.1, C: -0.2, A: -0.3}, lexical, CONVEX)
        assert [(fused.item, fused.score) for fused in ranking] == [(B, 0.0), (C, 0.0), (A, 0.0)]


def test_the_explanation_of_several_queries_adds_up_and_shows_the_one_that_counts_most() -> None:
    asked = [said({A: 0.9}, {}), said({A: 0.3, B: 0.6}, {A: 2.0}, weight=4.0)]
    (best,) = (fused for fused in fuse_queries(asked, CONVEX) if fused.item == A)
    first, second = best.explanation.queries
    assert first.gain == pytest.approx(0.2)  # its lexical leg found nothing: the dense one decides alone
    assert second.gain == pytest.approx(0.8 * (0.5 * 0.5 + 0.5))
    assert best.score == best.explanation.fusion == pytest.approx(first.gain + second.gain)
    assert (best.explanation.dense, best.explanation.lexical) == (second.dense, second.lexical)
    (only,) = (fused for fused in fuse_queries(asked, CONVEX) if fused.item == B)
    assert (only.explanation.queries[0].dense, only.explanation.queries[0].gain) == (None, 0.0)


def test_one_query_alone_is_not_explained_twice() -> None:
    assert all(fused.explanation.queries == () for fused in fuse({A: 0.9}, {B: 1.0}, CONVEX))
