"""Which terms texts become, where they stand, and when the version of an analyzer changes."""

import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.store.lexical import analyzer
from service.store.lexical.analyzer import Analyzer, LanguageAnalyzer, analyzer_for, languages_of_term
from service.store.lexical.language_detection import detect_language, query_languages
from service.store.lexical.languages import AUTO, KNOWN, LANGUAGES, UNKNOWN


def chain(language: str) -> LanguageAnalyzer:
    return analyzer_for(language).chain(language)


@pytest.mark.parametrize(
    ("language", "document", "query"),
    [
        ("en", "He was running", "run"),
        ("en", "Two résumés", "resume"),
        ("en", "asyncio.wait_for(task)", "wait_for"),
        ("en", "list.sort(key=None)", "sort lists"),
        ("en", "infor\u00admation", "information"),
        ("en", "ＦＵＬＬ ｗｉｄｔｈ ﬁle", "full width file"),
        ("de", "die Häuser der Stadt", "Haus"),
        ("de", "große STRASSE", "Straße"),
        ("fr", "les éducations", "education"),
        ("es", "las canciones", "canción"),
        ("ro", "naţiunii", "națiunii"),
        ("ru", "большие дома", "дом"),
        ("ru", "зелёный", "зеленый"),
        ("ar", "الكتاب", "كتاب"),
        ("ar", "كِتَاب", "كتاب"),
        ("he", "שָׁלוֹם", "שלום"),
        ("fa", "می‌خواهم کتاب", "میخواهم كتاب"),
        ("el", "Αθήνα", "ΑΘΗΝΑ"),
        ("hi", "हिन्दी भाषा", "हिन्दी"),
        ("tr", "kitaplar", "kitap"),
        ("tr", "IŞIK", "ışık"),
        ("tr", "İSTANBUL", "istanbul"),
        ("zh", "我住在東京都", "東京"),
        ("zh", "水", "水"),
        ("zh", "雨水很多", "水"),
        ("ja", "検索エンジンの仕組み", "検索"),
        ("ja", "ﾃｽﾄ", "テスト"),
        ("ko", "한국어로 검색합니다", "검색"),
        ("ko", unicodedata.normalize("NFD", "검색"), "검색"),
        ("th", "ภาษาไทยสวยงาม", "ภาษาไทย"),
        ("th", "ก", "ก"),
        ("vi", "tiếng Việt", "TIẾNG"),
        ("vi", unicodedata.normalize("NFD", "tiếng Việt"), "tiếng"),
        ("pl", "Łódź", "lodz"),
        ("en", "ＴＨＥ ＦＵＬＬ", "full"),
        ("uk", "м’ята", "мʼята"),
        ("ja", "ﾃﾞｰﾀ", "データ"),
        ("fa", "۱۲۳۴", "1234"),
        ("ar", "١٢٣٤", "۱۲۳۴"),
        ("th", "ปี๒๕๖๗", "2567"),
        ("my", "၂၀၂၄", "2024"),
        ("zh", "电话１２３４", "१२३४"),
        ("ar", "القران", "القرآن"),
        ("ar", "المدرسه", "مدرسة"),
        ("ar", "القاهره", "القاهرة"),
        ("ar", "المستشفي", "المستشفى"),
        ("ar", "العَرَبِيَّة", "العربيــة"),
        ("ar", "أحمد", "احمد"),
        ("en", "إِلى", "الي"),
        ("fa", "کتاب‌ها", "کتاب ها"),
        ("fa", "کتاب‌ها", "کتابها"),
        ("fa", "خانهٔ", "خانۀ"),
        ("ur", "پہلے", "پهلے"),
        ("hi", "क़लम", "कलम"),
        ("hi", "\u0958लम", "क़लम"),
        ("hi", "हिंदी", "हिन्दी"),
        ("hi", "चाँद", "चांद"),
        ("en", "હિંદી", "હિન્દી"),
        ("en", "అంబర్", "అమ్బర్"),
        ("en", "അവൻ", "അവന്\u200d"),
        ("hi", "क्\u200dष", "क्ष"),
        ("en", "he\u200bron", "heron"),
        ("en", "\ufeffhe\u2060ron\u200e", "heron"),
        ("th", "ภา\u200bษา", "าษา"),
        ("zh", "东\u200b京", "东京"),
        ("ru", "за\u0301мок на горе", "замок"),
        ("uk", "кра\u0301пка", "КРАПКА"),
        ("en", "İstanbul", "istanbul"),
        ("de", "İZMİR", "Izmir"),
        ("vi", "g\u0303uarani", "guarani"),
        ("en", "Mo\u0304\u0301zg g\u0303", "mozg"),
        ("el", "τῆς Ἀθήνας", "Αθηνας"),
        ("en", "ΆΝΘΡΩΠΟΣ", "ανθρωποσ"),
        ("de", "Ihre Krankenversicherung", "Versicherung"),
        ("de", "eine Versicherung für Kranke", "Krankenversicherung"),
        ("de", "Haftpflicht-Versicherung", "Haftpflichtversicherung"),
        ("de", "am Arbeitstag", "Tage"),
        ("de", "DER SCHULBUS", "Busse der Schulen"),
    ],
)
def test_a_query_meets_the_documents_that_say_it(language: str, document: str, query: str) -> None:
    assert set(chain(language).query_terms(query)) & set(chain(language).terms(document))


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [("uk", "мой", "мои"), ("bg", "край", "краи"), ("uk", "їжа", "іжа"), ("vi", "má", "ma")],
)
def test_marks_that_belong_to_a_letter_tell_words_apart(language: str, one: str, other: str) -> None:
    for text in (one, unicodedata.normalize("NFD", one)):
        assert chain(language).terms_of_word(text)[0] != chain(language).terms_of_word(other)[0]


