"""The commands as a shell user runs them, against the whole service with the hashing encoder."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from azimuth_client import Client
from service import __version__
from tests.beir import write_pairs
from tests.commands import azimuth, run_azimuth
from tests.programs import unused_port

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("AZIMUTH_")}


def run_process(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def address(client: httpx.Client) -> str:
    return str(client.base_url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny collection in BEIR layout whose answers are plain."""
    topics = ["volcano lava eruption", "violin orchestra music", "penguin antarctic ice", "bread flour oven"]
    documents = [{"title": topic.split()[0], "text": f"All about {topic}."} for topic in topics]
    return write_pairs(tmp_path, documents, topics)


def test_ingest_tells_refused_lines_and_keeps_the_others(address: str) -> None:
    lines = [
        '{"id": "a", "text": "a good one"}',
        "not JSON",
        '{"id": "", "text": "no id"}',
        '{"id": "b", "text": "fine"}',
    ]
    done = run_azimuth(["ingest", "-", "-c", "from-stdin", "--url", address], given="\n".join(lines))
    assert done.returncode == 1, done.stderr
    assert "2 created" in done.stdout
    assert "2 refused" in done.stdout
    assert "line 2" in done.stderr
    assert "line 3" in done.stderr
    again = run_azimuth(["ingest", "-", "-c", "from-stdin", "--url", address], given=lines[0] + "\n")
    assert (again.returncode, "1 unchanged" in again.stdout) == (0, True)


def test_search_prints_hits_and_json(address: str) -> None:
    documents = '{"id": "whale", "title": "Whales", "text": "whales sing in the sea", "metadata": {"legs": 0}}\n'
    documents += '{"id": "horse", "title": "Horses", "text": "horses run on land", "metadata": {"legs": 4}}\n'
    assert run_azimuth(["ingest", "-", "-c", "beasts", "--url", address], given=documents).returncode == 0
    shown = run_azimuth(["search", "who sings in the sea", "-c", "beasts", "--url", address])
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.index("whale") < shown.stdout.index("horse")
    exact = ["search", "animals", "-c", "beasts", "--url", address, "--filter", '{"legs": {"$gt": 2}}', "--json"]
    answer = json.loads(run_azimuth(exact).stdout)
    assert [hit["id"] for hit in answer["hits"]] == ["horse"]


def test_eval_measures_through_the_service(address: str, folder: Path) -> None:
    report = folder / "report.json"
    arguments = ["eval", str(folder), "-c", "tiny", "--modes", "lexical,hybrid,rerank", "--json", str(report)]
    done = run_azimuth([*arguments, "--url", address])
    assert done.returncode == 0, done.stderr
    results = {result["mode"]: result for result in json.loads(report.read_text())["results"]}
    assert results.keys() == {"lexical", "hybrid", "rerank"}
    assert results["lexical"]["nDCG@10"] == results["hybrid"]["Recall@100"] == 1.0
    assert results["rerank"]["degraded"] == {"rerank: no reranker is configured": 4}
    assert "no reranker is configured" in done.stderr


