"""`azimuth ingest` of files: everything is found, a second run changes nothing, and what is gone can be removed."""

import json
from pathlib import Path

import httpx
import pytest

from tests.commands import run_azimuth
from tests.files import folder_of_all_kinds, pdf

pytestmark = pytest.mark.database


def test_a_mixed_folder_is_searchable_and_kept_up_to_date(client: httpx.Client, tmp_path: Path) -> None:
    root, here = tmp_path / "root", ["-c", "mixed", "--url", str(client.base_url)]
    kinds = folder_of_all_kinds(root)
    (root / "bad.txt").write_bytes(bytes(100))

    def ingest(*more: str) -> dict[str, object]:
        done = run_azimuth(["ingest", str(root), *here, "--json", *more])
        assert done.returncode == 1, done.stderr
        assert "bad.txt: is not text" in done.stderr
        return dict(json.loads(done.stdout))

    first = ingest()
    assert (first["files"], first["refused"], first["not_read"]) == (
        len(kinds), 0, {"bad.txt": "is not text, whatever its name says"},
    )  # fmt: skip
    for name, words in kinds.items():
        body = {"query": words, "mode": "lexical", "k": 1, "include": ["metadata"]}
        hits = client.post("/v1/collections/mixed/search", json=body).json()["hits"]
        assert hits[0]["metadata"]["ingested"]["file"].startswith(name), (name, hits)
    again = ingest("--prune")
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 0, first["created"])
    other = {"documents": [{"id": "other", "text": "from elsewhere", "metadata": {"path": "notes.txt"}}]}
    assert client.post("/v1/collections/mixed/documents", json=other).is_success
    (root / "notes.txt").unlink()
    (root / "report.pdf").write_bytes(pdf("The harbour is deep"))
    assert ingest()["deleted"] == 1  # the second page of a report that has one
    assert ingest("--prune")["deleted"] == 1  # notes.txt
    listed = [one["id"] for one in client.get("/v1/collections/mixed/documents").json()["documents"]]
    assert "other" in listed
    assert not {"notes.txt", "report.pdf#page=2"} & set(listed)


def test_nothing_is_made_where_nothing_was_read(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "damaged.jsonl.gz").write_bytes(b"\x1f\x8b nothing")
    for source in ("empty.txt", "empty.jsonl", "damaged.jsonl.gz", ".", "-"):
        given = source if source == "-" else str(tmp_path / source)
        done = run_azimuth(["ingest", given, "-c", "nothing", "--url", str(client.base_url)])
        assert (done.returncode, "Nothing was read" in done.stderr) == (1, True), source
    assert client.get("/v1/collections/nothing").status_code == 404


def test_a_pipe_holds_whatever_it_holds(client: httpx.Client) -> None:
    for outcome in ("1 created", "1 unchanged"):
        done = run_azimuth(["ingest", "-", "-c", "piped", "--url", str(client.base_url)], given="plain words\n")
        assert (done.returncode, outcome in done.stdout) == (0, True), done.stderr