@pytest.mark.parametrize("word", ["Übersetzungen", "Versicherung", "Gegenstand", "Gesellschaft", "Produktion"])
def test_a_word_that_is_no_compound_has_one_term(word: str) -> None:
    assert len(chain("de").terms(word)) == 1


def test_an_arabic_word_is_cut_at_a_non_joiner_and_a_word_of_an_indic_script_is_not() -> None:
    assert chain("fa").terms("می‌خواهم") == ["ميخواهم", "مي", "خواهم"]
    assert len(chain("hi").terms("राज\u200cकुमार")) == 1


def test_each_character_of_a_run_has_its_own_place() -> None:
    """Khmer marks the borders of its words by zero-width spaces; Thai am and half-width kana are two characters."""
    text = "น้ำตาล\u200bทราย ﾃﾞｰﾀ"
    places = {text[token.start : token.end] for token in chain("th").tokens(text)}
    assert {"ตาล", "าล\u200bท", "ﾃﾞｰ", "ﾃﾞ"} <= places


def test_in_vietnamese_accents_tell_words_apart() -> None:
    """Folding costs 0.02 nDCG there (docs/languages.md)."""
    assert not set(chain("vi").query_terms("ma")) & set(chain("vi").terms("má mà"))


@pytest.mark.parametrize("language", ["en", "zh", "th", AUTO])
def test_one_text_may_mix_scripts(language: str) -> None:
    words = analyzer_for(language).chain(analyzer_for(language).language_of("Tokyo"))
    terms = words.terms("PostgreSQLで東京タワー in ภาษา 2008年")
    assert {"東京", "京タ", "タワ", "ภาษ", "2008", "年"} <= set(terms)
    assert any(term.endswith(("postgresql", "postgr")) for term in terms)


def test_ngrams_of_a_phrase_follow_each_other_as_in_a_document() -> None:
    for language, document, phrase in (("zh", "我住在東京都", "在東京"), ("th", "ภาษาไทยสวยงาม", "ไทยสวย")):
        said, whole = chain(language).terms(phrase), chain(language).terms(document)
        assert any(whole[at : at + len(said)] == said for at in range(len(whole)))


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_analyses_and_looks_up_what_it_indexed(language: str) -> None:
    text = "Élan naïve résumé Straße ελληνικά русский عربي தமிழ் 東京 ภาษา 한국 हिन्दी 42 x²"
    terms = chain(language).terms(text)
    assert set(chain(language).query_terms(text)) <= set(terms)
    assert terms == [token.term for token in chain(language).tokens(text)]
    assert not any(character.isspace() for term in terms for character in term)
    assert chain(language).query_terms("Straße")


def test_places_are_those_of_the_original_text() -> None:
    text = "🙂 Zwei Häuser, ein Ha\u0308uschen"
    places = {text[token.start : token.end]: token.term for token in chain("de").tokens(text)}
    assert places["Häuser"] == "haus"
    assert "Ha\u0308uschen" in places


