from collections.abc import Mapping

import pytest

from service.domain import DocumentId, Fusion
from service.fusion import Evidence, Fused, ranked
from service.fusion import fuse as fuse_queries

A, B, C = (DocumentId(name) for name in "abc")
CONVEX = Fusion(method="convex", alpha=0.5)
Scores = Mapping[DocumentId, float]


def said(
    dense: Scores | None, lexical: Scores | None, *, found: int | None = None, weight: float = 1.0
) -> Evidence[DocumentId]:
    """What the legs say of one query; of `dense` the first `found` were found, the others looked up."""
    return Evidence(
        dense=None if dense is None else ranked(dense, found),
        lexical=None if lexical is None else ranked(lexical),
        weight=weight,
    )


def fuse(
    dense: Scores | None, lexical: Scores | None, how: Fusion, found_by_dense: int | None = None
) -> list[Fused[DocumentId]]:
    return fuse_queries([said(dense, lexical, found=found_by_dense)], how)


def test_convex_weighs_scores_scaled_from_their_lower_bound_to_the_best() -> None:
    ranking = fuse({A: 0.8, B: 0.2}, {B: 12.0, C: 3.0}, Fusion(method="convex", alpha=0.6))
    scores = {fused.item: fused.score for fused in ranking}
    assert scores == pytest.approx({A: 0.6 * 1.0, B: 0.6 * 0.2 / 0.8 + 0.4 * 1.0, C: 0.4 * 3.0 / 12.0})


def test_rrf_is_the_formula_of_cormack() -> None:
    ranking = fuse({A: 0.9, B: 0.8}, {B: 7.0, C: 5.0}, Fusion(method="rrf", k=60))
    scores = {fused.item: fused.score for fused in ranking}
    assert scores == pytest.approx({A: 1 / 61, B: 1 / 62 + 1 / 61, C: 1 / 62})


def test_one_leg_alone_keeps_its_order_and_full_weight() -> None:
    ranking = fuse(None, {A: 9.0, B: 3.0}, CONVEX)
    assert [(fused.item, fused.score) for fused in ranking] == [(A, 1.0), (B, pytest.approx(1 / 3))]
    assert ranking[0].explanation.dense is None


def test_a_leg_that_ran_and_found_nothing_does_not_change_the_order_of_the_other() -> None:
    assert [fused.item for fused in fuse({B: 0.9, A: 0.5}, {}, CONVEX)] == [B, A]


def test_all_scores_equal_ties_are_broken_by_id() -> None:
    ranking = fuse({C: 0.5, A: 0.5, B: 0.5}, {}, CONVEX)
    assert [fused.item for fused in ranking] == [A, B, C]
    assert len({fused.score for fused in ranking}) == 1


def test_a_leg_that_is_not_above_its_lower_bound_says_nothing() -> None:
    ranking = fuse({A: -0.2}, {B: 0.0}, CONVEX)
    assert [fused.score for fused in ranking] == [0.0, 0.0]


def test_scores_that_were_looked_up_count_but_have_no_rank() -> None:
    ranking = fuse({A: 0.9, B: 0.3}, {B: 5.0}, CONVEX, found_by_dense=1)
    explained = {fused.item: fused.explanation.dense for fused in ranking}
    found, looked_up = explained[A], explained[B]
    assert found is not None
    assert found.rank == 1
    assert looked_up is not None
    assert looked_up.rank is None
    assert looked_up.normalised == pytest.approx(0.3 / 0.9)
    rrf = {
        fused.item: fused.score for fused in fuse({A: 0.9, B: 0.3}, {B: 5.0}, Fusion(method="rrf"), found_by_dense=1)
    }
    assert rrf[B] == pytest.approx(1 / 61), "a looked-up score is no rank of the leg"


def test_the_explanation_adds_up() -> None:
    for fused in fuse({A: 0.9, B: 0.4}, {B: 2.0, C: 1.0}, Fusion(method="convex", alpha=0.3)):
        dense, lexical = fused.explanation.dense, fused.explanation.lexical
        total = 0.3 * (dense.normalised if dense else 0.0) + 0.7 * (lexical.normalised if lexical else 0.0)
        assert fused.score == pytest.approx(total)
        assert fused.explanation.fusion == fused.score


def test_what_lies_at_the_lower_bound_is_still_told_apart_by_its_cosine() -> None:
    ranking = fuse({B: -0.1, C: -0.2, A: -0.3}, None, CONVEX)
    assert [(fused.item, fused.score) for fused in ranking] == [(B, 0.0), (C, 0.0), (A, 0.0)]


# ---------------------------------------------------------------- several queries


def test_several_queries_are_summed_by_their_weights() -> None:
    asked = [said({A: 0.8, B: 0.4}, {B: 10.0}, weight=3.0), said({B: 0.5, C: 0.5}, None, weight=1.0)]
    ranking = fuse_queries(asked, CONVEX)
    first = {A: 0.5, B: 0.5 * 0.5 + 0.5}
    second = {B: 1.0, C: 1.0}  # its lexical leg did not run: the dense one decides alone
    expected = {item: 0.75 * first.get(item, 0.0) + 0.25 * second.get(item, 0.0) for item in (A, B, C)}
    assert {fused.item: fused.score for fused in ranking} == pytest.approx(expected)


def test_rrf_of_several_queries_runs_over_the_lists_of_all() -> None:
    asked = [said({A: 0.9, B: 0.8}, {B: 7.0}), said({B: 0.7}, {C: 3.0})]
    scores = {fused.item: 2 * fused.score for fused in fuse_queries(asked, Fusion(method="rrf", k=60))}
    assert scores == pytest.approx({A: 1 / 61, B: 1 / 62 + 1 / 61 + 1 / 61, C: 1 / 61})


def test_a_query_that_is_asked_twice_counts_with_both_weights() -> None:
    one, other = ({A: 0.9, B: 0.3}, {B: 5.0}), ({C: 0.6}, {C: 2.0})
    twice = fuse_queries([said(*one), said(*other), said(*one)], CONVEX)
    once = fuse_queries([said(*one, weight=2.0), said(*other)], CONVEX)
    assert [fused.item for fused in twice] == [fused.item for fused in once]
    assert [fused.score for fused in twice] == pytest.approx([fused.score for fused in once])


def test_the_explanation_of_several_queries_adds_up_and_shows_the_one_that_counts_most() -> None:
    asked = [said({A: 0.9}, {}), said({A: 0.3, B: 0.6}, {A: 2.0}, weight=4.0)]
    (best,) = (fused for fused in fuse_queries(asked, CONVEX) if fused.item == A)
    first, second = best.explanation.queries
    assert first.gain == pytest.approx(0.2 * 0.5)
    assert second.gain == pytest.approx(0.8 * (0.5 * 0.5 + 0.5))
    assert best.score == best.explanation.fusion == pytest.approx(first.gain + second.gain)
    assert (best.explanation.dense, best.explanation.lexical) == (second.dense, second.lexical)
    (only,) = (fused for fused in fuse_queries(asked, CONVEX) if fused.item == B)
    assert only.explanation.queries[0].dense is None
    assert only.explanation.queries[0].gain == 0.0


def test_one_query_alone_is_not_explained_twice() -> None:
    assert all(fused.explanation.queries == () for fused in fuse({A: 0.9}, {B: 1.0}, CONVEX))
