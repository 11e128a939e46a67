"""A parsed query as a query of Tantivy over one BM25 index: user text never becomes syntax.

Scores are BM25 (Robertson and Zaragoza 2009) with k1 = 1.2, b = 0.75 and Lucene's idf. In a collection of several
languages a query is read in each language that it may be in, and the idf of a term is that among the documents of its
language: where one document in twelve is German, "der" is not a rare word.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import islice
from typing import Any

import tantivy

from service.core.query_syntax import ParsedQuery, TypoTolerance
from service.store.lexical.analyzer import Analyzer, LanguageAnalyzer, languages_of_term
from service.store.lexical.identifiers import QUERY_LIMIT, Identifier, options, query_identifiers
from service.store.lexical.language_detection import query_languages
from service.store.lexical.languages import UNKNOWN
from service.store.lexical.synonyms import Synonym, Synonyms
from service.store.lexical.term_weights import SIMILAR, TermWeights, idf
from service.store.lexical.word_forms import WordForms
from service.store.lexical.word_parts import query_grams, symbol_terms

TERMS_LIMIT = 1024
"""Distinct terms of one query that are searched: the rarest. 15 ms at 100,000 documents; ordinary queries have 10."""

K1, B = 1.2, 0.75
SATURATION = K1 + 1
"""k1 + 1: the most that a term can score, as a multiple of its idf."""

WHOLE, PHRASE = 1.0, 0.5
"""Weights of an identifier that is found whole, and of its parts found in their order, as factors of their idf."""

_SYNONYM = 0.7
"""The weight of a synonym beside the word that was typed, as long as it is not the rarer of the two."""

TYPOS_LIMIT = 32
"""Unknown words of one query for which similar ones are searched: each costs 0.3 to 3 ms."""

Must, MustNot, Should = tantivy.Occur.Must, tantivy.Occur.MustNot, tantivy.Occur.Should


class LexicalQuery:
    """One query on what one searcher sees. Threads may share it."""

    def __init__(
        self,
        searcher: tantivy.Searcher,
        schema: tantivy.Schema,
        analyzer: Analyzer,
        words: ParsedQuery,
        synonyms: Synonyms,
    ) -> None:
        self.searcher = searcher
        self._schema = schema
        self._analyzer = analyzer
        self._words = words
        self._documents: Counter[str] = Counter()
        guessed: Counter[str] = Counter()
        for language, count in searcher.terms_with_prefix("language", "") if analyzer.automatic else ():
            certain, _, guess = language.partition("-")
            self._documents[certain] += count
            guessed[guess or certain] += count
        self._languages = dict(query_languages(words.text, guessed)) if analyzer.automatic else {analyzer.language: 1.0}
        """The languages in which the words are searched, each with its weight."""
        self._chains = [analyzer.chain(code) for code in self._languages]
        self._word_forms = WordForms(searcher, analyzer.chain(UNKNOWN))
        self._all_chains = [analyzer.chain(code) for code in self._documents] or self._chains
        self._synonyms = {
            chain.code: synonyms.of(chain, words.text) if words.identifiers else [] for chain in self._chains
        }

    @cached_property
    def query(self) -> tantivy.Query:
        """Any of the terms that the index contains, or terms similar to those that it does not; all constraints."""
        queries = self._word_queries()
        if self._words.typos is not None:
            queries += self._fuzzy_queries(self._words.typos)
        queries += [tantivy.Query.const_score_query(query, score) for query, score in self._identifiers()]
        scored = tantivy.Query.boolean_query([(Should, query) for query in queries])
        if not self._words.has_constraints:
            return scored
        return tantivy.Query.boolean_query([*self.constraints(), (Must, scored)])

    def _word_queries(self) -> list[tantivy.Query]:
        """A query for each word: its term or, with a lower score, its parts in their order: get_user_by_id."""
        queries = {term: [self._term_query(term, weight)] for term, weight in self.weights().items()}
        for chain in self._chains if self._words.identifiers else ():
            for term, sequences in islice(chain.compounds(self._words.text).items(), QUERY_LIMIT):
                score = PHRASE * self._languages[chain.code] * idf(self.searcher.num_docs, self._frequency(term))
                phrases = [self._phrase_query(tuple(one), len(one) - 2) for one in sequences if len(one) > 1]
                queries.setdefault(term, []).extend(tantivy.Query.const_score_query(one, score) for one in phrases)
        self._add_synonyms(queries)
        return [_best_of(one) for one in queries.values() if one]

    def _add_synonyms(self, queries: dict[str, list[tantivy.Query]]) -> None:
        """Beside what was typed, of which one or the other counts; a typed phrase becomes one query of its words.

        Each is searched once, in the most probable language.
        """
        added = set[tuple[str, ...]]()
        for chain in sorted(self._chains, key=lambda one: -self._languages[one.code]):
            by_typed: dict[tuple[str, ...], list[tantivy.Query]] = defaultdict(list)
            found = [form for one in self._synonyms[chain.code] for form in (one, *self._synonym_forms(chain, one))]
            for typed, terms, _ in sorted(found, key=lambda one: len(one.typed)):
                least = min(sum(self._idf(one, self._frequency(one)) for one in of) for of in (typed, terms))
                scored = sum(idf(self.searcher.num_docs, self._frequency(one)) for one in terms)
                if terms not in added:
                    query = self._phrase_query(terms) if len(terms) > 1 else self._term_query(terms[0], 1.0)
                    weight = _SYNONYM * self._languages[chain.code] * least / scored
                    by_typed[typed].append(tantivy.Query.boost_query(query, weight))
                    added.add(terms)
            for typed, synonyms in by_typed.items():
                phrase = " ".join(typed)
                words = [_best_of(one) for term in dict.fromkeys((*typed, phrase)) if (one := queries.pop(term, None))]
                together = [tantivy.Query.boolean_query([(Should, word) for word in words])] if words else []
                queries[phrase] = together + synonyms

    def _synonym_forms(self, chain: LanguageAnalyzer, synonym: Synonym) -> list[Synonym]:
        """The same in documents of undetermined language."""
        forms: list[tuple[str, ...]] = [(form,) for form in self._forms(chain, synonym.terms[0], synonym.text)]
        if len(synonym.terms) > 1 and self._documents[UNKNOWN]:
            forms = [(*self._analyzer.chain(UNKNOWN).terms(synonym.text),)]
        return [synonym._replace(terms=form) for form in forms if form and form != synonym.terms]

    def constraints(self) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        """What every hit must and must not contain. Scored as the constant 0, so that no BM25 score changes."""
        unmatched = self.unmatched_terms()
        required = [*self._words.required, *(phrase for phrase in self._words.quoted if phrase not in unmatched)]
        must = [query for phrase in required for query in self._phrase_queries(phrase)]
        must_not = [query for phrase in self._words.excluded for query in self._phrase_queries(phrase)]
        constant = [(Must, tantivy.Query.const_score_query(query, 0.0)) for query in must]
        return constant + [(MustNot, query) for query in must_not]

    def unmatched_terms(self) -> tuple[str, ...]:
        """Quoted phrases that no document contains: their quotation marks belong to the text and are no constraint."""
        return tuple(phrase for phrase in self._words.quoted if not self._occurs(phrase))

    def options(self) -> frozenset[str]:
        """Exclusions of the text that are none: a document writes the hyphen, too, or it stands before a stop word."""

        def belongs(one: Identifier) -> bool:
            return self.is_stop_word(one.text) or self.searcher.doc_freq("identifier", one.form) > 0

        return frozenset(f"-{one.text}" for one in options(f"; {self._words.text}") if belongs(one))

    def is_stop_word(self, word: str) -> bool:
        return any(chain.is_stop_word(word) for chain in self._chains)

    def all_words(self, *, known: bool) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        """What documents match that have every word of the query. `known`: of those that any document has."""
        words = [terms for terms in self._terms_by_word().values() if not known or self._document_frequency(terms)]
        each = ([(Should, self._term_query(one, 1.0)) for one in terms] for terms in words)
        return [(Must, tantivy.Query.const_score_query(tantivy.Query.boolean_query(one), 0.0)) for one in each]

    def _occurs(self, phrase: str) -> bool:
        return any(self.searcher.search(query, 1, count=False).hits for query in self._phrase_queries(phrase))

    def _phrase_queries(self, phrase: str) -> Iterator[tantivy.Query]:
        """One query for documents of any language that contain it; none where it has no word (`"🙂"`)."""
        phrases: set[tuple[str, ...]] = set()
        for chain in (*self._all_chains, *self._chains):
            terms = tuple(chain.terms(phrase))
            phrases.add(terms)
            if len(terms) == 1:
                phrases |= {(form,) for form in self._forms(chain, terms[0], phrase)}
        if queries := [self._phrase_query(terms) for terms in sorted(phrases) if terms]:
            yield tantivy.Query.boolean_query([(Should, query) for query in queries])

    def _phrase_query(self, terms: tuple[str, ...], slop: int = 0) -> tantivy.Query:
        if len(terms) == 1:
            return tantivy.Query.term_query(self._schema, "body", terms[0], "basic")
        return tantivy.Query.phrase_query(self._schema, "body", list(terms), slop)

    def _identifiers(self) -> Iterator[tuple[tantivy.Query, float]]:
        """Queries for documents that hold an identifier of the query verbatim, and what each adds to the score."""
        total = self.searcher.num_docs
        for one in query_identifiers(self._words.text) if self._words.identifiers else ():
            whole = tantivy.Query.term_query(self._schema, "identifier", one.form, "basic")
            yield whole, WHOLE * idf(total, self.searcher.doc_freq("identifier", one.form))
            undetermined = [self._analyzer.chain(UNKNOWN)] if self._documents[UNKNOWN] else []
            for terms in sorted({tuple(chain.terms(one.text)) for chain in (*self._chains, *undetermined)}):
                if len(terms) > 1:
                    rareness = sum(idf(total, self.searcher.doc_freq("body", term)) for term in terms)
                    yield self._phrase_query(terms), PHRASE * rareness
        grams = query_grams(self._words.text) if self._words.identifiers else []
        for gram in grams:
            if count := self.searcher.doc_freq("identifier", gram):
                found = tantivy.Query.term_query(self._schema, "identifier", gram, "basic")
                yield found, WHOLE * idf(total, count) / len(grams)

    def weights(self) -> dict[str, float]:
        """The terms that the index contains, rarest first, each with its weight: how often the query repeats it."""
        weights: dict[str, float] = {}
        counts: dict[str, int] = {}
        for chain in self._chains:
            for term, times, forms in self._searched(chain):
                counts |= dict.fromkeys((term, *forms), self._frequency(term) + sum(forms.values()))
                for one in (term, *forms):
                    weights[one] = max(weights.get(one, 0.0), times * self._languages[chain.code])
        for chain in self._all_chains:
            for phrase in (*self._words.required, *self._words.quoted):
                # Required terms are searched, even if they are only stop words: "to be or not to be".
                weights = dict.fromkeys(chain.terms(phrase), 1.0) | weights
        known = {term: counts.get(term, count) for term in weights if (count := self._frequency(term))}
        total = self.searcher.num_docs
        rarest = sorted(known, key=lambda term: (known[term], term))[:TERMS_LIMIT]
        return {
            term: weights[term] * self._idf(term, known[term]) / idf(total, self._frequency(term)) for term in rarest
        }

    def _searched(self, chain: LanguageAnalyzer) -> Iterator[tuple[str, float, Mapping[str, int]]]:
        """Each term of the query in this language, its weight there, and its forms."""
        text = self._words.text
        words = {token.term: text[token.start : token.end] for token in chain.query_tokens(text)}
        for term, times in chain.query_terms(text).items():
            yield term, times, self._forms(chain, term, words[term])
        yield from ((symbol, 1.0, {}) for symbol in symbol_terms(text) if self._frequency(symbol))

    def _forms(self, chain: LanguageAnalyzer, term: str, word: str) -> Mapping[str, int]:
        """The forms of the word in documents of undetermined language, each with the number of these."""
        return self._word_forms.of(chain, term, word) if self._documents[UNKNOWN] else {}

    def _frequency(self, term: str) -> int:
        return self.searcher.doc_freq("body", term)

    def _term_query(self, term: str, weight: float) -> tantivy.Query:
        query = tantivy.Query.term_query(self._schema, "body", term, "freq")
        return query if weight == 1.0 else tantivy.Query.boost_query(query, weight)

    def _idf(self, term: str, count: int) -> float:
        """The idf of a term in `count` documents, among those that may be in its languages."""
        languages = languages_of_term(term) if self._analyzer.automatic else None
        if languages is None:
            return idf(self.searcher.num_docs, count)
        return idf(max(count, sum(self._documents[code] for code in {*languages, UNKNOWN})), count)

    def statistics(self) -> tuple[dict[str, float], float]:
        """The idf of each term times its weight, and the average length of a document, as the index has them."""
        weights = self.weights()
        for term in weights:
            query = self._term_query(term, 1.0)
            for _, address in self.searcher.search(query, 1, count=False).hits:
                parts = _explanation(json.loads(query.explain(self.searcher, address).to_json()))
                documents, average = round(parts["N"]), parts["avgdl"]
                idfs = {one: idf(documents, self.searcher.doc_freq("body", one)) for one in weights}
                return {one: weight * idfs[one] for one, weight in weights.items()}, average
        return {}, 1.0

    def max_score(self) -> float:
        """The score of a document that repeats every word endlessly: no hit scores more, whatever is indexed.

        Words that no document contains count as the rarest. In the most probable language of the query.
        """
        chain = max(self._chains, key=lambda one: self._languages[one.code])
        score = 0.0
        for term, times, forms in self._searched(chain):
            score += times * self._idf(term, self._frequency(term) + sum(forms.values()))
        verbatim = sum(added for _, added in self._identifiers())
        return SATURATION * self._languages[chain.code] * score + verbatim

    def document_frequencies(self) -> tuple[int, ...]:
        """For each different word of the query, how many documents contain it, in the language where most do."""
        return tuple(map(self._document_frequency, self._terms_by_word().values()))

    def _document_frequency(self, terms: Iterable[str]) -> int:
        return max(map(self._frequency, terms))

    def _terms_by_word(self) -> Mapping[str, set[str]]:
        """The words of the query, each with its terms in the languages that the query may be in."""
        terms: dict[str, set[str]] = defaultdict(set)
        for chain in self._chains:
            for token in chain.tokens(self._words.text, stop_words=False):
                word = self._words.text[token.start : token.end]
                terms[word] |= {token.term, *self._forms(chain, token.term, word)}
        return terms

    def _unknown_words(self) -> list[tuple[str, set[str]]]:
        """The first words of the query that no document contains in any language, with their terms."""
        words = self._terms_by_word().items()
        return [(word, terms) for word, terms in words if not self._document_frequency(terms)][:TYPOS_LIMIT]

    def _fuzzy_queries(self, typos: TypoTolerance) -> Iterator[tantivy.Query]:
        """For each unknown word the terms within a few edits (Levenshtein automata over the dictionary).

        They score as one occurrence in a document of average length, for which BM25 gives the idf.
        """
        for word, terms in self._unknown_words():
            queries = []
            for distance in range(1, typos.max_edits_for(word) + 1):
                for term in sorted(terms):
                    fuzzy = tantivy.Query.fuzzy_term_query(self._schema, "body", term, distance)
                    found = self.searcher.search(fuzzy, 1, count=True)
                    count: int = found.count  # type: ignore[attr-defined]  # missing in Tantivy's stubs
                    if count:
                        score = SIMILAR[distance - 1] * idf(self.searcher.num_docs, count)
                        queries.append(tantivy.Query.const_score_query(fuzzy, score))
            if queries:
                yield tantivy.Query.disjunction_max_query(queries)

    @cached_property
    def highlighting(self) -> TermWeights:
        """What is searched in passages, in the languages that the query may be in."""
        terms = {chain.code: chain.highlight_terms(self._words.text) for chain in self._chains}
        phrases = " ".join((*self._words.required, *self._words.quoted))
        if phrases:
            terms = {chain.code: chain.highlight_terms(phrases) for chain in self._all_chains} | terms
        also = {
            code: _highlighted_synonyms(self._analyzer.chain(code), found) for code, found in self._synonyms.items()
        }
        grams = frozenset(query_grams(self._words.text))
        misspelled: list[tuple[str, int]] = []
        if self._words.typos is not None:
            for word, unknown in self._unknown_words():
                misspelled += ((term, self._words.typos.max_edits_for(word)) for term in unknown)
        likely_first = sorted(terms, key=lambda code: -self._languages.get(code, 0.0))
        return TermWeights(
            rareness=cache(lambda term: idf(self.searcher.num_docs, self.searcher.doc_freq("body", term))),
            chains=[self._analyzer.chain(code) for code in likely_first],
            terms={code: own | grams | also.get(code, frozenset()) for code, own in terms.items()},
            synonyms={code: found - terms[code] for code, found in also.items()},
            misspelled=[(term, edits) for term, edits in misspelled if edits],
        )


def _best_of(queries: Sequence[tantivy.Query]) -> tantivy.Query:
    return tantivy.Query.disjunction_max_query(list(queries)) if len(queries) > 1 else queries[0]


def _highlighted_synonyms(chain: LanguageAnalyzer, synonyms: Iterable[Synonym]) -> frozenset[str]:
    return frozenset[str]().union(*(chain.highlight_terms(one.text) for one in synonyms))


def _explanation(node: Mapping[str, Any]) -> dict[str, float]:
    """Name -> value of everything that Tantivy's explanation of a score lists."""
    found = {str(node["description"]).split(",")[0]: float(node["value"])}
    for part in node.get("details", ()):
        found |= _explanation(part)
    return found