def test_stop_words_are_looked_for_only_where_there_is_nothing_else() -> None:
    words = chain("en")
    assert set(words.query_terms("to be or not to be, that is the question")) == {"question"}
    assert words.query_terms("to be or not to be") == {"to": 2, "be": 2, "or": 1, "not": 1}
    assert "the" in words.terms("the question")
    assert set(chain("de").query_terms("für die Katze")) == {"katz"}


def test_repeated_words_count() -> None:
    assert chain("en").query_terms("heron pike herons") == {"heron": 2, "pike": 1}


def test_highlights_mark_the_longest_ngrams() -> None:
    assert chain("zh").highlight_terms("東京") == {"東京"}
    assert chain("zh").highlight_terms("水") == {"水"}


def test_what_is_no_word_has_no_term() -> None:
    for empty in ("", " \n\t", "...", "\x00", "🙂", "\u0301"):
        assert not chain("en").query_terms(empty)
    assert chain("en").terms("a\ud800b heron") == ["a", "b", "heron"]


def test_long_digests_are_words_and_endless_runs_are_not() -> None:
    assert chain("en").terms("0" * 128) == ["0" * 128]
    assert chain("en").terms("0" * 255) == ["0" * 255]
    assert chain("en").terms("0" * 256) == []


def test_in_many_languages_a_term_names_its_own() -> None:
    words = analyzer_for(AUTO)
    assert words.chain("de").terms("die 2 Häuser") == ["de~die", "2", "de~haus"]
    assert words.chain("zh").terms("東京") == ["東", "東京", "京"]
    assert languages_of_term("de~haus") == ("de",)
    assert languages_of_term("2") is None
    assert languages_of_term("東京") == ("ja", "ko", "zh")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How many points did the defense of the Panthers surrender?", "en"),
        ("Wie viele Punkte gab die Verteidigung auf?", "de"),
        ("¿Cuántos puntos cedió la defensa?", "es"),
        ("Сколько очков пропустила защита?", "ru"),
        ("検索エンジンの仕組み", "ja"),
        ("黑豹队的防守丢了多少分？", "zh"),
        ("한국어 검색", "ko"),
        ("ภาษาไทย", "th"),
        ("हिन्दी भाषा", "hi"),
        ("12345 §§", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_languages_are_told(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_a_query_is_read_in_the_languages_of_the_collection() -> None:
    assert query_languages("Wie viele Punkte gab die Verteidigung auf?", {"de": 1, "en": 1}) == {"de": 1.0}
    assert query_languages("Wie viele Punkte gab die Verteidigung auf?", {"en": 1}) == {"en": 1.0}
    assert len(query_languages("Denver Broncos", {"de": 1, "en": 1, "es": 1})) > 2, "a name may be in any"
    assert query_languages("東京", {"zh": 1, "en": 1}) == {"zh": 1.0}
    assert query_languages("heron", {}) == {}


def test_the_version_names_language_and_chain() -> None:
    versions = {analyzer_for(language).version for language in KNOWN}
    assert len(versions) == len(KNOWN)


def test_the_version_changes_with_the_chain_and_with_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Analyzer("en").version
    for name, value in (("_LONGEST_TERM", 100), ("_FORMAT", 99), ("version", lambda _: "0.99.0")):
        with monkeypatch.context() as patched:
            patched.setattr(analyzer, name, value)
            assert Analyzer("en").version != before
    assert Analyzer("en").version == before


def test_many_threads_share_one_analyzer() -> None:
    words = chain("en")
    texts = [f"herons running number {n} " * 50 for n in range(400)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(words.terms, texts))
    assert [Counter(terms) for terms in found] == [Counter(words.terms(text)) for text in texts]


WORDS = ["cell", "Cells", "iPhone15", "getUserById", "Krankenversicherung", "ﬁt", "é", "™", "🙂", "中文", "ไทย"]
PIECES = st.sampled_from([*WORDS, *"aB7 _-.\u0301\u00ad\u02bc", "x" * 70])


@settings(deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["en", "de", "auto"]), st.data())
def test_only_some_terms_are_those_of_all(text: str, language: str, data: st.DataObject) -> None:
    chain = analyzer_for(language).chain("en" if language == "auto" else language)
    all_ = list(chain.tokens(text, within=True))
    only = frozenset(data.draw(st.lists(st.sampled_from([one.term for one in all_] or ["none"]), max_size=4)))
    assert list(chain.tokens(text, within=True, only=only)) == [one for one in all_ if one.term in only]
