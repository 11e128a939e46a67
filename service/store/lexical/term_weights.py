"""What a query seeks in passages, and how much each of it weighs."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from rapidfuzz.distance import OSA

from service.store.lexical.analyzer import LanguageAnalyzer

SIMILAR = (0.8, 0.5)
"""The weight of a similar word, by the edits between."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TermWeights:
    """The weights of the terms of passages. `chains`: analyse the passages, likely ones first. `terms`: what is
    searched, by the code of the chain; `synonyms`: those of them that were not typed. `misspelled`: terms of the query
    that no document has, with the edits that they allow. `rareness`: the idf in the index."""

    rareness: Callable[[str], float]
    chains: Sequence[LanguageAnalyzer]
    terms: Mapping[str, frozenset[str]]
    synonyms: Mapping[str, frozenset[str]]
    misspelled: Sequence[tuple[str, int]]

    def searched(self, chain: LanguageAnalyzer) -> frozenset[str] | None:
        """All terms that have a weight; None where terms that are like them have one, too."""
        return None if self.misspelled else self.terms[chain.code]

    def weigh(self, chain: LanguageAnalyzer, terms: Set[str]) -> dict[str, float]:
        """The weight of those that are searched."""
        searched = self.terms[chain.code].intersection(terms)
        weights = {term: self.rareness(term) for term in searched}
        for term in terms - searched if self.misspelled else ():
            if any(OSA.distance(wrong, term, score_cutoff=edits) <= edits for wrong, edits in self.misspelled):
                weights[term] = SIMILAR[-1]
        return weights


def idf(documents: int, count: int) -> float:
    """Lucene's inverse document frequency of a term in `count` of so many documents; above 0.

    `count` may include documents that are deleted by now.
    """
    count = min(count, documents)
    return math.log1p((documents - count + 0.5) / (count + 0.5))
