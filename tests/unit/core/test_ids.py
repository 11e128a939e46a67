"""Ids whose URL would be another one after a client or proxy resolved it."""

from urllib.parse import urljoin

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.ids import changes_in_urls

DOCUMENTS = "http://h/v1/collections/c/documents/"


@pytest.mark.parametrize(
    "bad",
    [
        ".", "..", "...", "../", "./a", "a/.", "a/..", "a/../b", "a/./b", "../../c", "../versions/1", "a//../b", "/..",
        "%2e%2e", "%2E.", ".%2e/a", "%252e%252e", "..%2fa", "a%5c..%5cb", "..\\a", "a\\..", "a/..;x=1/b", "..;", "..?a",
        "..#a", " .. ", ".. /a", "/", "//", "\\", "%2f", "a\nb", "a\t", ".\t.", "\x1f", "\x7f", "a\x85",
    ],
)  # fmt: skip
def test_an_id_that_urls_resolve_or_lose_is_refused(bad: str) -> None:
    assert changes_in_urls(bad)


@pytest.mark.parametrize(
    "good",
    [
        "a", "a/b", "/usr/share/a.md", "a/", "https://example.org/a?b=c#d", "C:\\a\\b", ".git/config", "a/.hidden",
        "a..b", "..a", "a..", "1.2.3", "50%", "100%25", "a;b", "a%0ab", "%00", "a b", " a", "ü/ß", "\u4e2d\u6587",
        "\U0001f600", "\u2026", "a?..b", "v1...v2",
    ],
)  # fmt: skip
def test_ordinary_ids_are_accepted(good: str) -> None:
    assert not changes_in_urls(good)


@given(
    st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "b", "%2e", "%2f", ";", "?", "#"]), min_size=1).map("".join)
)
def test_an_accepted_id_never_leaves_the_documents(name: str) -> None:
    """Whether a client resolves the URL by RFC 3986 or as browsers do, who take a backslash for a slash."""
    if not changes_in_urls(name):
        for written in (name, name.replace("\\", "/")):
            assert urljoin(DOCUMENTS, f"./{written}").startswith(DOCUMENTS)
            assert str(httpx.URL(DOCUMENTS + written)).startswith(DOCUMENTS)
