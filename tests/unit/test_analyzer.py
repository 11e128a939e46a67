"""Which terms texts become, and when the version of an analyzer changes."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.store import analyzer
from service.store.analyzer import LANGUAGES, Analyzer, analyzer_for, normalised


@pytest.mark.parametrize(
    ("language", "document", "query"),
    [
        ("en", "He was running", "run"),
        ("en", "Two résumés", "resume"),
        ("en", "asyncio.wait_for(task)", "wait_for"),
        ("en", "list.sort(key=None)", "sort lists"),
        ("de", "die Häuser der Stadt", "Haus"),
        ("fr", "les éducations", "education"),
        ("es", "las canciones", "canción"),
        ("ru", "большие дома", "дом"),
        ("ar", "الكتاب", "كتاب"),
        ("tr", "kitaplar", "kitap"),
        ("zh", "我住在東京都", "東京"),
        ("ja", "検索エンジンの仕組み", "検索"),
        ("th", "ภาษาไทยสวยงาม", "ภาษาไทย"),
        ("vi", "tiếng Việt", "TIẾNG"),
        ("xx", "plain WORDS", "Plain words"),
    ],
)
def test_a_query_meets_the_documents_that_say_it(language: str, document: str, query: str) -> None:
    words = Analyzer(language)
    assert set(words.query_terms(query)) & set(words.document_terms(document))


def test_unknown_languages_keep_their_accents() -> None:
    """In Vietnamese they are other words; folding costs 0.02 nDCG there (docs/lexical.md)."""
    words = Analyzer("vi")
    assert not set(words.query_terms("ma")) & set(words.document_terms("má mà"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_analyses_and_looks_up_what_it_indexed(language: str) -> None:
    words = Analyzer(language)
    text = "Élan naïve résumé Straße ελληνικά русский عربي தமிழ் 東京 ภาษา 42 x²"
    assert set(words.query_terms(text)) <= set(words.document_terms(text))
    assert words.query_terms("Straße")


def test_stop_words_are_looked_for_only_where_there_is_nothing_else() -> None:
    words = Analyzer("en")
    assert set(words.query_terms("to be or not to be, that is the question")) == {"question"}
    assert words.query_terms("to be or not to be") == {"to": 2, "be": 2, "or": 1, "not": 1}
    assert "the" in words.document_terms("the question")


def test_stop_words_are_known_by_their_accents() -> None:
    assert set(Analyzer("de").query_terms("für die Katze")) == {"katz"}


def test_repeated_words_count() -> None:
    assert Analyzer("en").query_terms("heron pike herons") == {"heron": 2, "pike": 1}


def test_decomposed_accents_are_composed_first() -> None:
    decomposed = unicodedata.normalize("NFD", "cafés")
    assert Analyzer("en").document_terms(decomposed) == ["cafe"]
    assert Analyzer("xx").document_terms(decomposed) == ["cafés"]


def test_a_lone_surrogate_is_survived() -> None:
    assert normalised("a\ud800b") == "a?b"
    assert Analyzer("en").query_terms("a\ud800b heron")["heron"] == 1


def test_long_digests_are_words_and_endless_runs_are_not() -> None:
    words = Analyzer("en")
    assert words.document_terms("0" * 128) == ["0" * 128]
    assert words.document_terms("0" * 255) == ["0" * 255]
    assert words.document_terms("0" * 256) == []


@pytest.mark.parametrize("empty", ["", " \n\t", "...", "\x00", "🙂"])
def test_no_words_no_terms(empty: str) -> None:
    assert not Analyzer("en").query_terms(empty)


def test_the_version_names_language_and_chain() -> None:
    versions = {analyzer_for(language).version for language in LANGUAGES}
    assert len(versions) == len(LANGUAGES)
    assert analyzer_for("en-GB").version == analyzer_for("EN").version == analyzer_for("en").version
    assert analyzer_for("nb").version == analyzer_for("no").version
    assert analyzer_for("xx").version == analyzer_for("vi").version != analyzer_for("en").version


def test_the_version_changes_with_the_chain_and_with_tantivy(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Analyzer("en").version
    with monkeypatch.context() as patched:
        patched.setattr(analyzer, "_LONGEST_TERM", 100)
        assert Analyzer("en").version != before
    with monkeypatch.context() as patched:
        patched.setattr(analyzer, "version", lambda _: "0.99.0")
        assert Analyzer("en").version != before
    assert Analyzer("en").version == before


def test_many_threads_share_one_analyzer() -> None:
    words = Analyzer("en")
    texts = [f"herons running number {n} " * 50 for n in range(400)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(words.document_terms, texts)) == [words.document_terms(text) for text in texts]
