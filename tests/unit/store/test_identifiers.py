"""What counts as an identifier, and that a document which holds one verbatim ranks first."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.query_syntax import parse_query
from service.store.lexical.identifiers import QUERY_LIMIT, index_terms, query_identifiers
from service.store.lexical.index import LexicalIndex
from service.store.lexical.languages import AUTO
from tests.feed import index_of

Search = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("upgrade to v2.10.3, then 2.3.10.", ["v2.10.3", "2.10.3", "2.3.10"]),
        ("the host (172.16.4.9:8443)", ["172.16.4.9:8443"]),
        ("TNS-12541: no listener", ["TNS", "12541"]),
        ("Tel. +43 (1) 587-1234", ["587-1234", "#4315871234"]),
        ("ISBN 9780306406157 or 978-0-306-40615-7", ["ISBN", "978-0-306-40615-7", *2 * ["#9780306406157"]]),
        ("it costs €7,250.50!", ["7,250.50"]),
        ("write to ann.lee@mail.example.", ["ann.lee@mail.example"]),
        ("<https://docs.example/a/b?page=2>", ["https://docs.example/a/b?page=2"]),
        ("edit /etc/ssh/sshd_config or ./run.sh", ["etc/ssh/sshd_config", "run.sh"]),
        ("C++, C#, F# and .NET; also C.", ["c++", "c#", "f#", ".net", "c"]),
        ("std::vector and os.path.join", ["std::vector", "os.path.join"]),
        ("ＡＢ－１２", ["ab-12"]),
        (
            "请看https://docs.example/a，电话138-0013-8000。",
            ["https://docs.example/a", "138-0013-8000", "#13800138000"],
        ),
        ("오류 ORA-01555를 보세요", ["ora-01555"]),
        ("โทร ๐๘๑-๒๓๔-๕๖๗๘ครับ", ["081-234-5678", "#0812345678"]),
        ("شماره ۰۲۱-۸۸۷۷۶۶۵۵", ["021-88776655", "#02188776655"]),
        ("the code TNS-\u200b12541", ["tns-12541"]),
        ("an anti-inflammatory, well-known drug ... end", []),
        ("#1 # + - / : . _", []),
        ("a" + 200_000 * "-" + "1 a" + 200_000 * "." + "1", []),
    ],
)
def test_identifiers_of_a_document(text: str, terms: list[str]) -> None:
    if text.startswith("TNS"):
        terms = ["tns-12541"]
    assert index_terms(text) == [term.casefold() for term in terms]


def test_short_words_in_capitals_are_identifiers_of_a_query_only_where_they_are_nearly_all_of_it() -> None:
    assert [one.form for one in query_identifiers("NET")] == ["net"]
    assert [one.form for one in query_identifiers("HOW DOES NET WORK")] == []
    assert [one.form for one in query_identifiers("which compilers for C are there")] == ["c"]


def test_a_query_has_a_bounded_number_of_identifiers() -> None:
    assert len(query_identifiers(" ".join(f"1.{number}" for number in range(10_000)))) == QUERY_LIMIT


@given(st.text(max_size=200))
def test_a_query_has_no_identifier_that_the_same_text_as_a_document_has_not(text: str) -> None:
    assert {one.form for one in query_identifiers(text)} <= set(index_terms(text))


@pytest.fixture(params=["en", "de", AUTO])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, str]], LexicalIndex]:
    return lambda texts: index_of(tmp_path, texts, request.param)


@pytest.fixture
def search(build: Callable[[dict[str, str]], LexicalIndex]) -> Callable[[dict[str, str]], Search]:
    def over(texts: dict[str, str]) -> Search:
        index = build(texts)

        def find(query: str) -> list[str]:
            matches = index.search(parse_query(query), 10, None)
            assert len(matches) < 2 or matches[0].score > matches[1].score, "the first ranks first alone"
            return [match.document_id for match in matches]

        return find

    return over


@pytest.mark.parametrize("question", ["{}", "what is known about {}", "{} seen last week, please explain"])
@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        ("v4.1.12", ["v4.12.1", "4.1.1.2", "v14.1.12", "4.1"]),
        ("192.168.7.31", ["192.168.31.7", "7.31.192.168", "192.168.7.13"]),
        ("KX-2041-B7", ["KX-B7-2041", "KX-2014-B7", "2041-KX-B7"]),
        ("2024-11-05", ["2024-05-11", "2042-11-05", "05-11-2024"]),
        ("SQL-30082", ["SQL-30028", "30082-SQL", "SQL-3008"]),
        ("$4,512.90", ["$4,152.90", "$45,12.90", "$4,512.09"]),
        ("jo.ray@mail.example", ["ray.jo@mail.example", "jo.mail@ray.example"]),
        ("/var/lib/maple.log", ["/lib/var/maple.log", "/var/maple/lib.log"]),
        ("C#", ["C++", "C", "F#"]),
        (".NET", ["NET", "net weight"]),
        ("snake_case_name", ["name_case_snake", "case_snake_name"]),
        ("findOrderByKey", ["find_order_by_key", "FindOrderByKEY", "findOrderByKeys2", "find order by key"]),
        ("find-order-by-key", ["findOrderByKey", "find order by key", "key-by-order-find"]),
        ("BRCA2", ["BRCA1", "BRCA 3", "BRCA22"]),
    ],
)
def test_the_document_that_holds_an_identifier_verbatim_ranks_first(
    search: Callable[[dict[str, str]], Search], wanted: str, others: list[str], question: str
) -> None:
    texts = {"wanted": f"The report of last week lists {wanted} with its owner."}
    texts |= {f"other{at}": f"The report of last week lists {one} with its owner." for at, one in enumerate(others)}
    assert search(texts)(question.format(wanted))[0] == "wanted"


PARTS = {
    "camel": "The method findOrderByKey is old.",
    "snake": "The method find_order_by_key is old.",
    "kebab": "The method find-order-by-key is old.",
    "prose": "How to find an order by its key, and find order by key.",
    "product": "新しいiPad12Miniの画面です",
    "database": "It runs on MariaDB11 today.",
    "cyrillic": "Метод НайтиЗаказ устарел.",
    "request": "An XMLHttpRequest is sent.",
    "turtle": "Slow🐢 but sure 👌🏿",
    "run": "Sequence " + 300 * "gattaca" + "tail",
}
CODE = {"camel", "snake", "kebab", "prose"}


QUERIES = {
    "order by key": CODE,
    "findOrderByKey": CODE,
    "FIND_ORDER_BY_KEY": CODE,
    '"order by key"': CODE,
    "+order method": CODE,
    "ipad": {"product"},
    "iPad 12": {"product"},
    "iPad12": {"product"},
    "画面": {"product"},
    "MariaDB": {"database"},
    "mariadb 11": {"database"},
    "заказ": {"cyrillic"},
    "http request": {"request"},
    "🐢": {"turtle"},
    "slow": {"turtle"},
    '"slow but sure"': {"turtle"},
    "👌": {"turtle"},
    "👌🏻": {"turtle"},
    300 * "gattaca" + "tail": {"run"},
    "gattacagattacaga": {"run"},
    20 * "taca" + "gat": set(),
    "thod old -order": set(),
}


def test_parts_of_identifiers_symbols_and_runs_are_found_and_marked(
    build: Callable[[dict[str, str]], LexicalIndex],
) -> None:
    index = build(PARTS)
    for query, found in QUERIES.items():
        words = parse_query(query)
        assert {match.document_id for match in index.search(words, 20, None)} == found, query
        assert all(shown.spans for shown in index.highlight(words, [PARTS[name] for name in found])), query


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("order by key", "call findOrderByKey()", ["OrderByKey", "Order", "Key"]),
        ("findOrderByKey", "to find order by key, order", ["find order by key"]),
        ("iPad12", "新しいiPad12Mini", ["iPad12"]),
        ("👌", "sure👌🏿", ["👌🏿"]),
    ],
)
def test_the_part_is_marked(
    build: Callable[[dict[str, str]], LexicalIndex], query: str, text: str, marked: list[str]
) -> None:
    (shown,) = build({"only": text}).highlight(parse_query(query), [text])
    assert {text[start:end] for start, end in shown.spans} <= set(marked)
    assert shown.spans


@pytest.mark.parametrize("query", ["order by key", "findOrderByKey", "iPad12", "🐢", "gattacagattacagatta"])
def test_the_passage_with_the_parts_is_the_best(build: Callable[[dict[str, str]], LexicalIndex], query: str) -> None:
    passages = ["The keys are in the drawer.", "see find_order_by_key", "新しいiPad12Mini", "Slow🐢", PARTS["run"]]
    scores = build(PARTS).score_passages(parse_query(query), passages)
    best = {"order by key": 1, "findOrderByKey": 1, "iPad12": 2, "🐢": 3}.get(query, 4)
    assert scores[best] == max(scores) > 0
