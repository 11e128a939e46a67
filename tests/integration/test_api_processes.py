"""Several API processes on one database, each with a lexical index of its own."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from service.store.embedded.server import EmbeddedServer
from tests.conftest import create_database, url_of
from tests.integration.conftest import COMMAND, MODEL
from tests.programs import unused_port
from tests.running import process, wait_for

pytestmark = pytest.mark.slow
SEARCH = "/v1/collections/notes/search"
ROUNDS, CLIENTS = 20, 4


@contextmanager
def api_process(folder: Path, settings: Mapping[str, str]) -> Iterator[httpx.Client]:
    """One `azimuth serve` with a data folder of its own, once it is ready."""
    port = unused_port()
    own = {"DATA_DIR": str(folder), "PORT": str(port), "EMBEDDER": MODEL, "RERANKER": "none", "LOG_LEVEL": "warning"}
    environment = os.environ | {f"AZIMUTH_{name}": value for name, value in (own | dict(settings)).items()}
    log = folder.with_suffix(".log")
    with (
        process([*COMMAND, "serve"], log, environment),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):

        def ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, lambda: log.read_text())
        yield client


@pytest.fixture(scope="module")
def processes(
    server: EmbeddedServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[httpx.Client]]:
    create_database(server, "processes", template)
    folder = tmp_path_factory.mktemp("processes")
    settings = {"DATABASE_URL": url_of(server, "processes")}
    with ExitStack() as stack:
        clients = [stack.enter_context(api_process(folder / name, settings)) for name in ("one", "two")]
        assert clients[0].put("/v1/collections/notes").is_success
        yield clients


def test_what_one_process_acknowledged_another_finds_by_its_revision(processes: list[httpx.Client]) -> None:
    def turns(client: int) -> list[str]:
        """What was not found, or found although it had been deleted."""
        wrong = []
        for turn in range(ROUNDS):
            writer, reader = processes[turn % 2], processes[1 - turn % 2]
            word = f"word{'abcdefgh'[client]}{''.join('klmnopqrst'[int(digit)] for digit in str(turn))}"
            document = {"id": f"{client}-{turn}", "text": f"the {word} of it"}
            written = writer.post("/v1/collections/notes/documents", json={"documents": [document]})
            for expected, answer in ((1, written), (0, None)):
                answer = answer or writer.delete(f"/v1/collections/notes/documents/{client}-{turn}")
                body = {"query": word, "mode": "lexical", "min_revision": answer.headers["X-Azimuth-Revision"]}
                found = reader.post(SEARCH, json=body).json()
                if len(found["hits"]) != expected or found["degraded"]:
                    wrong.append(f"{word}: {found}")
        return wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert [one for wrong in pool.map(turns, range(CLIENTS)) for one in wrong] == []


@pytest.mark.parametrize("as_header", [False, True])
def test_a_revision_that_there_is_not_is_told(processes: list[httpx.Client], as_header: bool) -> None:
    own: dict[str, object] = {} if as_header else {"min_revision": 10**15}
    headers = {"X-Azimuth-Min-Revision": str(10**15)} if as_header else {}
    answer = processes[1].post(SEARCH, json={"query": "word", "mode": "lexical", **own}, headers=headers).json()
    assert [(one["stage"], one["code"]) for one in answer["degraded"]] == [("lexical", "behind")]
