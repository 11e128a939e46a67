import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.explanation import DiversityExplanation
from service.core.ids import Vector
from service.search.mmr import mmr

DIMENSIONS = 3
COORDINATE = st.integers(-4, 4)
VECTOR = st.tuples(*[COORDINATE] * DIMENSIONS).filter(any).map(lambda row: np.array(row) / np.linalg.norm(row))
ALIKE: Vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
Hits = list[tuple[float, Vector | None]]
"""Different scores, best first, with vectors."""
HITS = st.lists(
    st.tuples(st.integers(-50, 50).map(float), st.none() | VECTOR), max_size=12, unique_by=lambda hit: hit[0]
).map(lambda hits: sorted(hits, key=lambda hit: -hit[0]))
DIVERSITY = st.floats(0, 1)
K = st.integers(1, 14)


def picks_of(hits: Hits, diversity: float, k: int) -> list[DiversityExplanation]:
    return mmr([score for score, _ in hits], [vector for _, vector in hits], diversity, k)


def picked(hits: Hits, diversity: float, k: int) -> list[int]:
    return [pick.rank - 1 for pick in picks_of(hits, diversity, k)]


@given(HITS, DIVERSITY, K)
def test_it_takes_as_many_as_asked_for_each_once_and_the_best_first(hits: Hits, diversity: float, k: int) -> None:
    places = picked(hits, diversity, k)
    assert len(places) == len(set(places)) == min(k, len(hits))
    assert set(places) <= set(range(len(hits)))
    assert places[:1] == [0][: len(hits)]


@given(HITS | st.lists(st.tuples(st.just(1.0), VECTOR), max_size=8), K)
def test_without_diversity_the_order_stays_also_where_scores_are_equal(hits: Hits, k: int) -> None:
    assert picked(hits, 0.0, k) == list(range(min(k, len(hits))))


@given(HITS, K)
def test_with_nothing_but_diversity_each_is_the_farthest_from_those_before(hits: Hits, k: int) -> None:
    rows: list[Vector] = [ALIKE if vector is None else vector for _, vector in hits]
    places = picked([(score, row) for (score, _), row in zip(hits, rows, strict=True)], 1.0, k)
    for count in range(1, len(places)):
        taken, left = places[:count], set(range(len(rows))) - set(places[:count])
        nearest = {at: max(float(rows[at] @ rows[other]) for other in taken) for at in left}
        assert nearest[places[count]] == pytest.approx(min(nearest.values()))


@given(HITS, DIVERSITY, K)
def test_a_longer_answer_begins_with_the_shorter_one(hits: Hits, diversity: float, k: int) -> None:
    assert picked(hits, diversity, k + 1)[:k] == picked(hits, diversity, k)


@given(HITS, DIVERSITY, K, st.floats(0.1, 10), st.floats(-10, 10))
def test_the_unit_of_the_scores_does_not_matter(hits: Hits, diversity: float, k: int, by: float, plus: float) -> None:
    """But for rounding, where margins are equal: what is then taken has the same margin."""
    moved: Hits = [(score * by + plus, vector) for score, vector in hits]
    before, after = ([pick.mmr for pick in picks_of(some, diversity, k)[:2]] for some in (hits, moved))
    assert before == pytest.approx(after, abs=1e-9)


@given(HITS, DIVERSITY, K, st.randoms(use_true_random=False))
def test_nothing_depends_on_the_order_in_which_hits_were_found(
    hits: Hits, diversity: float, k: int, random: object
) -> None:
    shuffled = list(hits)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = sorted(shuffled, key=lambda hit: -hit[0])
    chosen, anyhow = ([some[at] for at in picked(some, diversity, k)] for some in (hits, again))
    assert [score for score, _ in chosen] == [score for score, _ in anyhow]


@given(HITS, DIVERSITY)
def test_the_explanation_says_how_each_came_to_its_place(hits: Hits, diversity: float) -> None:
    picks = picks_of(hits, diversity, len(hits))
    for at, pick in enumerate(picks):
        vector = hits[pick.rank - 1][1]
        assert (pick.similarity is None) == (at == 0 or vector is None)
        above = [hits[other.rank - 1][1] for other in picks[:at]]
        if vector is not None and above and all(one is not None for one in above):
            nearest = max(float(vector @ one) for one in above if one is not None)
            assert pick.similarity == pytest.approx(nearest)
