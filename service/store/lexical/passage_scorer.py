"""Scores passages of documents that were found: which of them says what the query asks?

BM25 with the passages as documents. The idf of a term is that of the index plus that among the passages: within a
manual, a word that each of its passages has tells nothing, however rare it is elsewhere.
"""

from collections.abc import Sequence
from itertools import chain as chained

from service.core.query_syntax import ParsedQuery
from service.store.lexical.analyzer import LanguageAnalyzer
from service.store.lexical.folding import unify
from service.store.lexical.identifiers import Identifier, index_terms, long_numbers, query_identifiers
from service.store.lexical.query import K1, PHRASE, SATURATION, WHOLE, B, LexicalQuery
from service.store.lexical.term_weights import idf
from service.store.lexical.word_parts import compound_words, query_grams, run_grams, without_signs

ANALYSED_LENGTH = 40_000
"""Characters that are analysed of one call, in 1 ms: of the passages that hold the query's rarest words as written."""
_LANGUAGES = 3
"""In which passages are analysed where the query may be in many: an identifier alone may be in any."""
_LITERALS = 4
"""Words that are looked for as written; each takes 1 ms for a million characters."""
_LEAST_STEM = 4
_DEMANDED = 10.0
"""What a required or quoted phrase adds, as a multiple of the best score without: such a passage is the best."""


class PassageScorer:
    def __init__(self, query: LexicalQuery, words: ParsedQuery) -> None:
        self._searcher = query.searcher
        self._words = words
        self._weights = query.highlighting
        self._chains = self._weights.chains[:_LANGUAGES]
        self._identifiers = query_identifiers(words.text) if words.identifiers else []
        self._grams = query_grams(words.text)
        self._apart = compound_words(words.text)

    def scores(self, passages: Sequence[str]) -> tuple[float, ...]:
        """Aligned with the passages; comparable with each other alone."""
        scores = self._rough_scores(passages)
        analysed, length = list[int](), 0
        for at in sorted(range(len(passages)), key=lambda at: -scores[at]):
            if scores[at] or self._words.typos is not None or not passages[at].isascii():
                length += len(passages[at])
                if length > ANALYSED_LENGTH / len(self._chains):
                    break
                analysed.append(at)
        texts = [passages[at] for at in analysed]
        by_chain = [self._bm25(chain, texts, len(passages)) for chain in self._chains]
        for at, *exact in zip(analysed, *by_chain, strict=True):
            scores[at] = max(exact)
        return tuple(scores)

    def _rough_scores(self, passages: Sequence[str]) -> list[float]:
        """The idf of the rarest words that a passage holds as written, or their stems: BM25 of one occurrence each.

        In ASCII a passage without any of them has none of their terms; elsewhere letters have several spellings.
        """
        words: dict[str, float] = {}
        stems: dict[str, str] = {}
        synonyms: dict[str, float] = {}
        for chain in self._chains:
            tokens = chain.query_tokens(self._words.text)
            weights = self._weights.weigh(chain, {token.term for token in tokens})
            for token in tokens:
                word = self._words.text[token.start : token.end].casefold()
                stem = token.term.removeprefix(chain.tag)
                # All but the last letter, for "batteries" has the stem "batteri", and "battery" too.
                stems[word] = stem[:-1] if len(stem) > _LEAST_STEM else stem
                words[word] = max(words.get(word, 0.0), weights.get(token.term, 0.0))
            also = self._weights.weigh(chain, self._weights.synonyms.get(chain.code, frozenset()))
            synonyms |= {term.removeprefix(chain.tag): weight for term, weight in also.items()}
        rarest = sorted(words, key=lambda word: -words[word])[:_LITERALS]
        sought = {literal: words[word] for word in rarest for literal in (word, stems[word])}
        sought |= dict(sorted(synonyms.items(), key=lambda one: -one[1])[:_LITERALS])
        sought |= dict.fromkeys(self._grams[:_LITERALS], 1.0)
        sought |= {max(parts, key=len).casefold(): 1.0 for parts in self._apart}
        verbatim = (*(one.text for one in self._identifiers), *self._words.required, *self._words.quoted)
        sought |= dict.fromkeys(map(str.casefold, verbatim[:_LITERALS]), sum(words.values()))

        def score(text: str) -> float:
            return sum(weight for word, weight in sought.items() if word in text)

        return [score(text) or score(without_signs(text)) for text in map(str.casefold, passages)]

    def _bm25(self, chain: LanguageAnalyzer, texts: Sequence[str], passages: int) -> list[float]:
        """Of texts that are the only ones with such words among so many passages."""
        terms = [list(chained(*chain.sequences(text))) for text in texts]
        if self._grams:
            terms = [[*own, *(gram for _, gram in run_grams(text))] for own, text in zip(terms, texts, strict=True)]
        phrases = [
            *(one.text for one in self._identifiers),
            *map(" ".join, self._apart),
            *self._words.required,
            *self._words.quoted,
        ]
        sought, counted = self._weights.searched(chain), terms
        if sought is not None:  # of what else the passages have only the number counts
            sought = sought.union(*map(chain.terms, phrases))
            counted = [list(filter(sought.__contains__, own)) for own in terms]
        held = [set(own) for own in counted]
        in_index = self._weights.weigh(chain, set[str]().union(*held))
        weights = {
            term: weight + idf(passages, sum(term in own for own in held)) for term, weight in sorted(in_index.items())
        }
        average = sum(map(len, terms)) / max(1, len(terms))

        def bm25(length: int, own: Sequence[str], distinct: set[str]) -> float:
            norm = K1 * (1 - B + B * length / average) if average else K1
            counts = {term: own.count(term) for term in weights if term in distinct}
            return sum(weights[term] * SATURATION * count / (count + norm) for term, count in counts.items())

        def holders(phrase: str) -> list[int]:
            parts = chain.terms(phrase)
            candidates = [at for at, own in enumerate(held) if parts and own.issuperset(parts)]
            return [at for at in candidates if _contains(terms[at], parts)]

        scores = list(map(bm25, map(len, terms), counted, held))
        for one in self._identifiers:
            whole = [at for at, text in enumerate(texts) if _holds(text, one)]
            parts = sum(weights.get(part, 0.0) for part in chain.terms(one.text))
            rareness = idf(self._searcher.num_docs, self._searcher.doc_freq("identifier", one.form))
            for at in holders(one.text):
                scores[at] += PHRASE * parts
            for at in whole:  # more than any near miss has by repeating the parts
                scores[at] += WHOLE * (rareness + idf(passages, len(whole)) + SATURATION * parts)
        for apart in self._apart:
            for at in holders(" ".join(apart)):
                scores[at] += PHRASE * idf(passages, 0)
        best = max(scores, default=0.0) or 1.0
        for phrase in (*self._words.required, *self._words.quoted):
            for at in holders(phrase):
                scores[at] += _DEMANDED * best
        return scores


def _contains(terms: Sequence[str], phrase: Sequence[str]) -> bool:
    starts = (at for at, term in enumerate(terms) if term == phrase[0])
    return any(terms[at : at + len(phrase)] == phrase for at in starts)


def _holds(text: str, identifier: Identifier) -> bool:
    if identifier.form.startswith("#"):
        return any(one.form == identifier.form for one in long_numbers(text))
    return identifier.form.casefold() in unify(text).casefold() and identifier.form in index_terms(text)
