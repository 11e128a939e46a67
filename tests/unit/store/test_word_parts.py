"""Parts of words, symbols, and substrings of very long runs."""

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.lexical.word_parts import joined_words, part_sequences, query_grams, run_grams, symbol_terms


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("parseXmlFile", "parse Xml File"),
        ("JSONDecoder", "JSON Decoder"),
        ("listURLsOf", "list URLs Of"),
        ("Python3", "Python 3"),
        ("utf8Reader", "utf 8 Reader"),
        ("НайтиЗаказ", "Найти Заказ"),
        ("βρεςΤιμή", "βρες Τιμή"),
        ("étéÎle", "été Île"),
        ("cafe\u0301Bar", "cafe\u0301 Bar"),
        ("खोज२", "खोज २"),
        ("word", ""),
        ("URLs", ""),
        ("NASA", ""),
        ("ЁЛКА", ""),
        ("9f8e7d6c5b4a39281706f5e4d3c2b1a0", ""),
        ("dGhpcyBpcyBhIHNlY3JldCBzdHJpbmc", ""),
        ("", ""),
    ],
)
def test_parts_of_a_word(word: str, parts: str) -> None:
    assert " ".join(word[start:end] for start, end in next(iter(part_sequences(word)), [])) == parts


def test_names_that_are_made_of_parts_are_parts_too() -> None:
    found = {"myGitLabToken"[start:end] for sequence in part_sequences("myGitLabToken") for start, end in sequence}
    assert {"GitLab", "Token"} <= found
    assert [start for start, _ in part_sequences("iPad12Mini")[1]] == [0, 4, 6], "borders at digits alone"


@given(st.text(st.sampled_from("abcXYZ019éÑжЖ_"), max_size=60))
def test_parts_follow_each_other_and_make_the_word(word: str) -> None:
    for first, *_ in filter(None, [part_sequences(word)]):
        assert "".join(word[start:end] for start, end in first) == word


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("Hi-Fi sound", ["HiFi"]),
        ("by e‑mail.", ["email"]),
        ("three.js, socket.io", ["threejs", "socketio"]),
        ("the U.K. and B&B's", ["UK", "BB"]),
        ("O’Connor’s rock'n'roll", ["OConnor", "rocknroll"]),
        ("l’arbre dell'opera Qu'elle", []),
        ("o'connor", ["oconnor"]),
        ("L'Oréal d'Estaing", ["LOréal", "dEstaing"]),
        ("Cote\u0301-d'Or", ["Cote\u0301dOr"]),
        ("п'ять об’єднання", ["пять", "обєднання"]),
        ("max_value __init__ _private", ["maxvalue"]),
        ("3-4 v1.2 covid-19 10.0.0.1 a--b a.-b", []),
        ("1,000 of 12,345.67, 1.234.567,8 and 9'876", ["1000", "12345", "1234567", "9876"]),
        ("10\u00a0000 or 10\u202f000 000", ["10000", "10000"]),
        ("1,2,3 2024,123 1,0000 12,34,567 x1,000 1 000", []),
        ("東京-大阪", []),
        ("a-b-c-d-e-f", []),
        (f"{'long' * 12}-word", []),
        ("trailing- -leading 'quoted' end.", []),
        ("", []),
    ],
)
def test_words_without_their_signs(text: str, joined: list[str]) -> None:
    found = list(joined_words(text))
    assert [word for _, word in found] == joined
    assert [re.sub(r"[-‑.&'’_,\u00a0\u202f]", "", text[slice(*place)]) for place, _ in found] == joined


@given(st.text(st.sampled_from("abX901é_-.,&'’ \u0301東"), max_size=60))
def test_places_of_words_without_their_signs_do_not_overlap(text: str) -> None:
    places = sorted(place for place, _ in joined_words(text))
    assert all(end <= start for (_, end), (start, _) in pairwise(places))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a 🐢 swims", ["🐢"]),
        ("ok👌🏿ok", ["👌🏿", "👌"]),
        ("👨‍🚒", ["👨‍🚒", "👨", "🚒"]),
        ("👩🏽‍🔬", ["👩🏽‍🔬", "👩‍🔬", "👩", "🔬"]),
        ("☎️ ☎", ["☎"]),
        ("🇯🇵🇧🇷", ["🇯🇵", "🇧🇷"]),
        ("#️⃣", ["#⃣"]),
        ("Acme® ★★★ 7€", ["®", "★", "€"]),
        ("─│ ⠿ $5 + \ufffd word", []),
    ],
)
def test_symbols_of_a_text(text: str, terms: list[str]) -> None:
    assert symbol_terms(text) == terms


@given(st.text("ACGT", min_size=65, max_size=400), st.data())
def test_a_run_and_any_long_substring_of_it_have_a_gram_in_common(run: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(47, len(run)))
    start = data.draw(st.integers(0, len(run) - length))
    document = {gram for _, gram in run_grams(f"see {run}, please")}
    assert document.intersection(query_grams(run[start : start + length]))
    assert document.intersection(query_grams(run[: data.draw(st.integers(16, len(run)))]))
    assert set(query_grams(run)) <= document


def test_a_run_has_a_bounded_number_of_grams_and_a_word_or_a_sentence_without_spaces_none() -> None:
    run = "".join(random.Random(1).choices("abcdefgh", k=1_000_000))
    assert len(list(run_grams(run))) < 3_000
    assert len(query_grams(run)) <= 64
    assert not list(run_grams("a" * 64 + " " + "東京" * 100 + "ภาษา" * 50))
