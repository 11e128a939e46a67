"""Laws of the lexical leg: any text is a query, any passage can be shown."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.core.ids import DocumentId
from service.core.query_syntax import ParsedQuery, Syntax, TypoTolerance, parse_query
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.folding import fold, unify
from service.store.lexical.highlights import as_html, merge_overlapping
from service.store.lexical.index import LexicalIndex
from service.store.lexical.languages import AUTO, KNOWN
from service.store.lexical.query import TERMS_LIMIT
from tests.feed import index_of

pytestmark = pytest.mark.slow

TEXTS = [
    "a heron stood in the reeds",
    "list.sort(sortKey=None)",
    "naïve café",
    "שלום עולם",
    "東京都 🙂",
    "to be or not",
]

# Surrogates included: JSON can carry them. Words of the corpus, so that queries also match.
any_text = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(st.sampled_from([*" ".join(TEXTS).split(), '"', "AND", "+", "-", "body:", "*", "\x00"])).map(" ".join),
)


@pytest.fixture(scope="module", params=["en", AUTO])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    return _index_of(TEXTS, request.param, tmp_path_factory)


def _index_of(texts: Sequence[str], language: str, folders: pytest.TempPathFactory) -> LexicalIndex:
    return index_of(folders.mktemp(language), {f"d{n}": text for n, text in enumerate(texts)}, language)


_INDEXES: dict[str, LexicalIndex] = {}
"""By language, each with a document in each script."""
syntaxes = st.sampled_from(["wishes", "plain"])
typos = st.sampled_from([None, TypoTolerance(), TypoTolerance(max_edits=1)])


@given(any_text, syntaxes, typos)
@example("heron " * 20_000, "wishes", None)
@example("".join(map(chr, range(0x3000))), "wishes", TypoTolerance())
@example('"heron" AND (body:reeds OR -x^2)~ * ? [a TO b]', "wishes", None)
@example('+heron -reeds "in the"', "wishes", None)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(index: LexicalIndex, text: str, syntax: Syntax, typos: TypoTolerance | None) -> None:
    words = parse_query(text, syntax, typos)
    matches = index.search(words, 10, None)
    found = [match.document_id for match in matches]
    assert len(set(found)) == len(matches) <= len(TEXTS)
    assert all(match.score > 0 for match in matches)
    assert matches == sorted(matches, key=lambda match: (-match.score, match.document_id))
    assert index.matching_constraints(words, found) == set(found), "what is found fulfils the constraints"


@given(any_text, st.sets(st.integers(0, len(TEXTS) + 2)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_within_is_the_same_ranking_with_fewer_documents(index: LexicalIndex, text: str, chosen: set[int]) -> None:
    names = {DocumentId(f"d{n}") for n in chosen}
    whole = [match for match in index.search(parse_query(text), 10, None) if match.document_id in names]
    expected: list[Any] = [match._replace(score=cast(Any, pytest.approx(match.score, abs=2e-4))) for match in whole]
    assert index.search(parse_query(text), 10, sorted(names)) == expected


@given(st.sampled_from(TEXTS), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_constraints_hold(index: LexicalIndex, text: str, data: st.DataObject) -> None:
    """A phrase of a document finds it, even one of stop words; excluded, all others are found, and score as before."""
    first = data.draw(st.integers(0, len(text) - 1))
    phrase = text[first : data.draw(st.integers(first + 1, len(text)))].strip()
    everything = ParsedQuery(text=" ".join(TEXTS))
    scores, saying, others = (
        {match.document_id: match.score for match in index.search(words, 10, None)}
        for words in (everything, replace(everything, required=(phrase,)), replace(everything, excluded=(phrase,)))
    )
    if re.search(r"[^\W_]", phrase) and re.search(rf"\b{re.escape(phrase)}\b", text):
        assert f"d{TEXTS.index(text)}" in saying
        assert saying.keys().isdisjoint(others)
        assert scores.keys() <= saying.keys() | others.keys()
    assert all(score == pytest.approx(scores[name], abs=2e-4) for name, score in others.items())
    assert all(score >= scores.get(name, 0.0) - 2e-4 for name, score in saying.items())


@given(any_text, any_text, typos)
@example("heron", "<script>heron</script> & heron's", None)
@example("herno", "🙂 a heron", TypoTolerance())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_highlights_are_safe_html_of_the_passage(
    index: LexicalIndex, query: str, passage: str, typos: TypoTolerance | None
) -> None:
    (found,) = index.highlight(parse_query(query, typos=typos), [passage])
    for fragment in found.fragments:
        bare = re.sub("</?mark>", "", fragment)
        assert "<mark>" in fragment
        assert not set("<>\"'") & set(bare)
        assert html.unescape(bare) in passage.encode("utf-8", "replace").decode()
    assert bool(found.fragments) == bool(found.spans)
    assert all(0 <= start < end <= len(passage) for start, end in found.spans)
    assert list(found.spans) == merge_overlapping(found.spans), "in order, and apart"


@pytest.mark.slow
@given(any_text, any_text, st.sampled_from(sorted(KNOWN)))
@example("Häuser", "🙂 Zwei Ha\u0308user 🙂", "de")
@example("東京 水", "水道は東京の🙂東", "ja")
@example("ภาษาไทย", "🙂ภาษาไทยสวยงาม", "th")
@example("IŞIK", "🙂 ışıklar", "tr")
@example("wait 🙂", "asyncio.waitFor🙂", "en")
@example("waitFor", "wait_for it", "en")
@settings(max_examples=200, deadline=None)
def test_every_highlighted_place_says_a_word_of_the_query(
    tmp_path_factory: pytest.TempPathFactory, query: str, passage: str, language: str
) -> None:
    """In stemmed, folded and n-gram languages, with characters of any width: `text[start:end]` analysed is a term."""
    if language not in _INDEXES:
        _INDEXES[language] = _index_of([*TEXTS, "Zwei Häuser", "ภาษาไทย", "ışık", "水道"], language, tmp_path_factory)
    (found,) = _INDEXES[language].highlight(ParsedQuery(text=query), [passage])
    words = analyzer_for(language)
    chains = [words.chain(code) for code in (sorted(KNOWN - {AUTO}) if language == AUTO else [language])]
    for start, end in found.spans:
        marked = passage[start:end]
        assert any(set().union(*chain.sequences(marked)) & set().union(*chain.sequences(query)) for chain in chains)


@given(st.text(max_size=50), st.data())
def test_marks_change_nothing_but_add_themselves(fragment: str, data: st.DataObject) -> None:
    places = st.integers(0, len(fragment))
    pairs = st.tuples(places, places).map(lambda pair: (min(pair), max(pair)))
    shown = as_html(fragment, merge_overlapping(sorted(data.draw(st.lists(pairs)))))
    assert html.unescape(re.sub("</?mark>", "", shown)) == fragment
    assert not re.search("<mark>[^/]*<mark>", shown)


@given(any_text, st.sampled_from(sorted(KNOWN)))
@settings(deadline=None)
def test_a_document_is_found_by_its_own_text(text: str, language: str) -> None:
    words = analyzer_for(language)
    chain = words.chain(words.language_of(text))
    assert set(chain.query_terms(text)) <= set().union(*chain.sequences(text))


_DIGITS = [chr(zero) for zero in (0x660, 0x6F0, 0x966, 0x9E6, 0xC66, 0xE50, 0x1040, 0x17E0, 0xFF10)]
_LETTERS = st.sampled_from("aéñößłçœжйёїάςωאבשكةىأؤئگچہकनहिंदी्क़বাংதமிழ்ෆＡＢưệａ")
_words = st.text(_LETTERS, min_size=1, max_size=12)


def test_digits_that_python_does_not_know_yet_stay() -> None:
    assert unify("\u0663 \U000116d0") == "3 \U000116d0"


@given(any_text)
@example("ΐ\u0345")
@example("\u0958\u093c")
def test_folding_is_idempotent(text: str) -> None:
    for word in (text, *text.split()):
        assert fold(fold(word, {}), {}) == fold(word, {})
        assert unify(unify(word)) == unify(word)


@given(_words, st.integers(0, 10**12), st.sampled_from(_DIGITS), st.sampled_from(sorted(KNOWN - {AUTO, "tr"})))
@settings(deadline=None)  # the dictionary of German is read once
def test_a_word_meets_itself_in_every_spelling(word: str, number: int, zero: str, language: str) -> None:
    """Composed or decomposed, in any case, with the digits of any script, and whatever invisible is pasted into it."""
    terms = analyzer_for(language).chain(language).terms
    digits = "".join(chr(ord(zero) + int(digit)) for digit in str(number))
    assert terms(digits) == [str(number)]
    for same in (*(unicodedata.normalize(form, word) for form in ("NFC", "NFD", "NFKC")), word.upper(), word.lower()):
        assert terms(f"{same}{digits}") == terms(f"{word}{number}")
    for invisible in "\u200b\ufeff\u2060\u00ad\u200e":
        assert terms(invisible.join(f"{word}{digits}")) == terms(f"{word}{number}")


def test_of_very_many_terms_the_rarest_are_looked_for(index: LexicalIndex) -> None:
    nonsense = " ".join(f"nonsense{n}" for n in range(3 * TERMS_LIMIT))
    assert [match.document_id for match in index.search(ParsedQuery(text=f"{nonsense} heron"), 10, None)] == ["d0"]


@given(
    st.one_of(any_text, st.text("กาแฟ東京tokyoIdX \u0e48\u200b5", max_size=60)),
    st.sampled_from(["en", "th", "zh", "de"]),
)
@example("東京tokyoกาแฟgetUserById", "th")
@settings(deadline=None)
def test_terms_are_those_of_the_tokens_in_their_order(text: str, language: str) -> None:
    """Documents are indexed by their terms, and highlighted by tokens, all or those of a query alone."""
    chain = analyzer_for(language).chain(language)
    tokens = list(chain.tokens(text))
    assert chain.terms(text) == [token.term for token in tokens]
    within = list(chain.tokens(text, within=True))
    some = {token.term for token in within[::2]}
    assert list(chain.tokens(text, within=True, only=some)) == [token for token in within if token.term in some]