def test_another_embedder_for_a_live_collection(address: str, folder: Path) -> None:
    """Evaluated, re-indexed, promoted on evidence, rolled back, retired: and all of it is on record."""
    here = ["-c", "changing", "--url", address]
    done = run_azimuth(["eval", str(folder), "--modes", "dense", "--upload-judgments", *here])
    assert done.returncode == 0, done.stderr
    assert "4 queries with 4 judgments" in done.stderr

    reindex = ["reindex", "--embedder", "hashing:128", "--storage", "vector", *here]
    made = run_azimuth([*reindex, "--promote", "--note", "wider"])
    assert made.returncode == 0, made.stderr
    for check in ("complete", "canary", "warm", "recall", "geometry", "judgments", "shadow"):
        assert check in made.stdout
    assert f"azimuth versions rollback -c changing --url {address}" in made.stderr
    again = run_azimuth(reindex)
    assert (again.returncode, "Version 2 is active" in again.stderr) == (0, True)
    found = json.loads(run_azimuth(["search", "penguin", "--mode", "dense", "--json", *here]).stdout)
    assert found["embedder_version"] == 2

    assert run_azimuth(["versions", "rollback", *here]).returncode == 0
    listed = json.loads(run_azimuth(["versions", "--json", *here]).stdout)
    assert (listed["active_version"], listed["previous_version"]) == (1, 2)
    assert "hashing:128" in run_azimuth(["versions", "show", "2", *here]).stdout
    assert run_azimuth(["versions", "retire", "2", *here]).returncode == 2, "nobody was there to confirm it"
    assert run_azimuth(["versions", "retire", "2", "--yes", *here]).returncode == 0
    trail = json.loads(run_azimuth(["versions", "audit", "--json", *here]).stdout)["entries"]
    asked = [entry["action"] for entry in reversed(trail) if entry["actor"] != "azimuth"]
    assert asked == ["created", "judgments", "registered", "promoted", "rolled_back", "retired"]


def test_a_worse_embedder_is_refused_and_can_be_forced(address: str, tmp_path: Path) -> None:
    # Sixty documents of words that are their own: eight dimensions cannot tell them apart.
    texts = [" ".join(f"w{at}x{word}" for word in range(8)) for at in range(60)]
    write_pairs(tmp_path, [{"text": text} for text in texts], [" ".join(text.split()[:4]) for text in texts])
    here = ["-c", "worse", "--url", address]
    assert run_azimuth(["ingest", str(tmp_path), *here]).returncode == 0
    reindex = ["reindex", "--embedder", "hashing:8", "--judgments", str(tmp_path), *here]
    refused = run_azimuth([*reindex, "--promote"])
    assert refused.returncode == 1, refused.stdout
    assert "judgments  FAILED" in refused.stderr
    assert run_azimuth(["versions", "promote", "2", "--force", *here]).returncode == 0
    assert "by force, against" in run_azimuth(["versions", "audit", *here]).stdout


def test_eval_starts_a_service_where_none_runs(folder: Path, tmp_path: Path) -> None:
    own = {"AZIMUTH_PORT": str(unused_port()), "AZIMUTH_DATA_DIR": str(tmp_path / "data")}
    done = run_process(["eval", str(folder), "--modes", "dense"], AZIMUTH_EMBEDDER="hashing:32", **own)
    assert done.returncode == 0, done.stderr
    assert "dense" in done.stdout
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists(), "it was left running"


