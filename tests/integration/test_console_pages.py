"""The console in a browser, on a whole service: every page is opened, clicked through, and looked at for faults.

Light and dark, on a desk and on a phone: nothing may be wider than the window, unreadable, or without a name.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise, product
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.browser import Page, Scheme, axe_source, browser
from tests.files import folder_of_all_kinds
from tests.integration import scene
from tests.integration.conftest import Running
from tests.running import wait_for

pytestmark = pytest.mark.database

SETTINGS = scene.SETTINGS
VIEWS = ("search", "documents", "overview", "versions", "recall", "geometry", "drift", "index", "jobs", "keys")
LEAST_CONTRAST = 4.5
"""Of text and what is behind it (WCAG 2.2, 1.4.3, AA)."""
NAMED = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "switch", "radio", "spinbutton", "img"}

# The ratio of contrast of each text that is shown, where it is too low: [ratio, words]. WCAG 2.2, "relative luminance".
CONTRAST = """
(() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.data.trim();
    const node = walker.currentNode.parentElement;
    const shown = node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!words || !shown || node.closest("svg, .unseen, .retired, .idle, :disabled")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < LEAST) found.push([ratio.toFixed(2), words.slice(0, 60)]);
  }
  return found;
})()
""".replace("LEAST", str(LEAST_CONTRAST))


@pytest.fixture(scope="module")
def page(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
            scene.fill(client)
        yield opened


def address(service: Running, view: str, **asked: str) -> str:
    shown = {} if view == "search" else {"view": view}
    return str(httpx.URL(f"{service.url}/", params={**shown, "collection": scene.COLLECTION, **asked}))


def arrived(page: Page) -> None:
    """The view has shown what it loads, or says what is wrong, which no view here may."""
    page.until(
        "!document.querySelector('#problem').hidden || Boolean(document.querySelector('#answer > *:not(.waiting)'))"
    )
    assert page.text("#problem") == ""


def show(page: Page, service: Running, view: str, **asked: str) -> None:
    page.look()
    page.open(address(service, view, **asked))
    arrived(page)


def test_every_view_is_reached_by_its_link(page: Page, service: Running) -> None:
    show(page, service, "search")
    for view in VIEWS:
        page.click(f'#views a[data-view="{view}"]')
        wanted = "null" if view == "search" else json.dumps(view)
        page.until(f"new URLSearchParams(location.search).get('view') === {wanted}", view)
        page.until(f"document.querySelector('#views [aria-current=page]')?.dataset.view === '{view}'", view)
        arrived(page)
        assert page.text("#answer h2, #answer .lead")
        assert page.evaluate("document.querySelector('#collection').value") == scene.COLLECTION
    assert page.complaints == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_and_can_be_read(page: Page, service: Running, view: str) -> None:
    asked = {"q": "timeout of a task"} if view == "search" else {}
    schemes: tuple[Scheme, ...] = ("light", "dark")
    for width, scheme in product((1280, 390), schemes):
        page.look(width=width, scheme=scheme)
        page.open(address(service, view, **asked))
        arrived(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (view, width)
        assert page.evaluate(CONTRAST) == [], (view, scheme)
    unnamed = [one for one in page.accessible() if one["role"] in NAMED and not one["name"].strip()]
    assert unnamed == [], view
    assert page.complaints == []


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(page: Page, service: Running, view: str) -> None:
    """On a desk in light and dark, and on a phone."""
    source = axe_source()
    assert source is not None
    looks: tuple[tuple[int, Scheme], ...] = ((1280, "light"), (1280, "dark"), (390, "light"))
    for width, scheme in looks:
        page.look(width=width, scheme=scheme)
        page.open(address(service, view, **({"q": "timeout of a task"} if view == "search" else {})))
        arrived(page)
        assert page.violations(source) == [], (view, width, scheme)


@pytest.mark.parametrize("view", VIEWS)
def test_headings_and_charts_are_told_to_those_who_do_not_see(page: Page, service: Running, view: str) -> None:
    show(page, service, view, **({"q": "timeout"} if view == "search" else {}))
    nodes = page.accessible()
    headings = [int(one["level"]) for one in nodes if one["role"] == "heading"]
    assert all(after - before <= 1 for before, after in pairwise(headings)), headings
    charts = page.evaluate(
        "[...document.querySelectorAll('figure.chart')].map((one) => [one.querySelector('h3').innerText, "
        "one.querySelectorAll('details tbody tr').length, Boolean(one.querySelector('svg[role=img][aria-label]'))])"
    )
    for title, rows, drawn in charts:
        assert drawn, title
        assert rows or "directions" in title, f"no table behind {title}"
    assert {"recall": 3, "geometry": 3, "drift": 3}.get(view, 0) <= len(charts)


def test_a_search_shows_the_score_of_each_stage(page: Page, service: Running) -> None:
    show(page, service, "search")
    page.click("#query")
    page.type("cancel a task after a timeout")
    page.press("Enter", 13)
    page.until("document.querySelectorAll('.hit').length === 10")
    scores = page.text(".hit .scores").split()
    assert {"dense", "lexical", "fusion", "score"} <= set(scores)
    assert page.evaluate("document.querySelectorAll('.stack i').length") >= 3
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.matches('button, input, a, select')")


def test_the_search_box_completes_what_is_typed_and_is_used_by_keys(page: Page, service: Running) -> None:
    show(page, service, "search")
    page.click("#query")
    page.type("cancel a ta")
    page.until("document.querySelectorAll('#suggestions li').length > 0")
    if (source := axe_source(required=False)) is not None:
        assert page.violations(source) == []
    page.press("ArrowDown", 40)
    chosen = page.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).innerText"
    )
    assert chosen.startswith("cancel a ta")
    page.press("Enter", 13)
    page.until("document.querySelectorAll('.hit').length > 0")
    assert page.evaluate("[document.querySelector('#query').value, document.querySelector('#suggestions').hidden]") == [
        chosen,
        True,
    ]
    page.evaluate("document.querySelector('#query').value = ''")
    page.type("canc")
    page.until("!document.querySelector('#suggestions').hidden")
    page.press("Escape", 27)
    page.until("document.querySelector('#suggestions').hidden")
    assert page.evaluate("document.querySelector('#query').value") == "canc"
    assert page.complaints == []


def test_recall_is_shown_beside_its_target(page: Page, service: Running) -> None:
    show(page, service, "recall")
    shown = page.text("#answer")
    for words in ("target 95", "By plan and filter", "hnsw", "lexical", "Recall by ef_search", "whole search"):
        assert words in shown, words
    page.choose("#hours", "1")
    page.until("document.querySelector('#hours')?.value === '1'")
    page.click(".chart summary")
    page.until("Boolean(document.querySelector('.chart details[open] tbody tr'))")
    assert page.complaints == []


def test_hits_stand_out_on_the_map(page: Page, service: Running) -> None:
    show(page, service, "geometry")
    page.click("#map-query")
    page.type("socket server client")
    page.press("Enter", 13)
    page.until("document.querySelectorAll('.hit-dot').length === 10", "ten hits on the map")
    page.choose("#version", "2")
    page.until("document.querySelector('#version').value === '2' && document.body.innerText.includes('Version 1')")
    assert page.complaints == []


def test_clusters_are_drawn_on_the_map_with_names_and_markers(page: Page, service: Running) -> None:
    show(page, service, "geometry")
    page.click('[data-key="clusters"]')
    page.until("document.querySelectorAll('#map .keys li').length === 6", "a legend of six clusters")
    assert (
        page.evaluate(
            "new Set([...document.querySelectorAll('#map .marker')].map((one) => one.getAttribute('d'))).size"
        )
        > 6
    )
    assert page.complaints == []


def test_an_index_is_built_anew_on_demand(page: Page, service: Running) -> None:
    show(page, service, "index")
    page.click('[data-key="reindex 1"]')
    page.until("document.querySelector('#dialog').open")
    page.click("#dialog-yes")
    page.until("!document.querySelector('#dialog').open")
    page.open(address(service, "versions"))
    page.until("document.querySelector('.trail')?.innerText.includes('was built anew')", "the audit trail tells of it")
    assert page.complaints == []


def test_all_collections_are_on_the_overview(page: Page, service: Running) -> None:
    show(page, service, "overview")
    row = page.text("#answer tbody tr")
    assert scene.COLLECTION in row
    assert "of 95" in row  # recall beside its target
    page.click("#answer tbody td:nth-child(3) a")
    page.until("new URLSearchParams(location.search).get('view') === 'recall'")
    arrived(page)


def test_the_reference_is_shown_and_answers(page: Page, service: Running) -> None:
    page.look()
    page.open(f"{service.url}/docs")
    page.until("document.querySelectorAll('.opblock').length > 30", "every route is listed")
    page.click("#operations-operations-livez button.opblock-summary-control")
    page.click("#operations-operations-livez .try-out__btn")
    page.click("#operations-operations-livez .execute")
    page.until("document.querySelector('.live-responses-table')?.innerText.includes('alive')", "an answer is shown")
    assert page.complaints == []


def test_a_collection_is_made_files_are_dropped_and_documents_are_changed(
    page: Page, service: Running, client: httpx.Client, tmp_path: Path
) -> None:
    kinds = folder_of_all_kinds(tmp_path)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF no")
    show(page, service, "documents")
    page.click("#create")
    page.click("#answer .sheet input")
    page.type("dropped")
    page.press("Enter", 13)
    page.until("location.search.includes('=dropped') && Boolean(document.querySelector('.drop'))")
    page.drop_files(".drop", [tmp_path])
    page.until("Boolean(document.querySelector('.told a'))")
    assert "broken.pdf" in page.text(".told")
    for words in kinds.values():
        found = client.post("/v1/collections/dropped/search", json={"query": words, "mode": "lexical"}).json()["hits"]
        assert found, words
    page.click(".adding input")
    page.type("type")
    page.choose(".adding select", "$eq")
    page.click(".adding [aria-label=Value]")
    page.type("md")
    page.press("Enter", 13)
    page.until("document.querySelectorAll('.grid tbody tr').length === 1")
    page.click(".grid tbody a")
    page.until("Boolean(document.querySelector('.document'))")
    assert "Debris at its edge" in page.text(".document")
    page.click(".document .actions button")
    page.click(".editor textarea")
    page.type("Ice, and ")
    page.click(".editor .primary")
    page.until("document.querySelector('.passage.whole')?.innerText.includes('Ice, and ')")
    page.click(".document .danger")
    page.click("#dialog-yes")
    page.until("Boolean(document.querySelector('.drop'))")
    page.click("#answer .danger")
    page.click("#dialog-sworn")
    page.click("#dialog-yes")
    page.until("!location.search")
    assert client.get("/v1/collections/dropped").status_code == 404
    assert page.complaints == []


class Foreign(BaseHTTPRequestHandler):
    """The page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Elsewhere</title><body>")

    def log_message(self, *_: object) -> None: ...


