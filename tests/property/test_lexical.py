"""Laws of the lexical leg: any text is a query, any passage can be shown."""

import asyncio
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.domain import DocumentId, Position
from service.store.analyzer import LANGUAGES, Analyzer, analyzer_for, normalised
from service.store.highlights import marked
from service.store.indexer import Indexer
from service.store.lexical_index import TERMS_LIMIT, LexicalIndex
from tests.feed import NOW, FileFeed, collection

TEXTS = ["a heron stood in the reeds", "list.sort(key=None)", "naïve café", "שלום עולם", "東京都 🙂", "to be or not"]

# Surrogates included: JSON can carry them. Words of the corpus, so that queries also match.
any_text = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(st.sampled_from([*" ".join(TEXTS).split(), '"', "AND", "+", "-", "body:", "*", "\x00"])).map(" ".join),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LexicalIndex]:
    folder: Path = tmp_path_factory.mktemp("lexical")
    feed = FileFeed(folder / "feed", collection())
    feed.write(*((f"d{n}", text) for n, text in enumerate(TEXTS)))
    page = asyncio.run(feed.after(feed.collections[0].id, Position(), 100, NOW))
    indexer = Indexer(folder / uuid4().hex, analyzer_for("en"))
    indexer.apply(page.changes)
    indexer.commit(caught_up=True)
    yield LexicalIndex(indexer.path, analyzer_for("en"))
    indexer.rest()


@given(any_text)
@example("heron " * 20_000)
@example("".join(map(chr, range(0x3000))))
@example('"heron" AND (body:reeds OR -x^2)~ * ? [a TO b]')
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(index: LexicalIndex, text: str) -> None:
    matches = index.search(text, 10, None)
    assert len({name for name, _, _ in matches}) == len(matches) <= len(TEXTS)
    assert all(score > 0 for _, _, score in matches)
    assert matches == sorted(matches, key=lambda match: (-match[2], match[0]))


@given(any_text, st.sets(st.integers(0, len(TEXTS) + 2)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_within_is_the_same_ranking_with_fewer_documents(index: LexicalIndex, text: str, chosen: set[int]) -> None:
    names = {DocumentId(f"d{n}") for n in chosen}
    whole = [match for match in index.search(text, 10, None) if match[0] in names]
    expected: list[tuple[DocumentId, int, Any]] = [(n, r, pytest.approx(s, abs=2e-4)) for n, r, s in whole]
    assert index.search(text, 10, sorted(names)) == expected


@given(any_text, any_text)
@example("heron", "<script>heron</script> & heron's")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_highlights_are_safe_html_of_the_passage(index: LexicalIndex, query: str, passage: str) -> None:
    ((*fragments,),) = index.highlight(query, [passage])
    for fragment in fragments:
        bare = re.sub("</?mark>", "", fragment)
        assert "<mark>" in fragment
        assert not set("<>\"'") & set(bare)
        assert html.unescape(bare) in normalised(passage)


@given(st.text(max_size=50), st.data())
def test_marks_change_nothing_but_add_themselves(fragment: str, data: st.DataObject) -> None:
    borders = [len(fragment[:n].encode()) for n in range(len(fragment) + 1)]
    pairs = st.tuples(st.sampled_from(borders), st.sampled_from(borders))
    spans = data.draw(st.lists(pairs.map(lambda pair: (min(pair), max(pair)))))
    shown = marked(fragment, spans)
    assert html.unescape(re.sub("</?mark>", "", shown)) == fragment
    assert not re.search("<mark>[^/]*<mark>", shown)


@given(any_text, st.sampled_from([*LANGUAGES, "xx"]))
@settings(deadline=None)
def test_a_document_is_found_by_its_own_text(text: str, language: str) -> None:
    words: Analyzer = analyzer_for(language)
    assert set(words.query_terms(text)) <= set(words.document_terms(text))


def test_of_very_many_terms_the_rarest_are_looked_for(index: LexicalIndex) -> None:
    nonsense = " ".join(f"nonsense{n}" for n in range(3 * TERMS_LIMIT))
    assert [name for name, _, _ in index.search(f"{nonsense} heron", 10, None)] == ["d0"]
