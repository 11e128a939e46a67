"""Suggestions as you type: completions of the word that is being typed, and titles that begin with what was typed.

Two fields of the index hold words and titles as they are written, each after its key: without case and accents, and not
folded as for searches, which may change a letter by the one that follows. So what begins alike lies together in the
sorted dictionary. Of the completions, documents are counted that exist, pass the filter and have the other words of the
input; what none of them has is not suggested.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import regex
import tantivy
from rapidfuzz import process
from rapidfuzz.distance import OSA

from service.core.ids import DocumentId
from service.core.query_syntax import TypoTolerance
from service.core.search import Suggestion
from service.store.lexical.folding import unify
from service.store.lexical.query import LexicalQuery, Must, Should

_LONGEST_TITLE, _LONGEST_WORD, _LONGEST_RUN = 100, 40, 8
"""Characters, the last of a run of Chinese ones: mostly a word in Japanese, a word or a short phrase in Chinese."""
_COUNTED, _SIMILAR = 100, 40
"""Completions of which documents are counted, the most frequent ones; and similar words, the nearest ones."""
_AT_ONCE = 20
"""Words that one search counts within a filter: a score has room for 24 bits."""
_SHORTEST_TITLE_KEY = 3
"""In bytes: one Chinese character, three Latin letters."""

_ACCENTS = regex.compile(r"(?<=[\p{Latin}\p{Greek}\p{Arabic}\p{Hebrew}]\p{M}*)\p{M}")
_UNCUT = r"\p{Han}\p{Katakana}\p{Hangul}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORDS = regex.compile(
    rf"(?V1)\p{{Han}}+|\p{{Hangul}}+|[\p{{Katakana}}ー]+"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNCUT}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_UNCUT}]]*"
)
"""Each in one script. Of Thai and the like there are none, for nothing tells them apart."""
_SIMPLE_WORDS, _NOT_SIMPLE = re.compile(r"[^\W_]+"), regex.compile(rf"(?V1)[\p{{M}}{_UNCUT}]")
"""The same words, found three times as fast, and where they are not."""
_HAN = regex.compile(r"\p{Han}")


@lru_cache(2**16)
def _key(text: str) -> str:
    text = " ".join(text.casefold().split())
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", unify(text).casefold())))


def _entry(text: str) -> str:
    key = _key(text)
    return text if key == text else f"{key}\t{text}"


def _written(entry: str) -> str:
    return entry.rpartition("\t")[2]


def word_entries(text: str) -> set[str]:
    """What the index holds of the words of a document."""
    text = text.lower() if text.isascii() else unify(text).lower()
    words = _SIMPLE_WORDS if text.isascii() or not _NOT_SIMPLE.search(text) else _WORDS
    found = (one for one in set(words.findall(text)) if 1 < len(one) <= _LONGEST_WORD)
    return {one if one.isascii() else _entry(one) for one in found if len(one) <= _LONGEST_RUN or not _HAN.match(one)}


def title_entry(title: str) -> str:
    """Empty where the title is not suggested."""
    title = " ".join(title.split())
    return _entry(title) if len(title) <= _LONGEST_TITLE else ""


def last_word(text: str) -> int:
    """Where the word that is being typed begins; the end of the text where there is none."""
    return next((one.start() for one in _WORDS.finditer(text) if one.end() == len(text)), len(text))


class Suggester:
    """`others`: the words of the input before the last. `within`: only these documents count."""

    def __init__(self, others: LexicalQuery, schema: tantivy.Schema, within: Sequence[DocumentId] | None) -> None:
        self._others = others
        # Within ids nothing must tell whether other documents have a word.
        self._all_others = others.all_words(known=within is None)
        self._searcher = others.searcher
        self._schema = schema
        self._within = within

    def suggest(self, text: str, k: int) -> list[Suggestion]:
        """Up to `k`: words by the number of their documents, then titles, which have a part of the places."""
        start = last_word(text)
        words = self._words(_key(text[start:]), k) if start < len(text) else []
        typed = _key(text)
        long_enough = len(typed.encode()) >= _SHORTEST_TITLE_KEY
        titles = self._frequent("title", self._searcher.terms_with_prefix("title", typed), k) if long_enough else []
        kept = words[: max(k - len(titles), (k + 1) // 2)]
        suggestions = [Suggestion(text=text[:start] + word, kind="word", documents=count) for word, count in kept]
        same = {one.text.casefold() for one in suggestions}
        others = [(title, count) for title, count in titles if title.casefold() not in same]
        suggestions += [Suggestion(text=title, kind="title", documents=count) for title, count in others]
        return suggestions[:k]

    def _words(self, key: str, k: int) -> list[tuple[str, int]]:
        """Words that begin with the key or, where there are none, with a similar one: fewest edits first."""
        found = self._frequent("word", self._searcher.terms_with_prefix("word", key), k)
        for similar in [] if found else self._similar(key):
            found += self._frequent("word", similar, k)
        return found[:k]

    def _similar(self, key: str) -> Iterator[list[tuple[str, int]]]:
        """Words whose beginning is one edit away from the key, then two; its first letter is right."""
        edits, distances = TypoTolerance().max_edits_for(key), dict[int, float]()
        entries = self._searcher.terms_with_prefix("word", key[0]) if edits else []
        for length in range(len(key) - 1, len(key) + 2):
            starts = [entry.partition("\t")[0][:length] for entry, _ in entries]
            for _, distance, at in process.extract(key, starts, scorer=OSA.distance, score_cutoff=edits, limit=None):
                distances[at] = min(distance, distances.get(at, distance))
        for edit in range(1, edits + 1):
            yield [entries[at] for at, distance in distances.items() if distance == edit][:_SIMILAR]

    def _frequent(self, field: str, entries: Sequence[tuple[str, int]], k: int) -> list[tuple[str, int]]:
        """The `k` with the most documents; the dictionary counts deleted ones too, so none has more than it says.

        Within ids, `k` of the words that are the most frequent everywhere: each search for others takes milliseconds.
        """
        ranked = sorted(entries, key=lambda one: (-one[1], one[0]))[:_COUNTED]
        if field == "word":
            ranked = [one for one in ranked if not self._others.is_stop_word(_written(one[0]))]
        found = Counter[str]()
        step = 1 if self._within is None else _AT_ONCE
        for at in range(0, len(ranked), step):
            best = found.most_common(k)
            if len(best) == k and (best[-1][1] >= ranked[at][1] or self._within is not None):
                break
            found += self._count(field, [entry for entry, _ in ranked[at : at + step]])
        return [(_written(entry), count) for entry, count in found.most_common(k)]

    def _count(self, field: str, entries: Sequence[str]) -> Counter[str]:
        """The documents of each entry: of one or, within ids, of several at once, each a bit of the score."""
        must = [*self._all_others] if field == "word" else []
        terms = [tantivy.Query.term_query(self._schema, field, entry, "basic") for entry in entries]
        if self._within is None:
            query = tantivy.Query.boolean_query([*must, (Must, terms[0])])
            count: int = self._searcher.search(query, 1, count=True).count  # type: ignore[attr-defined]
            return Counter({entries[0]: count})
        ids = tantivy.Query.term_set_query(self._schema, "document_id", list(self._within))
        bits = [(Should, tantivy.Query.const_score_query(term, float(1 << at))) for at, term in enumerate(terms)]
        must += [(Must, tantivy.Query.const_score_query(ids, 0.0)), (Must, tantivy.Query.boolean_query(bits))]
        hits = self._searcher.search(tantivy.Query.boolean_query(must), max(1, len(self._within)), count=False).hits
        scores = Counter(int(score) for score, _ in hits)
        return Counter(
            {entry: sum(n for score, n in scores.items() if score >> at & 1) for at, entry in enumerate(entries)}
        )
