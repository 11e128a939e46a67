"""Measures of a ranking against judgments, as trec_eval computes them; tested equal to `ir_measures`.

`ranking`: document ids, best first. `grades`: document id -> judged relevance, where above 0 is relevant.
"""

import math
from collections.abc import Mapping, Sequence


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """nDCG@k with linear gain and log2 discount (Jarvelin and Kekalainen 2002, as in trec_eval's ndcg_cut)."""
    ideal = _dcg(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
    return _dcg([max(0, grades.get(document, 0)) for document in ranking[:k]]) / ideal if ideal else 0.0


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """The share of all relevant documents that stand among the first k."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document among the first k, else 0."""
    return next((1.0 / rank for rank, document in enumerate(ranking[:k], 1) if grades.get(document, 0) > 0), 0.0)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (share in [0, 1]); NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
