import pytest

from service.domain import DocumentId, Fusion
from service.fusion import fuse

A, B, C = (DocumentId(name) for name in "abc")
CONVEX = Fusion(method="convex", alpha=0.5)


def test_convex_weighs_scores_scaled_from_their_lower_bound_to_the_best() -> None:
    ranking = fuse({A: 0.8, B: 0.2}, {B: 12.0, C: 3.0}, Fusion(method="convex", alpha=0.6))
    scores = {fused.document_id: fused.score for fused in ranking}
    assert scores == pytest.approx({A: 0.6 * 1.0, B: 0.6 * 0.2 / 0.8 + 0.4 * 1.0, C: 0.4 * 3.0 / 12.0})


def test_rrf_is_the_formula_of_cormack() -> None:
    ranking = fuse({A: 0.9, B: 0.8}, {B: 7.0, C: 5.0}, Fusion(method="rrf", k=60))
    scores = {fused.document_id: fused.score for fused in ranking}
    assert scores == pytest.approx({A: 1 / 61, B: 1 / 62 + 1 / 61, C: 1 / 62})


def test_one_leg_alone_keeps_its_order_and_full_weight() -> None:
    ranking = fuse(None, {A: 9.0, B: 3.0}, CONVEX)
    assert [(fused.document_id, fused.score) for fused in ranking] == [(A, 1.0), (B, pytest.approx(1 / 3))]
    assert ranking[0].explanation.dense is None


def test_a_leg_that_ran_and_found_nothing_does_not_change_the_order_of_the_other() -> None:
    assert [fused.document_id for fused in fuse({B: 0.9, A: 0.5}, {}, CONVEX)] == [B, A]


def test_all_scores_equal_ties_are_broken_by_id() -> None:
    ranking = fuse({C: 0.5, A: 0.5, B: 0.5}, {}, CONVEX)
    assert [fused.document_id for fused in ranking] == [A, B, C]
    assert len({fused.score for fused in ranking}) == 1


def test_a_leg_that_is_not_above_its_lower_bound_says_nothing() -> None:
    ranking = fuse({A: -0.2}, {B: 0.0}, CONVEX)
    assert [fused.score for fused in ranking] == [0.0, 0.0]


def test_scores_that_were_looked_up_count_but_have_no_rank() -> None:
    ranking = fuse({A: 0.9, B: 0.3}, {B: 5.0}, CONVEX, found_by_dense=1)
    explained = {fused.document_id: fused.explanation.dense for fused in ranking}
    found, looked_up = explained[A], explained[B]
    assert found is not None
    assert found.rank == 1
    assert looked_up is not None
    assert looked_up.rank is None
    assert looked_up.normalised == pytest.approx(0.3 / 0.9)
    rrf = {
        fused.document_id: fused.score
        for fused in fuse({A: 0.9, B: 0.3}, {B: 5.0}, Fusion(method="rrf"), found_by_dense=1)
    }
    assert rrf[B] == pytest.approx(1 / 61), "a looked-up score is no rank of the leg"


def test_the_explanation_adds_up() -> None:
    for fused in fuse({A: 0.9, B: 0.4}, {B: 2.0, C: 1.0}, Fusion(method="convex", alpha=0.3)):
        dense, lexical = fused.explanation.dense, fused.explanation.lexical
        total = 0.3 * (dense.normalised if dense else 0.0) + 0.7 * (lexical.normalised if lexical else 0.0)
        assert fused.score == pytest.approx(total)
        assert fused.explanation.fusion == fused.score
