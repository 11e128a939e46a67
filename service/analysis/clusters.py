"""Groups of documents by their vectors, named by the words that tell them apart. Pure; scikit-learn does the grouping.

Groups: k-means (Lloyd 1982, begun as by Arthur and Vassilvitskii 2007) on vectors of length 1. Names: c-TF-IDF, as
BERTopic weighs words of a group (Grootendorst 2022, arXiv 2203.05794): the root of a word's share of the group's words,
times the logarithm of that share over its share of all words.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from service.core.ids import Vectors
from service.core.text import simple_words, text_units
from service.core.vector_math import unit_rows

MAX_DEFAULT = 20
_ITERATIONS = 50
_NAME = regex.compile(r"\p{L}[\w\p{M}]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """`members`: rows, nearest to the centre first. `words`: what names it, best first."""

    members: tuple[int, ...]
    words: tuple[str, ...]


def find_clusters(rows: Vectors, texts: Mapping[int, str], count: int | None, words: int) -> list[Cluster]:
    """At most `count` groups of the rows, [n, dimensions] of length 1, largest first; the same every time.

    `count` None: the root of half the rows (Mardia, Kent and Bibby 1979), at most `MAX_DEFAULT`. `texts`: of some rows,
    which names are made of.
    """
    from sklearn.cluster import KMeans

    wanted = min(len(rows), count or min(MAX_DEFAULT, max(2, round(float(np.sqrt(len(rows) / 2))))))
    if wanted < 2:
        groups, centres = np.zeros(len(rows), np.intp), rows[:1]
    else:
        different = len(np.unique(rows, axis=0))
        found = KMeans(min(wanted, different), n_init=1, max_iter=_ITERATIONS, random_state=0).fit(rows)
        groups, centres = found.labels_, unit_rows(found.cluster_centers_.astype(np.float32))
    near = np.einsum("ij,ij->i", rows, centres[groups])
    order = np.argsort(-near, kind="stable")
    members = [order[groups[order] == group].tolist() for group in range(len(centres))]
    names = cluster_words([[texts[row] for row in rows_of if row in texts] for rows_of in members], words)
    clusters = [Cluster(members=tuple(one), words=name) for one, name in zip(members, names, strict=True) if one]
    return sorted(clusters, key=lambda one: -len(one.members))


def cluster_words(groups: Sequence[Sequence[str]], most: int) -> list[tuple[str, ...]]:
    """The words that tell each group of texts from the others, best first."""
    counters = [
        Counter(word for text in texts for word in simple_words(text, text_units(text)[1]) if _NAME.fullmatch(word))
        for texts in groups
    ]
    total = sum(counters, Counter[str]())
    everything = total.total()

    def weight(word: str, counter: Counter[str]) -> float:
        share = counter[word] / counter.total()
        lift = share * everything / total[word] if len(counters) > 1 else np.e
        return float(np.sqrt(share) * max(0.0, np.log(lift)))

    def best(counter: Counter[str]) -> tuple[str, ...]:
        weights = {word: weight(word, counter) for word in counter}
        return tuple(sorted(filter(weights.get, weights), key=lambda word: (-weights[word], word))[:most])

    return [best(counter) for counter in counters]