# What a page may try on another origin without asking it: each is sent, and what the page can read of it is returned.
ATTACKS = """
(async () => {
  const service = "SERVICE", documents = `${service}/v1/collections/COLLECTION/documents`;
  const body = '{"documents": [{"id": "foreign", "text": "x"}]}';
  const read = (url, options) => fetch(url, options).then((one) => one.text(), () => "");
  for (const type of ["text/plain", "application/x-www-form-urlencoded"])
    await read(documents, { method: "POST", mode: "no-cors", body: new Blob([body], { type }) });
  await read(`${documents}/failed/retry`, { method: "POST", mode: "no-cors" });
  await read(documents, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  await read(`${service}/v1/collections/COLLECTION?confirm=COLLECTION`, { method: "DELETE" });
  navigator.sendBeacon(documents, body);
  for (const kind of ["text/plain", "multipart/form-data"]) {
    const frame = Object.assign(document.createElement("iframe"), { name: kind });
    const form = Object.assign(document.createElement("form"), {
      method: "POST", enctype: kind, action: documents, target: kind,
    });
    form.append(Object.assign(document.createElement("input"), { name: body.replace("x", "x="), value: "" }));
    document.body.append(frame, form);
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
    form.submit();
    await loaded;
  }
  const element = (tag, address) => new Promise((resolve) => {
    const one = Object.assign(document.createElement(tag), { src: address });
    one.addEventListener("load", () => resolve(`${tag} ${address}`));
    one.addEventListener("error", () => resolve(""));
    document.body.append(one);
  });
  return [await read(`${service}/v1/collections`), await element("script", `${service}/console/dom.js`),
          await element("img", `${service}/console/swagger/favicon.png`)].join("");
})()
"""


