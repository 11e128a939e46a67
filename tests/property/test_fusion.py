import math
from collections.abc import Callable, Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.collections import FusionSettings
from service.core.ids import DocumentId
from service.search.fusion import LegScores, Ranking, fuse, rank_scores

IDS = st.sampled_from([DocumentId(f"d{number}") for number in range(12)])
DENSE = st.dictionaries(IDS, st.floats(-1, 1), max_size=12)
LEXICAL = st.dictionaries(IDS, st.floats(0, 80), max_size=12)
HOW = st.one_of(
    st.builds(FusionSettings, method=st.just("convex"), alpha=st.floats(0, 1)),
    st.builds(FusionSettings, method=st.just("rrf"), k=st.integers(1, 100)),
)
RANDOM = st.randoms(use_true_random=False)
Scores = Mapping[DocumentId, float]
Query = tuple[dict[DocumentId, float] | None, dict[DocumentId, float] | None, float]
"""What the dense and the lexical leg scored, and the weight of the query."""
QUERIES = st.lists(st.tuples(st.none() | DENSE, st.none() | LEXICAL, st.floats(0.01, 100)), min_size=1, max_size=4)


def best_first(scores: Scores) -> dict[DocumentId, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def evidence(query: Query, order: Callable[[Scores], Scores] = best_first) -> LegScores[DocumentId]:
    dense, lexical = (None if scores is None else rank_scores(order(scores)) for scores in query[:2])
    return LegScores(dense=dense, lexical=lexical, weight=query[2])


def scored(ranking: Ranking[DocumentId]) -> list[tuple[DocumentId, float]]:
    return list(zip(ranking.items, ranking.scores, strict=True))


@pytest.mark.slow
@given(QUERIES, HOW)
def test_it_ranks_the_union_once_and_in_order(queries: list[Query], how: FusionSettings) -> None:
    ranking = fuse([evidence(query) for query in queries], how)
    known = {item for dense, lexical, _ in queries for item in (*(dense or ()), *(lexical or ()))}
    assert sorted(ranking.items) == sorted(known)
    scores = ranking.scores
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 + 1e-9 for score in scores)


def formula(queries: list[Query], how: FusionSettings) -> list[tuple[DocumentId, float]]:
    """The definition, one score at a time."""
    weights = math.fsum(weight for *_, weight in queries)
    parts: dict[DocumentId, list[float]] = {}
    for *legs, weight in queries:
        both = all(scores and max(scores.values()) > 0 for scores in legs)
        shares = (how.alpha, 1 - how.alpha) if how.method == "convex" and both else (1.0, 1.0)
        for scores, share in zip(map(best_first, (one or {} for one in legs)), shares, strict=True):
            for rank, (item, score) in enumerate(scores.items(), start=1):
                best = max(scores.values())
                gain = 1 / (how.k + rank) if how.method == "rrf" else max(0.0, score) / best if best > 0 else 0.0
                parts.setdefault(item, []).append(weight / weights * share * gain)

    def order(item: DocumentId) -> tuple[float, ...]:
        raw = [max((one[leg] or {}).get(item, -math.inf) for one in queries) for leg in (0, 1)]  # type: ignore[union-attr]
        return -round(math.fsum(parts[item]), 12), *(-score for score in raw)

    return [(item, math.fsum(parts[item])) for item in sorted(sorted(parts), key=order)]


@given(QUERIES, HOW)
def test_it_is_the_formula(queries: list[Query], how: FusionSettings) -> None:
    expected, found = formula(queries, how), scored(fuse([evidence(query) for query in queries], how))
    assert dict(found) == pytest.approx(dict(expected), abs=1e-12)
    together = [(one, two) for one, two in zip(found, expected, strict=True) if one[0] != two[0]]
    assert all(one[1] == pytest.approx(two[1], abs=1e-11) for one, two in together), "only equals may change places"


@given(QUERIES, HOW)
def test_the_explanation_adds_up(queries: list[Query], how: FusionSettings) -> None:
    for fused in fuse([evidence(query) for query in queries], how)[:]:
        assert fused.explanation.fusion == fused.score
        if len(queries) > 1:
            assert fused.score == math.fsum(query.gain for query in fused.explanation.queries)
        for query in fused.explanation.queries:
            assert query.gain == math.fsum(leg.share for leg in (query.dense, query.lexical) if leg)
        if len(queries) == 1:
            legs = (fused.explanation.dense, fused.explanation.lexical)
            assert fused.score == math.fsum(leg.share for leg in legs if leg)


@given(QUERIES, st.floats(0, 1), IDS, st.data())
def test_convex_is_monotone_in_either_leg_of_any_query(
    queries: list[Query], alpha: float, favoured: DocumentId, data: st.DataObject
) -> None:
    """Raising one score of a document that is not its leg's best never lowers its place."""
    how = FusionSettings(method="convex", alpha=alpha)
    at, of_dense = data.draw(st.integers(0, len(queries) - 1)), data.draw(st.booleans())
    dense, lexical, weight = queries[at]
    scores = dense if of_dense else lexical
    if scores is None or favoured not in scores:
        return
    raised = {**scores, favoured: (scores[favoured] + max(scores.values())) / 2}
    changed: Query = (raised, lexical, weight) if of_dense else (dense, raised, weight)
    rankings = (
        fuse(list(map(evidence, some)), how) for some in (queries, [*queries[:at], changed, *queries[at + 1 :]])
    )
    before, after = (ranking.items.index(favoured) for ranking in rankings)
    assert after <= before


@given(QUERIES, st.floats(0, 1), RANDOM)
def test_convex_does_not_depend_on_the_order_in_which_scores_arrive(
    queries: list[Query], alpha: float, random: Random
) -> None:
    def shuffled(scores: Scores) -> Scores:
        items = list(scores.items())
        random.shuffle(items)
        return dict(items)

    how = FusionSettings(method="convex", alpha=alpha)
    ordered = fuse([evidence(query) for query in queries], how)
    anyhow = fuse([evidence(query, shuffled) for query in queries], how)
    assert scored(anyhow) == scored(ordered)


@given(QUERIES, HOW, RANDOM)
def test_the_order_of_the_queries_does_not_matter(queries: list[Query], how: FusionSettings, random: Random) -> None:
    ordered = fuse([evidence(query) for query in queries], how)
    random.shuffle(queries)
    anyhow = fuse([evidence(query) for query in queries], how)
    assert scored(anyhow) == scored(ordered)
