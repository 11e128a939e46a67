"""Clients that are generated from the OpenAPI document: without a warning, and what they do not set stays as it is."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def document(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenAPI document as it is served."""
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        path.write_bytes(answer.read())
    return path


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_generated_python_client_changes_what_it_sets(url: str, document: Path) -> None:
    target = document.parent / "python"
    generate = [Path(sys.executable).parent / "openapi-python-client", "generate", "--fail-on-warning"]
    said = run(*generate, "--config", HERE / "generated.yml", "--path", document, "--output-path", target, folder=HERE)
    assert "warning" not in said.lower(), said
    sys.path.insert(0, str(target))
    try:
        client = importlib.import_module("generated_client").AuthenticatedClient(base_url=url, token=KEY)
        models: Any = importlib.import_module("generated_client.models")
        put: Any = importlib.import_module("generated_client.api.collections.put_collections").sync
        search: Any = importlib.import_module("generated_client.api.search.search").sync
    finally:
        sys.path.remove(str(target))
    settings = {"language": "de", "candidates": 50, "fusion": {"method": "rrf", "k": 10}, "rerank": {"depth": 7}}
    before = put("generated", client=client, body=models.CollectionBody.from_dict(settings)).to_dict()["settings"]
    assert before["language"] == "de"
    after = put("generated", client=client, body=models.CollectionBody(indexed=["year"])).to_dict()["settings"]
    assert after == before | {"indexed": ["year"]}
    vector = [1.0] + [0.0] * 383
    answer = search("generated", client=client, body=models.SearchBody(vector=vector, embedder_version=1))
    found = answer.to_dict()
    assert (found.get("hits"), found.get("plan", {}).get("mode")) == ([], "dense"), found


@pytest.fixture
def programs() -> Path:
    """Those of Node.js."""
    folder = Path(os.environ.get("AZIMUTH_NODE_MODULES", HERE / "node_modules"))
    if shutil.which("node") is None or not (folder / "openapi-typescript").is_dir():
        pytest.skip("needs node and npm")
    return folder / ".bin"


def test_types_for_typescript(document: Path, programs: Path) -> None:
    folder = document.parent
    shutil.copy(HERE / "generated.ts", folder)
    run(programs / "openapi-typescript", document, "-o", "schema.d.ts", folder=folder)
    options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022"]
    run(programs / "tsc", *options, "generated.ts", "schema.d.ts", folder=folder)


def test_redocly_finds_nothing(document: Path, programs: Path) -> None:
    said = run(programs / "redocly", "lint", document, "--format=json", folder=document.parent)
    report = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert report["problems"] == []