def test_pages_of_others_read_and_change_nothing(page: Page, service: Running, client: httpx.Client) -> None:
    path = f"/v1/collections/{scene.COLLECTION}/documents"
    before = client.get(path).json()
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        Thread(target=foreign.serve_forever).start()
        page.open(f"http://127.0.0.1:{foreign.server_port}/")
        assert page.evaluate(ATTACKS.replace("SERVICE", service.url).replace("COLLECTION", scene.COLLECTION)) == ""
        foreign.shutdown()
    counted = 'azimuth_http_request_seconds_count{method="POST",route="unmatched",status="403"}'
    wait_for(lambda: f"{counted} 6.0" in client.get("/metrics").text, "all six, of which a beacon is sent by the way")
    page.open(service.url.replace("127.0.0.1", "rebound.example") + "/v1/collections")
    assert '"status":421' in page.text("body")
    assert client.get(path).json() == before
    page.complaints.clear()


def test_a_script_within_the_console_is_not_run(page: Page, service: Running) -> None:
    """Whatever finds a way to put HTML into it."""
    show(page, service, "search")
    markup = '<img src=x onerror="window.ran = 1"><p style="color: red" id="styled">x</p>'
    page.evaluate(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(markup)})")
    assert page.evaluate("getComputedStyle(document.querySelector('#styled')).color") != "rgb(255, 0, 0)"
    page.until("document.images[0].complete")
    assert page.evaluate("window.ran ?? 0") == 0
    assert any("Content Security Policy" in one for one in page.complaints)  # so that no other test misses one
    page.complaints.clear()
