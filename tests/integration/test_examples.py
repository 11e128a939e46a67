"""The files of examples/ run as they are against one service, and print what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.beir import write_pairs
from tests.integration.conftest import Running, written

pytestmark = pytest.mark.database

FOLDER = Path(__file__).parents[2] / "examples"
WORDS = ["volcano", "violin", "penguin", "bread", "copper", "lantern", "harbour", "meadow", "thunder", "pocket"]


def run(service: Running, example: str, *arguments: str) -> str:
    """What the example prints; it has to succeed."""
    program = ["bash"] if example.endswith(".sh") else [sys.executable]
    done = subprocess.run(
        [*program, str(FOLDER / example), *arguments],
        env=os.environ | {"AZIMUTH_URL": service.url, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows() -> list[dict[str, str]]:
    """Forty documents that share no pair of words."""
    pairs = [f"{one} {other}" for at, one in enumerate(WORDS) for other in WORDS[at + 1 :]]
    return [{"id": f"d{at}", "title": f"Note {at}", "text": f"All about {pair}."} for at, pair in enumerate(pairs[:40])]


def test_curl(service: Running) -> None:
    created, _, found, _, filtered = run(service, "rest_curl.sh").splitlines()
    assert json.loads(created)["searchable"] is True
    assert [hit["id"] for hit in json.loads(found)["hits"]] == ["heron", "otter"]
    assert [hit["id"] for hit in json.loads(filtered)["hits"]] == ["otter"]


def test_httpx(service: Running) -> None:
    version, first, *_, problem = run(service, "rest_httpx.py").splitlines()
    assert version == "embedder version 1, dense leg: exact"
    assert "heron" in first
    assert problem.startswith("422 urn:azimuth:error:invalid: k: ")


def test_own_vectors(service: Running) -> None:
    found, without = run(service, "bring_your_own_vectors.py").splitlines()
    assert found == "found badger, degraded: []"
    assert without.startswith("without a vector: version 1 has vectors of the client's own")


def test_rag(service: Running, client: httpx.Client) -> None:
    written(client, "rag", *rows())
    prompt = run(service, "rag_retriever.py", "rag", "What is known about penguin bread?")
    assert "[1] Note" in prompt
    assert "All about penguin bread." in prompt
    assert prompt.count("\n[") == 4
    assert prompt.rstrip().endswith("What is known about penguin bread?")


def test_reindex(service: Running, client: httpx.Client) -> None:
    written(client, "other", *rows())
    lines = run(service, "reindex.py", "other", "hashing:128").splitlines()
    assert lines[0] == "version 2 is registered"
    checks = ["complete", "canary", "warm", "recall", "geometry", "judgments", "shadow"]
    assert [line.split()[0] for line in lines[1:-2]] == checks
    assert lines[-2:] == ["version 2 answers from now on", "version 1 answers again"]


def test_tune(service: Running, client: httpx.Client, tmp_path: Path) -> None:
    written(client, "judged", *rows())
    write_pairs(tmp_path, rows(), [row["text"].removeprefix("All about ") for row in rows()])
    counted, *modes, tuned = run(service, "tune.py", "judged", str(tmp_path)).split("\n", 4)
    assert counted == "40 queries with 40 judgments"
    assert [line.split()[0] for line in modes] == ["dense", "lexical", "hybrid"]
    assert modes[1].endswith("nDCG@10 1.000  recall@100 1.000")
    assert "Nothing is better beyond the noise: judged stays as it is." in tuned
