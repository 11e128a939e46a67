"""What a query asks of one BM25 index, as a query of Tantivy: user text never becomes syntax.

Scores are BM25 (Robertson and Zaragoza 2009) with k1 = 1.2, b = 0.75 and Lucene's idf. In a collection of several
languages a query is read in those that it may be in, and the idf of a term is that among the documents of its language:
where one document in twelve is German, "der" is not a rare word.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import tantivy

from service.core.query_syntax import ParsedQuery, TypoTolerance
from service.store.lexical.analyzer import Analyzer, LanguageAnalyzer, population
from service.store.lexical.edit_distance import within
from service.store.lexical.language_detection import asked_in

TERMS_LIMIT = 1024
"""Distinct terms of one query that are looked for: the rarest. 15 ms at 100,000 documents; ordinary queries have 10."""

K1, B = 1.2, 0.75
SATURATION = K1 + 1
"""k1 + 1: how many times its idf a term can score at most."""

_DISCOUNT = (0.8, 0.5)
"""What a similar word counts, by the edits that lie between."""

TYPOS_LIMIT = 32
"""Unknown words of one query that similar ones are looked for: each costs 0.3 to 3 ms."""

Must, MustNot, Should = tantivy.Occur.Must, tantivy.Occur.MustNot, tantivy.Occur.Should


class LexicalQuery:
    """One query against what one searcher sees."""

    def __init__(
        self, searcher: tantivy.Searcher, schema: tantivy.Schema, analyzer: Analyzer, words: ParsedQuery
    ) -> None:
        self._searcher = searcher
        self._schema = schema
        self._analyzer = analyzer
        self._words = words
        self._documents = dict(searcher.terms_with_prefix("language", "")) if analyzer.automatic else {}
        self._languages = self._asked_in()
        self._chains = [analyzer.chain(code) for code in self._languages]
        self._all_chains = [analyzer.chain(code) for code in self._documents] or self._chains

    def _asked_in(self) -> Mapping[str, float]:
        """The languages that the words are looked for in, each with its weight."""
        if not self._analyzer.automatic:
            return {self._analyzer.language: 1.0}
        return asked_in(self._words.text, self._documents)

    # ------------------------------------------------------------ what is scored, and what binds

    def query(self) -> tantivy.Query:
        """Any of the words, and all of the wishes."""
        scored = tantivy.Query.boolean_query([(Should, one) for one in self._scored()])
        return tantivy.Query.boolean_query([*self.wishes(), (Must, scored)]) if self._words.has_constraints else scored

    def wishes(self) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        """What every hit must and must not say. Scored as the constant 0, so that wishes never change a BM25 score."""
        unmatched_terms = self.unmatched_terms()
        has_constraints = [*self._words.required, *(one for one in self._words.quoted if one not in unmatched_terms)]
        required = [tantivy.Query.const_score_query(said, 0.0) for one in has_constraints for said in self._said(one)]
        excluded = [said for one in self._words.excluded for said in self._said(one)]
        return [(Must, one) for one in required] + [(MustNot, one) for one in excluded]

    def unmatched_terms(self) -> tuple[str, ...]:
        """Quoted phrases that no document says: the quotation marks came with the text then, and bind nobody."""
        return tuple(one for one in self._words.quoted if not self._found(one))

    def _found(self, wish: str) -> bool:
        return any(self._searcher.search(said, 1, count=False).hits for said in self._said(wish))

    def _said(self, wish: str) -> Iterator[tantivy.Query]:
        """Documents that say it, in whatever language they are; nothing where it has no word (`"🙂"`)."""
        phrases = {tuple(chain.terms(wish)) for chain in self._all_chains}
        ways = [self._phrase(terms) for terms in sorted(phrases) if terms]
        if ways:
            yield tantivy.Query.boolean_query([(Should, way) for way in ways])

    def _phrase(self, terms: tuple[str, ...]) -> tantivy.Query:
        if len(terms) == 1:
            return tantivy.Query.term_query(self._schema, "body", terms[0], "basic")
        return tantivy.Query.phrase_query(self._schema, "body", list(terms))

    # ------------------------------------------------------------ words

    def _scored(self) -> list[tantivy.Query]:
        """Any of the terms that the index knows, and what is similar to those that it does not."""
        scored = [self._term(term, weight) for term, weight in self.weights().items()]
        if self._words.typos is not None:
            scored += self._similar(self._words.typos)
        return scored

    def weights(self) -> dict[str, float]:
        """The terms that the index knows, rarest first, and how much each counts: as often as the query repeats it."""
        weights: dict[str, float] = {}
        for chain in self._chains:
            for term, times in chain.query_terms(self._words.text).items():
                weights[term] = max(weights.get(term, 0.0), times * self._languages[chain.code])
        for chain in self._all_chains:
            for wish in (*self._words.required, *self._words.quoted):
                # What must be said is looked for, even where it says nothing: "to be or not to be".
                weights = dict.fromkeys(chain.terms(wish), 1.0) | weights
        known = {term: count for term in weights if (count := self._searcher.doc_freq("body", term))}
        rarest = sorted(known, key=lambda term: (known[term], term))[:TERMS_LIMIT]
        return {term: weights[term] * self._rareness(term, known[term]) for term in rarest}

    def _term(self, term: str, weight: float) -> tantivy.Query:
        query = tantivy.Query.term_query(self._schema, "body", term, "freq")
        return query if weight == 1.0 else tantivy.Query.boost_query(query, weight)

    def _rareness(self, term: str, count: int) -> float:
        """From the idf among all documents to that among those that could say it."""
        among = population(term) if self._analyzer.automatic else None
        if among is None:
            return 1.0
        could = max(count, sum(self._documents.get(code, 0) for code in among))
        return idf(could, count) / idf(self._searcher.num_docs, count)

    def statistics(self) -> tuple[dict[str, float], float]:
        """The idf of each term times its weight, and the average length of a document, as the index has them."""
        weights = self.weights()
        for term in weights:
            query = self._term(term, 1.0)
            for _, address in self._searcher.search(query, 1, count=False).hits:
                told = _explained(json.loads(query.explain(self._searcher, address).to_json()))
                documents, average = round(told["N"]), told["avgdl"]
                idfs = {one: idf(documents, self._searcher.doc_freq("body", one)) for one in weights}
                return {one: weight * idfs[one] for one, weight in weights.items()}, average
        return {}, 1.0

    def max_score(self) -> float:
        """What a document would score that says every word over and over: no hit scores more, whatever is indexed.

        Words that no document says count as the rarest. In the language that the query most likely is in.
        """
        chain = max(self._chains, key=lambda one: self._languages[one.code])
        possible = 0.0
        for term, times in chain.query_terms(self._words.text).items():
            count = self._searcher.doc_freq("body", term)
            possible += times * self._rareness(term, count) * idf(self._searcher.num_docs, count)
        return SATURATION * self._languages[chain.code] * possible

    def document_frequencies(self) -> tuple[int, ...]:
        """For each different word of the query, how many documents say it; in the language where most do."""
        return tuple(self._frequency(became) for became in self._became().values())

    def _frequency(self, terms: frozenset[str]) -> int:
        return max(self._searcher.doc_freq("body", term) for term in terms)

    def _became(self) -> Mapping[str, frozenset[str]]:
        """The words of the query, with the terms that they became in the languages that it may be in."""
        terms: dict[str, set[str]] = {}
        for chain in self._chains:
            for token in chain.tokens(self._words.text, looked_for=True):
                terms.setdefault(self._words.text[token.start : token.end], set()).add(token.term)
        return {word: frozenset(became) for word, became in terms.items()}

    # ------------------------------------------------------------ typos

    def _unknown(self) -> Mapping[str, frozenset[str]]:
        """The words of the query that no document says in any language."""
        return {word: became for word, became in self._became().items() if not self._frequency(became)}

    def _similar(self, typos: TypoTolerance) -> Iterator[tantivy.Query]:
        """For each unknown word the terms within a few edits (Levenshtein automata over the dictionary).

        They score as one word said once in a document of average length: what BM25 gives there is the idf.
        """
        for word, terms in list(self._unknown().items())[:TYPOS_LIMIT]:
            ways = []
            for distance in range(1, typos.max_edits_for(word) + 1):
                for term in sorted(terms):
                    fuzzy = tantivy.Query.fuzzy_term_query(self._schema, "body", term, distance)
                    found = self._searcher.search(fuzzy, 1, count=True)
                    count: int = found.count  # type: ignore[attr-defined]  # missing in Tantivy's stubs
                    if count:
                        score = _DISCOUNT[distance - 1] * idf(self._searcher.num_docs, count)
                        ways.append(tantivy.Query.const_score_query(fuzzy, score))
            if ways:
                yield tantivy.Query.disjunction_max_query(ways)

    # ------------------------------------------------------------ highlights

    def marking(self) -> tuple[list[LanguageAnalyzer], Callable[[LanguageAnalyzer, str], float]]:
        """The chains that a passage is read with, and what a term counts there: its idf, or 0 where nobody asks it."""
        said = {chain.code: chain.marked_terms(self._words.text) for chain in self._chains}
        wishes = " ".join((*self._words.required, *self._words.quoted))
        if wishes:
            said = {chain.code: chain.marked_terms(wishes) for chain in self._all_chains} | said
        misspelt = [] if self._words.typos is None else self._misspelt(self._words.typos)

        @cache
        def weight(chain: LanguageAnalyzer, term: str) -> float:
            if term in said[chain.code]:
                return idf(self._searcher.num_docs, self._searcher.doc_freq("body", term))
            if any(within(most, wrong, term) for wrong, most in misspelt):
                return _DISCOUNT[-1]
            return 0.0

        return [self._analyzer.chain(code) for code in said], weight

    def _misspelt(self, typos: TypoTolerance) -> list[tuple[str, int]]:
        """Terms that no document says, and how many edits a word may be away to stand for one of them."""
        unknown = list(self._unknown().items())[:TYPOS_LIMIT]
        return [
            (term, most) for word, terms in unknown if (most := typos.max_edits_for(word)) for term in sorted(terms)
        ]


def _explained(told: Mapping[str, Any]) -> dict[str, float]:
    """Name -> value of what a score was made of."""
    found = {str(told["description"]).split(",")[0]: float(told["value"])}
    for part in told.get("details", ()):
        found |= _explained(part)
    return found


def idf(documents: int, count: int) -> float:
    """Lucene's inverse document frequency of what `count` of so many documents say; above 0.

    `count` may be of documents that are deleted by now.
    """
    count = min(count, documents)
    return math.log1p((documents - count + 0.5) / (count + 0.5))
