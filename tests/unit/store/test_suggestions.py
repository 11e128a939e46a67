"""Suggestions of Tantivy's index: languages, typos, words that occur together, titles, deletion."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.change_feed import Change, Position
from service.core.ids import DocumentId
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.index import LexicalIndex
from service.store.lexical.indexer import Indexer
from service.store.lexical.suggestions import last_word, title_entry, word_entries
from tests.feed import stored_document

DOCUMENTS = {
    "a": ("Quantum entanglement, explained", "quantum entanglement of photons"),
    "b": ("", "quantum entropy, and entertainment"),
    "c": ("The Café of Straßburg", "entertainment for all people, and naïve ones"),
    "d": ("北京大学的历史", "東京都の人口とコンピューター"),
    "e": ("สวัสดีชาวโลก", "대한민국은 서울"),
    "f": ("", "entertainment; Αθήνα, हिन्दी, ёлка, Việt"),
}
Write = Callable[..., LexicalIndex]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(documents: dict[str, tuple[str, str] | None], language: str = "en") -> LexicalIndex:
        indexer = Indexer(tmp_path / "index", analyzer_for(language))
        at = indexer.position.xid
        for number, (name, content) in enumerate(documents.items(), at + 1):
            document = None if content is None else stored_document(name, content[1], title=content[0])
            position = Position(xid=number, document_id=DocumentId(name))
            indexer.apply([Change(position=position, document_id=DocumentId(name), document=document)])
        indexer.commit(caught_up=True)
        indexer.release_writer()
        return LexicalIndex(indexer.path, analyzer_for(language))

    return write


def texts(index: LexicalIndex, typed: str, k: int = 8, within: Sequence[str] | None = None) -> list[str]:
    ids = None if within is None else list(map(DocumentId, within))
    return [one.text for one in index.suggest(typed, k, ids)]


@pytest.mark.parametrize("language", ["en", "de", "auto"])
def test_words_are_completed_as_they_are_written(write: Write, language: str) -> None:
    index = write(DOCUMENTS, language)
    assert texts(index, "ent")[:2] == ["entertainment", "entanglement"]
    assert [one.documents for one in index.suggest("ent", 3, None)] == [3, 1, 1]
    for typed, word in (
        ("caf", "café"),
        ("CAFÉ", "café"),
        ("strassb", "straßburg"),
        ("straßb", "straßburg"),
        ("nai", "naïve"),
        ("αθη", "αθήνα"),
        ("हिन", "हिन्दी"),
        ("ёл", "ёлка"),
        ("vie", "việt"),
        ("대한", "대한민국은"),
        ("東", "東京都"),
        ("コン", "コンピューター"),
    ):
        assert texts(index, typed)[:1] == [word], typed


def test_the_other_words_count(write: Write) -> None:
    index = write(DOCUMENTS)
    assert set(texts(index, "quantum ent")) > {"quantum entanglement", "quantum entropy", "quantum entertainment"}
    assert texts(index, "Photons, ent") == ["Photons, entanglement"]
    assert texts(index, "photon ent") == ["photon entanglement"]  # by its stem
    assert texts(index, "photons naï") == []
    assert len(texts(index, "zzzz ent")) == 3  # a word that nobody has tells nothing


def test_typos_are_forgiven_where_nothing_begins_like_it(write: Write) -> None:
    index = write(DOCUMENTS)
    assert texts(index, "entetr") == ["entertainment"]
    assert texts(index, "quantum entnagl") == ["quantum entanglement"]
    assert texts(index, "entet", 1) == texts(index, "enterta", 1) == ["entertainment"]
    assert texts(index, "enx") == texts(index, "12345") == []


def test_titles_are_completed_in_every_script(write: Write) -> None:
    index = write(DOCUMENTS)
    assert texts(index, "quantum enta") == ["quantum entanglement", "Quantum entanglement, explained"]
    assert texts(index, "the  cafe OF") == ["The Café of Straßburg"]
    assert texts(index, "北京") == ["北京大学的历史"]
    assert texts(index, "สวัส") == ["สวัสดีชาวโลก"]
    many = write({f"t{n}": (f"Quantum title {n}", "quantum") for n in range(20)})
    assert len(texts(many, "quantum", 6)) == 6
    assert texts(many, "quantum", 6)[0] == "quantum"


def test_stop_words_blanks_and_signs_complete_nothing(write: Write) -> None:
    index = write({"a": ("", "the theory of this")})
    assert texts(index, "th") == ["theory"]
    assert [texts(index, typed) for typed in ("theory ", "...", "theory -", "\x00", '"', "🦊")] == [[]] * 6


def test_deleted_words_vanish_at_once(write: Write) -> None:
    write({**DOCUMENTS, "z": ("Zyzzogeton", "zyzzogeton")})
    assert texts(write({}), "zyzz") == ["zyzzogeton"]
    assert texts(write({"z": ("", "other")}), "zyzz") == []
    assert texts(write({"b": None, "f": None}), "entr") == ["entertainment", "entanglement"]  # by a typo


@pytest.mark.parametrize("within", [["c"], ["b", "c"], ["unknown"], [f"x{n}" for n in range(50)]])
def test_within_ids_nothing_tells_of_other_documents(write: Write, within: list[str]) -> None:
    """What is suggested is the same as if there were no others, whatever words these have."""
    tenants = {f"x{n}": (f"Title {n}", f"entry{n} of entertainment number {n}") for n in range(50)}
    everything = DOCUMENTS | tenants
    index = write(everything)
    typed = ("e", "ent", "entry", "quantum ent", "photons ent", "titl", "entetr", "secret ent", "number ent")
    together = [{(one.text, one.documents) for one in index.suggest(one, 50, within)} for one in typed]  # type: ignore[arg-type]
    alone = write({name: everything[name] if name in within else None for name in everything})
    assert together == [{(one.text, one.documents) for one in alone.suggest(one, 50, within)} for one in typed]  # type: ignore[arg-type]


@given(st.text())
def test_any_text_has_entries_without_line_breaks_and_a_last_word(text: str) -> None:
    entries = [*word_entries(text), title_entry(text)]
    assert all("\n" not in entry and entry.count("\t") <= 1 for entry in entries)
    assert 0 <= last_word(text) <= len(text)
