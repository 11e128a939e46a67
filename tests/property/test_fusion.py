from hypothesis import given
from hypothesis import strategies as st

from service.domain import DocumentId, Fusion
from service.fusion import fuse

IDS = st.sampled_from([DocumentId(f"d{number}") for number in range(12)])
DENSE = st.dictionaries(IDS, st.floats(-1, 1), max_size=12)
LEXICAL = st.dictionaries(IDS, st.floats(0, 80), max_size=12)
HOW = st.one_of(
    st.builds(Fusion, method=st.just("convex"), alpha=st.floats(0, 1)),
    st.builds(Fusion, method=st.just("rrf"), k=st.integers(1, 100)),
)


def best_first(scores: dict[DocumentId, float]) -> dict[DocumentId, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


@given(DENSE, LEXICAL, HOW)
def test_it_ranks_the_union_once_and_in_order(
    dense: dict[DocumentId, float], lexical: dict[DocumentId, float], how: Fusion
) -> None:
    ranking = fuse(best_first(dense), best_first(lexical), how)
    assert sorted(fused.document_id for fused in ranking) == sorted({*dense, *lexical})
    keys = [(-fused.score, fused.document_id) for fused in ranking]
    assert keys == sorted(keys)
    assert all(0.0 <= fused.score <= 1.0 + 1e-9 for fused in ranking)


@given(DENSE, LEXICAL, st.floats(0, 1), IDS)
def test_convex_is_monotone_in_either_leg(
    dense: dict[DocumentId, float], lexical: dict[DocumentId, float], alpha: float, favoured: DocumentId
) -> None:
    """Raising one score of a document that is not its leg's best never lowers its place."""
    how = Fusion(method="convex", alpha=alpha)
    top = max(dense.values(), default=-1.0)
    if favoured not in dense:
        return
    raised = {**dense, favoured: (dense[favoured] + top) / 2}
    before = [fused.document_id for fused in fuse(best_first(dense), best_first(lexical), how)].index(favoured)
    after = [fused.document_id for fused in fuse(best_first(raised), best_first(lexical), how)].index(favoured)
    assert after <= before


@given(DENSE, LEXICAL, st.floats(0, 1), st.randoms(use_true_random=False))
def test_convex_does_not_depend_on_the_order_in_which_scores_arrive(
    dense: dict[DocumentId, float], lexical: dict[DocumentId, float], alpha: float, random: object
) -> None:
    how = Fusion(method="convex", alpha=alpha)
    items = list(dense.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    shuffled = fuse(dict(items), best_first(lexical), how)
    ordered = fuse(best_first(dense), best_first(lexical), how)
    assert [(fused.document_id, fused.score) for fused in shuffled] == [
        (fused.document_id, fused.score) for fused in ordered
    ]
