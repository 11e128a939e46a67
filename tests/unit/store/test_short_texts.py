"""With `auto`, a title of a few words is found by other forms of its words, though its language is uncertain."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from service.core.query_syntax import parse_query
from service.store.lexical.index import LexicalIndex
from service.store.lexical.language_detection import detect_language
from service.store.lexical.languages import AUTO
from service.store.lexical.query import LexicalQuery
from tests.feed import index_of

TITLES = {
    "Office chair leather": ["office chairs", "leather chairs", "+chairs", "THE LEATHERS"],
    "Solar panel 100W": ["solar panels", "panels ۱۰۰w"],
    "ＯＦＦＩＣＥ ＬＡＭＰ": ["lamps", "ｌａｍｐｓ"],
    "Battery charger": ["batteries", "chargers"],
    "Winterhandschuh Wolle": ["Winterhandschuhe"],
    "Gartenschlauch": ["Gartenschläuche", "Schlauch"],
    "Rotes Kleid": ["rote Kleider"],
    "Chaussure de course": ["chaussures", "les chaussures de course"],
    "Souris sans fil": ["souris sans fils"],
    "Silla de oficina": ["sillas de oficina"],
    "Vestido rojo": ["vestidos rojos"],
    "Sedia da ufficio": ["sedie"],
    "Tênis de corrida": ["corridas"],
    "Красное платье": ["красные платья"],
    "Кофеварка": ["кофеварки"],
    "Güneş paneli": ["güneş panelleri"],
    "مدرسة خاصة": ["المدرسه", "المدرسة"],
    "الكتاب الجديد": ["كتاب"],
}


def of_texts(folder: Path, texts: Iterable[str]) -> LexicalIndex:
    return index_of(folder, {text: text for text in texts}, AUTO)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    return of_texts(tmp_path_factory.mktemp("titles"), TITLES)


def found(index: LexicalIndex, query: str) -> list[str]:
    return [match.document_id for match in index.search(parse_query(query), 10, None)]


@pytest.mark.parametrize(("query", "title"), [(query, title) for title, asked in TITLES.items() for query in asked])
def test_another_form_of_a_word_finds_the_title(index: LexicalIndex, query: str, title: str) -> None:
    words = parse_query(query)
    best = index.search(words, 10, None)[0]
    assert best.document_id == title
    assert best.score <= index.evaluate(words, LexicalQuery.max_score)
    assert index.evaluate(words, LexicalQuery.document_frequencies)[0] > 0
    assert index.highlight(words, [title])[0].spans


def test_the_order_of_documents_changes_nothing(index: LexicalIndex, tmp_path: Path) -> None:
    other = of_texts(tmp_path, list(TITLES)[::-1])
    for query in (query for asked in TITLES.values() for query in asked):
        assert found(other, query) == found(index, query)


def test_stop_words_of_a_query_are_not_searched_in_titles(index: LexicalIndex) -> None:
    """`de` occurs in several."""
    assert found(index, "les chaussures de sport") == ["Chaussure de course"]


def test_a_single_word_is_read_in_the_language_of_most_documents(tmp_path: Path) -> None:
    texts = [f"The {word} of this shop are shown on page {n} of the catalogue." for n, word in enumerate("abcdefgh")]
    german = "Die Küchenmesser stehen alle auf der letzten Seite."
    both = of_texts(tmp_path, [*texts, "Kitchen towel", german])
    assert found(both, "towels") == ["Kitchen towel"]
    assert found(both, "Küchenmessern") == [german]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Office chair leather", "und-"),
        ("Solar panel", "und-"),
        ("Ｔｈｅ ｃｈａｉｒｓ ａｒｅ ｍａｄｅ ｏｆ ｌｅａｔｈｅｒ", "en"),
        ("Kırmızı elbise", "tr"),
        ("Krzesło biurowe", "pl"),
        ("オフィスチェア", "ja"),
    ],
)
def test_only_strong_evidence_decides_the_language_of_a_short_text(text: str, language: str) -> None:
    assert detect_language(text).startswith(language)
