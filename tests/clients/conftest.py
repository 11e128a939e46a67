"""A running service for the clients of other APIs, which have an environment of their own: `make test-clients`.

Nothing of Azimuth is installed there. AZIMUTH_PYTHON is the interpreter that the service runs in.
"""

import importlib.util
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"
MODELS = ["text-embedding-3-small", "embed-english-v3.0", "voyage-3.5", "nomic-embed-text"]
RERANKERS = ["rerank-v3.5", "rerank-english-v3.0", "rerank-2.5"]
ALIASES = [f"{name}=all-MiniLM-L6-v2" for name in MODELS] + [f"{name}=azimuth-minilm-l6" for name in RERANKERS]
START_SECONDS, STOP_SECONDS = 300, 120

TEXTS = ["a cat purrs on the sofa", "a dog barks at the postman", "interest rates rise"]
QUESTION = "Which animal barks?"
BEST = 1
DIMENSIONS = 384

# Clients may try to fetch tables from the network. litellm carries the one that LangChain's client of OpenAI needs.
_litellm = importlib.util.find_spec("litellm")
if _litellm is not None and _litellm.origin is not None:
    tables = Path(_litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tables)
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False", "DO_NOT_TRACK": "1"}


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service. It needs a key, knows models by the names of other APIs, and reads long texts."""
    if running := os.environ.get("AZIMUTH_RUNNING_URL"):  # while writing tests
        yield running
        return
    folder = tmp_path_factory.mktemp("service")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "AZIMUTH_PORT": str(port),
        "AZIMUTH_DATA_DIR": str(folder / "data"),
        "AZIMUTH_API_KEYS": KEY,
        "AZIMUTH_MODEL_ALIASES": ",".join(ALIASES),
        "AZIMUTH_LONG_TEXTS": "chunk-mean",
    }
    log = folder / "log"
    with log.open("wb") as output:
        service = subprocess.Popen(
            [os.environ["AZIMUTH_PYTHON"], "-m", "service", "up"], env=environment, stdout=output, stderr=output
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", service, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.wait(STOP_SECONDS)


def _wait_until_ready(url: str, service: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert service.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
