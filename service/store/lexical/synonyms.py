"""Synonyms of a collection: applied to queries, so that a change of them needs no other index.

The analysis of the collection reads rules and queries alike: a rule for `car` is one for `cars`, and a phrase is its
terms one after another, as it is in documents.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from service.core.collections import SynonymRule
from service.store.lexical.analyzer import LanguageAnalyzer

_LIMIT = 64
"""Synonyms that one query searches at most."""

Terms = tuple[str, ...]


class Synonym(NamedTuple):
    """The terms of a query that a rule is about, and what else they stand for: its terms, and its text."""

    typed: Terms
    terms: Terms
    text: str


class Synonyms:
    """The rules of a collection, compiled for each chain of analysis when it is first used."""

    def __init__(self, rules: Sequence[SynonymRule] = ()) -> None:
        self.rules = tuple(rules)
        self._compiled = lru_cache(maxsize=None)(self._compile)

    def of(self, chain: LanguageAnalyzer, text: str) -> list[Synonym]:
        """Those of a query, in its order."""
        if not self.rules:
            return []
        terms, rules = tuple(chain.terms(text)), self._compiled(chain)
        found = dict.fromkeys(
            synonym
            for at, term in enumerate(terms)
            for synonym in rules.get(term, ())
            if terms[at : at + len(synonym.typed)] == synonym.typed
        )
        return list(found)[:_LIMIT]

    def _compile(self, chain: LanguageAnalyzer) -> dict[str, list[Synonym]]:
        """By the first of the typed terms."""
        compiled: dict[str, list[Synonym]] = defaultdict(list)
        for rule in self.rules:
            others = [(terms, text) for text in rule.to or rule.words if (terms := tuple(chain.terms(text)))]
            for typed in {tuple(chain.terms(text)): None for text in rule.words}:
                compiled[typed[0] if typed else ""] += (Synonym(typed, *one) for one in others if one[0] != typed)
        return compiled