def test_migrate_says_what_it_did(database_url: str, empty_database_url: str) -> None:
    assert run_azimuth(["migrate", "--check"], AZIMUTH_DATABASE_URL=database_url).returncode == 0
    pending = run_azimuth(["migrate", "--check"], AZIMUTH_DATABASE_URL=empty_database_url)
    assert (pending.returncode, "pending 0001_foundation" in pending.stdout) == (1, True)
    assert "applied 0001_foundation" in run_azimuth(["migrate"], AZIMUTH_DATABASE_URL=empty_database_url).stdout
    assert "up to date" in run_azimuth(["migrate"], AZIMUTH_DATABASE_URL=empty_database_url).stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "message"),
    [
        (["search", "x", "-c", "c"], {"AZIMUTH_PORT": "1"}, 3, "azimuth up"),
        (["ingest", "/nowhere.jsonl", "-c", "c"], {}, 2, "no file"),
        (["eval", "/nowhere"], {}, 2, "BEIR"),
        (["serve"], {"AZIMUTH_HOST": "0.0.0.0"}, 2, "AZIMUTH_API_KEYS"),
        (["up"], {"AZIMUTH_PORT": "seventeen"}, 2, "AZIMUTH_PORT"),
        (["up"], {"AZIMUTH_DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/none"}, 3, "127.0.0.1"),
        (["frobnicate"], {}, 2, "frobnicate"),
    ],
)
def test_a_command_that_cannot_work_ends_with_one_clear_line(
    arguments: list[str], environment: dict[str, str], code: int, message: str, tmp_path: Path
) -> None:
    done = run_process(
        arguments, AZIMUTH_DATA_DIR=str(tmp_path), **({"AZIMUTH_PORT": str(unused_port())} | environment)
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "secret" not in done.stderr


def test_a_refusal_of_the_service_is_told_as_it_says(address: str) -> None:
    done = run_azimuth(["search", "x", "-c", "never-made", "--url", address])
    assert done.returncode == 2
    assert "404" in done.stderr
    bad = run_azimuth(["search", "x", "-c", "never-made", "--url", address, "--filter", "{"])
    assert (bad.returncode, "not JSON" in bad.stderr) == (2, True)


def test_what_is_exported_can_be_loaded_and_exported_again(address: str, tmp_path: Path) -> None:
    lines = [
        {"id": "b", "title": "", "text": "zweite Zeile\n\u2028", "metadata": {"z": [1, None], "a": {"ü": 1.5}}},
        {"id": "a/ 1", "title": "Erste", "text": "", "metadata": {}},
    ]
    given, exported, again = (tmp_path / name for name in ("given.jsonl.gz", "exported.jsonl", "again.jsonl"))
    given.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    for source, name, target in ((given, "first-of-two", exported), (exported, "second-of-two", again)):
        assert run_azimuth(["ingest", str(source), "-c", name, "--url", address]).returncode == 0
        assert run_azimuth(["export", "-c", name, "-o", str(target), "--url", address]).returncode == 0
    assert [json.loads(line) for line in exported.read_bytes().splitlines()[1:]] == lines[::-1]
    assert again.read_bytes() == exported.read_bytes()
    assert run_azimuth(["export", "-c", "first-of-two", "--url", address]).stdout.encode() == exported.read_bytes()
    listed = json.loads(run_azimuth(["collections", "--json", "--url", address]).stdout)["collections"]
    assert {one["name"]: one["counts"]["documents"] for one in listed}["second-of-two"] == 2
    assert "second-of-two" in run_azimuth(["collections", "--url", address]).stdout
    missing = run_azimuth(["export", "-c", "nowhere", "-o", str(tmp_path / "none"), "--url", address])
    assert (missing.returncode, (tmp_path / "none").exists()) == (2, False)


def test_what_vectors_tell_has_commands(address: str, tmp_path: Path) -> None:
    given, at = tmp_path / "given.jsonl", ["-c", "explored", "--url", address]
    texts = ("stars in the sky", "stars in the sky", "bread of flour")
    lines = [{"id": str(at), "text": text, "metadata": {"even": at % 2 == 0}} for at, text in enumerate(texts)]
    given.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert run_azimuth(["ingest", str(given), "--wait", *at]).returncode == 0
    assert json.loads(run_azimuth(["duplicates", "--json", *at]).stdout)["pairs"] == [{"ids": ["0", "1"], "score": 1.0}]
    filtered = run_azimuth(["duplicates", "--filter", '{"even": true}', *at])
    assert "0 pairs of 2 documents" in filtered.stderr
    assert "bread" in run_azimuth(["clusters", "--count", "2", *at]).stdout
    labels = ["--label", "the stars", "--label", "a bread"]
    found = json.loads(run_azimuth(["classify", "--json", *labels, *at]).stdout)["results"]
    assert [one["label"] for one in found] == ["the stars", "the stars", "a bread"]
    assert run_azimuth(["classify", "--label", "one", *at]).returncode == 2


def test_an_imported_collection_is_equal(address: str, tmp_path: Path) -> None:
    embedder = {"model": "external", "dimensions": 3, "identity": "x"}
    settings: dict[str, Any] = {"embedder": embedder, "candidates": 7, "indexed": ["n"], "index": {"storage": "binary"}}
    settings["synonyms"] = [["car", "automobile"], {"from": ["tv"], "to": ["television"]}]
    judged = [("q1", "d8"), ("q1", "d2"), ("a", "d1")]
    documents: list[Any] = [
        {"id": f"d{n}", "text": f"text {n}", "metadata": {"n": n}, "vector": [n, 1, -n]} for n in range(9)
    ]
    first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
    url = ("--url", address)
    with Client(address) as client:
        client.put_collection("exported", settings)
        client.write("exported", documents)
        qrels = [{"query-id": query, "corpus-id": document, "score": 2} for query, document in judged]
        queries = [{"_id": query, "text": f"text of {query}"} for query in ("q1", "a")]
        client.call("POST", "/v1/collections/exported/judgments", json={"queries": queries, "qrels": qrels})
        client.call("PUT", "/v1/aliases/known-as", json={"collection": "exported"})
        assert azimuth("export", "-c", "exported", "-o", str(first), *url).exit_code == 0
        outcomes = [azimuth("import", str(first), "-c", "imported", "--json", *url) for _ in range(2)]
        assert [json.loads(one.stdout)["created"] for one in outcomes] == [9, 0]
        assert json.loads(outcomes[1].stdout)["unchanged"] == 9
        assert client.call("GET", "/v1/collections/imported/versions/1")["index"]["storage"] == "binary"
        assert client.collection("known-as")["name"] == "exported", "an alias is not taken away"
        theirs = client.collection("exported")["settings"]
        client.delete_collection("exported")
        assert azimuth("import", str(first), "-c", "imported", *url).exit_code == 0
        assert azimuth("export", "-c", "imported", "-o", str(second), *url).exit_code == 0
        assert second.read_bytes() == first.read_bytes()
        assert client.collection("imported")["settings"] == theirs
        client.put_collection("another", {**settings, "embedder": {**embedder, "identity": "y"}})
    other = azimuth("import", str(first), "-c", "another", *url)
    assert (other.exit_code, "another embedder" in other.stderr) == (2, True)
    second.write_text("{}\n")
    assert azimuth("import", str(second), "-c", "imported", *url).exit_code == 2


def test_documents_are_listed_read_counted_and_deleted(address: str) -> None:
    with Client(address) as client:
        client.put_collection("by-command")
        client.write("by-command", [{"id": id_, "title": f"[b]{id_}", "text": "x"} for id_ in "abc"])

    def documents(*words: str) -> tuple[int, str]:
        done = azimuth("documents", words[0], "-c", "by-command", "--url", address, *words[1:])
        return done.exit_code, done.stdout

    assert [one["id"] for one in json.loads(documents("list", "--json", "--limit", "2")[1])["documents"]] == ["a", "b"]
    assert "[b]c" in documents("list", "--filter", '{"$id": {"$gt": "b"}}')[1]
    assert documents("count") == (0, "3\n")
    code, found = documents("get", "a", "nobody", "--vectors")
    assert (code, json.loads(found)["documents"][0].keys() >= {"text", "vectors"}) == (1, True)
    assert documents("delete")[0] == 2
    assert documents("delete", "a", "nobody") == (1, "1 deleted\n")
    assert documents("delete", "--filter", '{"$id": "b"}') == (0, "1 deleted\n")
    assert json.loads(azimuth("jobs", "--json", "--url", address).stdout).keys() == {"jobs"}
    assert azimuth("jobs", "--url", address).exit_code == 0


def test_the_version_is_told() -> None:
    assert run_process(["--version"]).stdout.strip() == __version__


def test_help_teaches() -> None:
    shown = run_azimuth(["--help"]).stdout
    for command in ("up", "serve", "worker", "migrate", "ingest", "search", "eval", "reindex", "versions", "judgments"):
        assert command in shown
        assert len(run_azimuth([command, "--help"]).stdout.split()) > 20
