"""What operators type to change the embedder of a live collection, against a service that answers as it is told to."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from azimuth_client import ApiError, Unreachable
from service.cli import follow_version, shell
from service.cli.follow_version import duration, follow, progress_text
from tests import beir
from tests.commands import azimuth, connected

GOOD: dict[str, Any] = {"name": "canary", "passed": True, "detail": "lowest cosine 0.9999", "figures": {"cosine": 1.0}}
BAD: dict[str, Any] = {"name": "judgments", "passed": False, "detail": "nDCG@10 -0.21 [-0.25, -0.17]", "figures": {}}
NOTHING: dict[str, Any] = {"name": "shadow", "passed": None, "detail": "no live queries [yet]", "figures": {}}

JUDGED_AT = "2026-01-02T03:05:00Z"


def version(number: int, state: str, **changed: Any) -> dict[str, Any]:
    progress = {"done": 0, "total": 0, "failed": 0, "per_second": None, "eta_seconds": None}
    return {
        "number": number,
        "state": state,
        "fingerprint": "f" * 64,
        "active": state == "active",
        "previous": False,
        "paused": False,
        "reason": None,
        "embedder": {
            "model": "all-MiniLM-L6-v2",
            "revision": None,
            "query_prompt": "",
            "document_prompt": "passage: ",
            "dimensions": None,
            "identity": None,
        },
        "chunking": {"max_tokens": None, "overlap_tokens": 32},
        "index": {"kind": "hnsw", "m": 16, "ef_construction": 64, "storage": "halfvec"},
        "dimensions": 384,
        "max_tokens": 256,
        "chunks": 1234,
        "indexed": False,
        "progress": progress | changed.pop("progress", {}),
        "checks": [GOOD, NOTHING] if state == "ready" else [],
        "gathered_at": None,
        "created_at": "2026-01-02T03:04:05Z",
        **changed,
    }


def problem(
    status: int, kind: str, detail: str, errors: list[dict[str, str]] | None = None, **more: Any
) -> httpx.Response:
    body = {"type": f"urn:azimuth:error:{kind}", "title": kind, "status": status, "detail": detail}
    return httpx.Response(status, json=body | {"errors": errors or [], "request_id": "r"} | more)


class FakeService:
    """Collection `c`: version 1 is active. `looks` are the answers, one after another, to who asks for version 2."""

    def __init__(self) -> None:
        self.looks: list[dict[str, Any] | BaseException | httpx.Response] = []
        self.asked: list[tuple[str, str, Any]] = []
        bodies = {
            "GET ": {"active_version": 2},
            "GET /versions": {"active_version": 1, "versions": [version(1, "active")]},
            "POST /versions/2/promote": version(2, "active"),
            "POST /versions/rollback": version(1, "active"),
            "POST /judgments": {"queries": 1, "judgments": 2, "unknown_documents": 1, "uploaded_at": JUDGED_AT},
            "DELETE /versions/2": version(2, "retired"),
        }
        self.answers = {call: httpx.Response(200, json=body) for call, body in bodies.items()}
        self.answers["POST /versions"] = httpx.Response(202, json=version(2, "backfilling"))

    def then(self, *versions: dict[str, Any] | BaseException | httpx.Response) -> None:
        self.looks += versions

    def sent(self, method: str, path: str) -> list[Any]:
        return [body for asked, where, body in self.asked if (asked, where) == (method, path)]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/collections/c")
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        if (request.method, path) != ("GET", "/versions/2"):
            return self.answers[f"{request.method} {path}"]
        look = self.looks.pop(0)
        if isinstance(look, BaseException):
            raise look
        return look if isinstance(look, httpx.Response) else httpx.Response(200, json=look)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    fake = FakeService()
    monkeypatch.setattr(follow_version, "POLL_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(shell, "connect", lambda _: connected(fake))
    yield fake
    assert not fake.looks, "the command left before the end"


FILLING = {"done": 1200, "total": 5183, "failed": 3, "per_second": 85.4, "eta_seconds": 46.6}


def test_a_version_is_registered_followed_and_waits(service: FakeService) -> None:
    service.then(version(2, "backfilling", progress=FILLING), version(2, "indexing"), version(2, "ready"))
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--dimensions", "128", "--storage", "binary")
    assert done.exit_code == 0, done.output
    wanted = {"embedder": {"model": "other", "dimensions": 128}, "index": {"storage": "binary"}}
    assert service.sent("POST", "/versions") == [wanted]
    assert "1,200 of 5,183 documents, 3 set aside, 85/s, 47 s left" in done.stderr
    assert "no live queries [yet]" in done.stdout, "text in brackets is no markup"
    assert "azimuth versions promote 2 -c c" in done.stderr
    assert service.sent("POST", "/versions/2/promote") == []


def test_what_is_not_named_of_the_embedder_stays(service: FakeService) -> None:
    service.then(version(2, "ready"))
    assert azimuth("reindex", "-c", "c", "--dimensions", "128").exit_code == 0
    stays = {"model": "all-MiniLM-L6-v2", "query_prompt": "", "document_prompt": "passage: "}
    assert service.sent("POST", "/versions") == [{"embedder": {**stays, "dimensions": 128}}]


def test_it_attaches_to_a_version_that_is_under_way(service: FakeService) -> None:
    service.answers["POST /versions"] = problem(
        409, "version-exists", "version 2 (backfilling) has the same", [{"field": "version", "message": "2"}]
    )
    service.then(version(2, "verifying"), version(2, "ready"))
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--promote", "--note", "better")
    assert done.exit_code == 0, done.output
    assert service.sent("POST", "/versions/2/promote") == [{"force": False, "note": "better"}]
    assert "azimuth versions rollback -c c" in done.stderr


def test_another_conflict_is_told(service: FakeService) -> None:
    service.answers["POST /versions"] = problem(409, "conflict", "too many versions")
    with pytest.raises(ApiError, match="too many versions"):
        azimuth("reindex", "-c", "c", "--embedder", "other")


@pytest.mark.parametrize(("given", "promoted"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_on_a_terminal_it_asks(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, given: str, promoted: int
) -> None:
    monkeypatch.setattr(shell, "interactive", lambda: True)
    service.then(version(2, "ready"))
    done = azimuth("reindex", "-c", "c", "--embedder", "other", given=given)
    assert (done.exit_code, "Promote version 2? [y/N]" in done.output) == (0, True)
    assert len(service.sent("POST", "/versions/2/promote")) == promoted


def test_evidence_against_it_is_shown_and_nobody_is_asked(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "interactive", lambda: True)
    service.then(version(2, "ready", checks=[GOOD, BAD]))
    done = azimuth("reindex", "-c", "c", "--embedder", "other")
    assert done.exit_code == 1
    assert "nDCG@10 -0.21 [-0.25, -0.17]" in done.stdout
    assert "azimuth versions promote 2 --force -c c" in done.stderr


def test_a_refused_promotion_names_what_failed(service: FakeService) -> None:
    service.then(version(2, "ready"))
    service.answers["POST /versions/2/promote"] = problem(
        409, "promotion-refused", "…", [{"field": BAD["name"], "message": BAD["detail"]}], checks=[GOOD, BAD]
    )
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--promote")
    assert done.exit_code == 1
    assert "judgments  FAILED" in done.stderr
    assert "canary" not in done.stderr, "what passed is no reason"
    assert "--force" in done.stderr


def test_interrupted_it_leaves_the_backfill_alone(service: FakeService) -> None:
    service.then(version(2, "backfilling", progress=FILLING), KeyboardInterrupt())
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--url", "http://far:1")
    assert done.exit_code == 130
    assert "goes on without this command" in done.stderr
    for verb in ("pause", "retire"):
        assert f"azimuth versions {verb} 2 -c c --url http://far:1" in done.stderr
    assert {method for method, *_ in service.asked[1:]} == {"GET"}


def test_a_failed_version_says_why_and_how_to_go_on(service: FakeService) -> None:
    service.then(version(2, "failed", reason="the weights differ"))
    done = azimuth("reindex", "-c", "c", "--embedder", "other")
    assert done.exit_code == 1
    assert "the weights differ" in done.stderr
    assert "azimuth versions resume 2 -c c" in done.stderr


def test_for_machines_standard_output_is_the_version_alone(service: FakeService) -> None:
    service.then(version(2, "ready"))
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--promote", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, version(2, "ready"))


@pytest.mark.parametrize("evidence", [{"gathered_at": "2026-01-02T03:06:00Z"}, {"previous": True}], ids=str)
def test_judgments_come_first_and_evidence_that_is_newer_or_never_renewed_is_not_waited_for(
    service: FakeService, folder: Path, evidence: dict[str, Any]
) -> None:
    service.then(version(2, "ready", **evidence))
    assert azimuth("reindex", "-c", "c", "--embedder", "other", "--judgments", str(folder)).exit_code == 0
    paths = [path for method, path, _ in service.asked if method == "POST"]
    assert paths == ["/judgments", "/versions"]


def test_evidence_that_is_older_than_the_judgments_is_waited_for(service: FakeService, folder: Path) -> None:
    older, newer = "2026-01-02T03:04:59.9Z", "2026-01-02T03:05:09Z"
    service.then(
        version(2, "ready", gathered_at=older),
        version(2, "ready", gathered_at=None),
        version(2, "ready", gathered_at=newer, checks=[BAD]),
    )
    done = azimuth("reindex", "-c", "c", "--embedder", "other", "--judgments", str(folder), "--json")
    assert (done.exit_code, json.loads(done.stdout)["checks"]) == (1, [BAD])


def test_newer_evidence_is_not_waited_for_for_ever(service: FakeService) -> None:
    moments = iter([0.0, 1.0, 2.0, 200.0])
    service.then(*[version(2, "ready")] * 2)
    judged_at = datetime.fromisoformat(JUDGED_AT)
    screen = Console(record=True)
    found = follow(connected(service), "c", 2, screen, judged_at=judged_at, clock=lambda: next(moments))
    assert found["state"] == "ready"


def test_it_rides_out_a_restart(service: FakeService) -> None:
    service.then(
        version(2, "backfilling", progress=FILLING),
        httpx.ConnectError("refused"),
        problem(503, "database-unavailable", "The database does not answer."),
        version(2, "ready"),
    )
    screen = Console(record=True, width=200)
    assert follow(connected(service), "c", 2, screen)["state"] == "ready"
    shown = screen.export_text()
    assert shown.index("trying again") < shown.index("answers again")


def test_it_does_not_wait_for_ever(service: FakeService) -> None:
    moments = iter(range(0, 1000, 200))
    service.then(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(Unreachable):
        follow(connected(service), "c", 2, Console(record=True), clock=lambda: float(next(moments)))


def test_a_refusal_that_will_not_pass_ends_it(service: FakeService) -> None:
    service.then(problem(404, "collection-not-found", "There is no such collection."))
    with pytest.raises(ApiError, match="no such collection"):
        follow(connected(service), "c", 2, Console(record=True))


def test_on_a_terminal_each_phase_has_its_bar(service: FakeService) -> None:
    service.then(
        version(2, "backfilling", progress=FILLING),
        version(2, "backfilling", paused=True, progress=FILLING | {"per_second": None, "eta_seconds": None}),
        version(2, "indexing", progress={"done": 10, "total": 40, "eta_seconds": 0.2}),
        version(2, "verifying"),
        version(2, "ready"),
    )
    screen = Console(record=True, width=160, force_terminal=True, legacy_windows=False, color_system=None)
    follow(connected(service), "c", 2, screen)
    shown = screen.export_text()
    for phase in follow_version.PHASES.values():
        assert phase in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (46.6, "47 s"), (60, "1 min"), (200, "3 min 20 s"), (7_503, "2 h 5 min"), (529_300, "6 d 3 h")],
)
def test_durations_are_told_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_slow_rate_is_not_rounded_to_none() -> None:
    assert progress_text(version(2, "indexing", progress={"done": 1, "total": 9, "per_second": 0.34})).endswith("0.3/s")
    assert progress_text(version(1, "active")) == ""


def test_the_list(service: FakeService) -> None:
    found = [
        version(1, "active", chunks=5183),
        version(2, "backfilling", progress=FILLING, paused=True),
        version(3, "failed", reason="[bold] is no markup"),
        version(4, "ready", previous=True, embedder=version(4, "ready")["embedder"] | {"identity": "mine"}),
    ]
    service.answers["GET /versions"] = httpx.Response(200, json={"active_version": 1, "versions": found})
    shown = azimuth("versions", "-c", "c").stdout
    _, *rows = shown.splitlines()[:5]
    for row, words in zip(rows, (["active", "5,183"], ["backfilling"], ["failed"], ["ready", "mine"]), strict=True):
        assert [word for word in words if word not in row] == []
    assert "version 2: 1,200 of 5,183 documents, 3 set aside, paused\n" in shown
    assert "version 3: [bold] is no markup\n" in shown
    assert "version 4: a roll back makes it active again\n" in shown
    assert "version 1:" not in shown


def test_options_may_stand_before_the_command(service: FakeService) -> None:
    service.then(version(2, "ready", checks=[GOOD, BAD]))
    shown = azimuth("versions", "-c", "c", "show", "2")
    assert shown.exit_code == 0, shown.output
    assert "FAILED" in shown.stdout
    assert "f" * 64 in shown.stdout


def test_without_a_collection_there_is_nothing_to_list() -> None:
    done = azimuth("versions")
    assert (done.exit_code, "--collection" in done.stderr) == (2, True)


def test_promote_and_back(service: FakeService) -> None:
    promoted = azimuth("versions", "promote", "2", "-c", "c", "--force", "--note", "n")
    assert (promoted.exit_code, "rollback -c c" in promoted.stdout) == (0, True)
    assert service.sent("POST", "/versions/2/promote") == [{"force": True, "note": "n"}]
    back = azimuth("versions", "rollback", "-c", "c")
    assert (back.exit_code, "Version 1 of c answers again" in back.stdout) == (0, True)
    assert service.sent("POST", "/versions/rollback") == [{"from": 2, "note": ""}], "repeated, it does not go forward"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_say_what_it_is_now(service: FakeService, verb: str) -> None:
    service.answers[f"POST /versions/2/{verb}"] = httpx.Response(
        200, json=version(2, "backfilling", paused=verb == "pause")
    )
    done = azimuth("versions", verb, "2", "-c", "c")
    assert (done.exit_code, "paused" in done.stdout) == (0, verb == "pause")


@pytest.mark.parametrize(
    ("arguments", "interactive", "given", "code", "retired"),
    [(["--yes"], False, None, 0, 1), ([], False, None, 2, 0), ([], True, "y\n", 0, 1), ([], True, "n\n", 1, 0)],
)
def test_vectors_are_not_dropped_by_mistake(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    interactive: bool,
    given: str | None,
    code: int,
    retired: int,
) -> None:
    monkeypatch.setattr(shell, "interactive", lambda: interactive)
    service.then(version(2, "ready"))
    done = azimuth("versions", "retire", "2", "-c", "c", *arguments, given=given)
    assert done.exit_code == code, done.output
    assert len(service.sent("DELETE", "/versions/2")) == retired


def test_the_audit_trail_in_words(service: FakeService) -> None:
    entry: dict[str, Any] = {"at": "2026-01-02T03:04:05Z", "actor": "key 3f9a1c2e", "note": "[b]why[/b]"}
    forced = {"checks": [GOOD, BAD], "forced": True}
    entries = [
        entry | {"number": 3, "action": "rolled_back", "version": 1, "before": 2, "details": {}},
        entry | {"number": 2, "action": "promoted", "version": 2, "before": 1, "details": forced},
        entry | {"number": 1, "action": "judgments", "version": None, "before": None, "details": {}},
    ]
    service.answers["GET /audit"] = httpx.Response(200, json={"entries": entries, "next_cursor": None})
    shown = azimuth("versions", "audit", "-c", "c").stdout
    assert "rolled back to version 1 from 2" in shown
    assert "version 2 promoted in place of 1 by force, against judgments" in shown
    assert "[b]why[/b]" in shown
    assert json.loads(azimuth("versions", "audit", "-c", "c", "--json").stdout)["entries"] == entries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    queries = {"q1": "one", "q2": "not judged"}
    return beir.write(tmp_path / "judged", queries, test=[("q1", "a", 2), ("q1", "b", 0)])


def test_judgments_are_sent_as_a_folder_has_them(service: FakeService, folder: Path) -> None:
    done = azimuth("judgments", str(folder), "-c", "c")
    assert done.exit_code == 0, done.output
    rows = [{"query-id": "q1", "corpus-id": "a", "score": 2}, {"query-id": "q1", "corpus-id": "b", "score": 0}]
    assert service.sent("POST", "/judgments") == [{"queries": [{"_id": "q1", "text": "one"}], "qrels": rows}]
    assert "1 queries with 2 judgments" in done.stderr
    assert "1 judged documents are not in the collection" in done.stderr
