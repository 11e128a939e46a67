"""The console by the keyboard alone, on a service that has nothing yet: a document's life, and then that of keys.

Where axe-core is installed (`make test-clients`) it looks at each page on the way.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.browser import Page, axe_source, browser
from tests.integration.conftest import Running

pytestmark = [pytest.mark.database, pytest.mark.slow]

SETTINGS = {"AZIMUTH_LOG_LEVEL": "warning"}
"""Its own service: it ends with keys."""
MOST_TABS = 60
FOCUSED = "[document.activeElement.matches({0}), document.activeElement.innerText, document.activeElement.ariaLabel]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        opened.look()
        yield opened


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has the focus has this name or, where it begins with a dot or a number sign, selector."""
    selector = name if name[0] in ".#" else "*"
    for _ in range(MOST_TABS):
        page.press("Tab", 9)
        matches, *names = page.evaluate(FOCUSED.format(repr(selector)))
        if matches and (selector == name or name in names):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def enter(page: Page, name: str) -> None:
    tab_to(page, name)
    page.press("Enter", 13)


def appears(page: Page, words: str) -> None:
    page.until(f"document.body.innerText.includes({words!r})", words)
    source = axe_source(required=False)
    assert source is None or page.violations(source) == []


def test_a_document_is_written_found_opened_and_deleted_by_the_keyboard(page: Page, service: Running) -> None:
    page.open(f"{service.url}/")
    appears(page, "Make your first collection")
    page.type("walk")
    page.press("Enter", 13)
    appears(page, "No document yet")
    enter(page, "New document")
    appears(page, "Metadata, as JSON")
    for words in ("lighthouse", "The lighthouse", "A keeper climbs the stairs every evening."):
        page.type(words)
        page.press("Tab", 9)
    enter(page, "Save")
    page.until("Boolean(document.querySelector('.document'))")
    page.open(f"{service.url}/?collection=walk")
    page.until("document.activeElement.id === 'query'")
    page.type("keeper of the stairs")
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        client.post("/v1/collections/walk/documents?wait=true", json={"documents": [{"id": "other", "text": "rain"}]})
    page.press("Enter", 13)
    page.until("Boolean(document.querySelector('.hit'))")
    enter(page, "The lighthouse")
    page.until("Boolean(document.querySelector('.document'))")
    appears(page, "A keeper climbs")
    enter(page, "Delete")
    page.until("document.querySelector('#dialog').open")
    enter(page, "Delete it")
    page.until("document.querySelectorAll('.grid tbody tr').length === 1")
    assert "lighthouse" not in page.text("#answer")
    assert page.complaints == []


def test_settings_that_may_change_are_changed(page: Page, service: Running) -> None:
    page.open(f"{service.url}/?view=documents&collection=walk")
    page.click("[data-key=settings] summary")
    page.click("[data-key=settings] input[type=number]")
    page.evaluate("document.activeElement.select()")
    page.type("0.9")
    page.click("[data-key=settings] textarea")
    page.type("year\npublished: datetime")
    page.click("[data-key=settings] .primary")
    appears(page, "Saved.")
    settings = httpx.get(f"{service.url}/v1/collections/walk", trust_env=False).json()["settings"]
    assert (settings["recall_target"], settings["language"]) == (0.9, "en")
    assert sorted(settings["indexed"], key=str) == ["year", {"field": "published", "type": "datetime"}]
    assert page.complaints == []


def test_keys_are_made_shown_once_rotated_and_revoked_by_the_keyboard(page: Page, service: Running) -> None:
    """From the first one on, the tab has it."""
    page.open(f"{service.url}/?collection=walk")
    page.until("document.activeElement.id === 'query'")
    page.evaluate("document.activeElement.blur(), document.querySelector('.skip').focus()")
    enter(page, "Keys")
    appears(page, "Everybody who reaches this service")
    page.until("document.activeElement.maxLength === 63")
    page.type("root")
    page.press("Enter", 13)
    appears(page, "From now on every request needs a key")
    first = page.evaluate("document.activeElement.value")
    assert first.startswith("azk_")
    assert httpx.get(f"{service.url}/v1/collections", trust_env=False).status_code == 401
    enter(page, "Done")
    page.until("!document.querySelector('#secret')")
    enter(page, "New key")
    appears(page, "Only documents that pass")
    page.type("shop")
    page.press("Enter", 13)
    page.until("document.activeElement.id === 'secret' && document.activeElement.value.startsWith('azk_')")
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        client.headers["api-key"] = page.evaluate("document.activeElement.value")
        assert client.get("/v1/collections").status_code == 200
        assert client.get("/v1/keys").status_code == 403
        enter(page, "Revoke shop")
        appears(page, "for good")
        enter(page, "Revoke it")
        page.until("!document.querySelector('[data-key=\"revoke shop\"]')")
        assert client.get("/v1/collections").status_code == 401
    enter(page, "Rotate root")
    page.until("document.querySelector('#dialog').open")
    page.choose("#dialog-words select", "0")
    page.press("Enter", 13)
    page.until("document.querySelector('#secret')?.value.startsWith('azk_') && !document.querySelector('#dialog').open")
    page.until("document.querySelector('[data-key=ended] summary')?.innerText.startsWith('2')", "two have ended")
    assert page.evaluate("document.querySelector('#secret').value") not in (first, "")
    page.click('[data-key="revoke root"]')
    page.click("#dialog-yes")
    appears(page, "is the last key that may manage keys")
    page.click("#dialog-no")
    page.evaluate("sessionStorage.clear()")
    page.open(f"{service.url}/?view=keys&collection=walk")
    appears(page, "This service asks for an API key")
    refused = [one for one in page.complaints if not any(status in one for status in ("401", "409"))]
    assert refused == []
