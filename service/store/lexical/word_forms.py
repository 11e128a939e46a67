"""The forms of a word in documents of undetermined language, whose words are indexed as they are.

A title of three words may be in any language. It is therefore the query that decides: in the language in which it is
read, all words with the same stem are one word. A stem begins as its words do, so these are neighbours in the sorted
dictionary of the index.
"""

from collections.abc import Mapping

import tantivy

from service.store.lexical.analyzer import LanguageAnalyzer, untagged

_LIMIT = 128
"""Terms of one query whose forms are looked up, at 0.1 to 1 ms each in large collections."""


class WordForms:
    """As one searcher sees them. `unstemmed`: the analysis of documents of undetermined language."""

    def __init__(self, searcher: tantivy.Searcher, unstemmed: LanguageAnalyzer) -> None:
        self._searcher = searcher
        self._unstemmed = unstemmed
        self._found: dict[str, Mapping[str, int]] = {}

    def of(self, chain: LanguageAnalyzer, term: str, word: str) -> Mapping[str, int]:
        """The forms of a word with this term of the chain, itself included, each with the number of its documents."""
        if chain is self._unstemmed or not term.startswith(chain.tag):
            return {}
        if term not in self._found:
            words = self._unstemmed.terms_of_word(word)[:1]
            others = self._others(chain, *words) if words and chain.stemmed and len(self._found) < _LIMIT else {}
            self._found[term] = {one: self._searcher.doc_freq("body", one) for one in words} | others
        return self._found[term]

    def _others(self, chain: LanguageAnalyzer, word: str) -> dict[str, int]:
        """Accents are removed from what is compared, for the stemmer reads them, and not all writers write them."""

        def stem(unstemmed: str) -> str:
            return next(iter(chain.terms_of_word(untagged(unstemmed))), "")

        searched = stem(word)
        # Some stems differ from some words in their last letter: batteries and battery have the stem batteri.
        near = untagged(searched)[: max(3, len(untagged(searched)) - 1)]
        neighbours = self._searcher.terms_with_prefix("body", f"{self._unstemmed.tag}{near}")
        return {form: count for form, count in neighbours if stem(form) == searched}
