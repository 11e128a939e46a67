"""Synonyms of a collection: what they find, how they rank, and that no index is built for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.core.collections import Collection, SynonymRule
from service.core.query_syntax import ParsedQuery, parse_query
from tests.contract.test_lexicon import Subject, following_lexicon, ids

RULES = (
    SynonymRule(words=("car", "automobile")),
    SynonymRule(words=("tv",), to=("television",)),
    SynonymRule(words=("EV", "electric vehicle")),
    SynonymRule(words=("Wagen",), to=("Personenkraftwagen",)),
    SynonymRule(words=("汽车",), to=("轿车",)),
    SynonymRule(words=("รถยนต์",), to=("ยานพาหนะ",)),
)
DOCUMENTS = {
    "car": "the car that stands in the street",
    "automobile": "an automobile stands here in a street",
    "phrase": "one more vehicle of the city is an electric vehicle",
    "apart": "an electric bicycle beside some other vehicle",
    "short": "where each EV is charged",
    "tv": "the tv is on in the living room of the house",
    "television": "the television is off in the kitchen of the house",
    "wagen": "Die Personenkraftwagen stehen auf der Straße",
    "chinese": "这是一辆红色的轿车",
    "thai": "ยานพาหนะสีแดง",
}


def with_synonyms(subject: Subject, *rules: SynonymRule) -> Collection:
    return replace(subject.papers, settings=replace(subject.papers.settings, synonyms=rules))


async def found(subject: Subject, collection: Collection, text: str) -> list[str]:
    return ids(await subject.lexicon.search(collection, parse_query(text), 10))


@pytest.mark.parametrize("language", ["en", "de", "zh", "auto"])
async def test_each_finds_what_it_stands_for_below_what_was_typed(tmp_path: Path, language: str) -> None:
    async with following_lexicon(tmp_path, language) as subject:
        await subject.write(*DOCUMENTS.items())
        papers = with_synonyms(subject, *RULES)
        assert await found(subject, papers, "car") == ["car", "automobile"]
        assert await found(subject, papers, "tv") == ["tv", "television"]
        assert await found(subject, papers, "television") == ["television"]
        assert await found(subject, papers, "EV") == ["short", "phrase"]  # a phrase is one, not its words apart
        assert "short" in await found(subject, papers, "an electric vehicle")
        assert await found(subject, papers, "Wagen") == ["wagen"]
        assert await found(subject, papers, "汽车") == ["chinese"]
        assert await found(subject, papers, "รถยนต์") == ["thai"]


async def test_they_change_with_the_settings_alone(tmp_path: Path) -> None:
    async with following_lexicon(tmp_path) as subject:
        await subject.write(*DOCUMENTS.items())
        before = await subject.lexicon.search(subject.papers, parse_query("car"), 10)
        assert ids(before) == ["car"]
        assert await found(subject, with_synonyms(subject, *RULES), "car") == ["car", "automobile"]
        assert await subject.lexicon.search(subject.papers, parse_query("car"), 10) == before


async def test_wishes_stay_literal_and_the_truth_of_bm25_knows_none(tmp_path: Path) -> None:
    async with following_lexicon(tmp_path) as subject:
        await subject.write(*DOCUMENTS.items())
        papers = with_synonyms(subject, *RULES)
        assert await found(subject, papers, "+car street") == ["car"]
        assert await found(subject, papers, '"automobile" street') == ["automobile"]
        assert "automobile" not in await found(subject, papers, "car -automobile")
        assert ids(await subject.lexicon.search(papers, ParsedQuery(text="car", identifiers=False), 10)) == ["car"]


async def test_no_score_exceeds_what_the_words_could_have(tmp_path: Path) -> None:
    async with following_lexicon(tmp_path) as subject:
        await subject.write(("rare", "automobile " * 50), *((f"d{n}", f"car number {n}") for n in range(50)))
        papers = with_synonyms(subject, *RULES)
        hits = await subject.lexicon.search(papers, parse_query("car"), 100)
        assert len(hits) == 51
        assert hits[0].score <= await subject.lexicon.max_score(papers, parse_query("car"))


async def test_passages_and_highlights_know_them(tmp_path: Path) -> None:
    async with following_lexicon(tmp_path) as subject:
        await subject.write(*DOCUMENTS.items())
        papers = with_synonyms(subject, *RULES)
        passages = ["nothing of it", "An Automobile stands here", "a car"]
        scores = await subject.lexicon.score_passages(papers, parse_query("car"), passages)
        assert scores[0] == 0.0 < scores[1]
        none, synonym, typed = await subject.lexicon.highlight(papers, parse_query("car"), passages)
        assert (none.synonyms, synonym.synonyms, typed.synonyms) == ((), ("Automobile",), ())
        assert synonym.fragments == ("An <mark>Automobile</mark> stands here",)
