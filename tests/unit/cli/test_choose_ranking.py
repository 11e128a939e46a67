"""Settings are tried on what a few searches said; the service must then answer as it was told it would."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli import choose_ranking, shell
from service.core.collections import FusionSettings, RerankSettings
from service.core.errors import Misconfigured, Unavailable
from service.evaluation import replay
from service.evaluation.beir import BeirJudgments
from service.evaluation.replay import RankingSettings
from tests import beir
from tests.commands import azimuth, connected
from tests.edge import Edge, WordReranker, edge

WORDS = ("whale fin sea deep song calf krill ocean", "wave harbour ship sail crew storm port rope")
WORD = " ".join(WORDS).split()
DOCUMENTS = [
    {"id": f"d{at:02}", "title": WORD[at % 16], "text": " ".join(WORD[(at * step) % 16] for step in range(1, 8))}
    for at in range(40)
]
RECIPES = [
    RankingSettings(fusion=FusionSettings(alpha=0.3), candidates=100),
    RankingSettings(fusion=FusionSettings(alpha=1.0), candidates=5),
    RankingSettings(fusion=FusionSettings(alpha=0.0), candidates=10),
    RankingSettings(fusion=FusionSettings(method="rrf", k=10), candidates=12),
    RankingSettings(fusion=FusionSettings(alpha=0.6), candidates=20, rerank=RerankSettings(depth=15, weight=0.4)),
    RankingSettings(fusion=FusionSettings(method="rrf"), candidates=30, rerank=RerankSettings(depth=10, weight=0.9)),
    RankingSettings(fusion=FusionSettings(alpha=0.5), candidates=20, rerank=RerankSettings(depth=30, weight=0.0)),
]


async def answered(api: Edge, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = await api.client.post("/v1/collections/papers/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
async def test_a_replay_answers_as_the_service_does(recipe: RankingSettings) -> None:
    async with edge(reranker=WordReranker()) as api:
        await api.collection()
        for at in range(0, len(DOCUMENTS), 5):
            await api.write(*DOCUMENTS[at : at + 5])
        for text in ("whale song", "storm in the harbour", "deep sea krill ocean", "nothing of it"):
            heard = replay.recorded_query([await answered(api, one) for one in replay.leg_requests(text)], {"d01": 1})
            body: dict[str, Any] = {
                "query": text,
                "k": 10,
                "fusion": asdict(recipe.fusion),
                "candidates": recipe.candidates,
                "rerank": asdict(recipe.rerank) if recipe.rerank else False,
                "include": [],
            }
            if recipe.rerank is not None:
                relevance = replay.rerank_scores(await answered(api, replay.rerank_request(text, recipe)))
                heard = replace(heard, relevance=relevance)
            served = [hit["id"] for hit in (await answered(api, body))["hits"]]
            assert replay.ranking(heard, recipe) == served


class Legs:
    """Collection `c`, in which the dense leg is right about every query and the lexical leg about none.

    A document `right-<query>` is near in meaning, `wrong-<query>` says the words.
    """

    def __init__(self, *, reranker: bool = True, certainty: float = 1.0, useful: bool = True) -> None:
        self.settings: dict[str, Any] = {
            "fusion": {"method": "convex", "alpha": 0.2, "k": 60},
            "candidates": 100,
            "rerank": {"depth": 50, "weight": 0.4},
            "tuned": None,
        }
        self.reranker = reranker
        self.certainty = certainty
        self.useful = useful
        self.version = 1
        self.judgments: dict[str, Any] = {"queries": 0, "judgments": 0, "unknown_documents": 0, "uploaded_at": None}
        self.degraded: list[dict[str, str]] = []
        self.sent: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content or b"{}")
        match request.method, request.url.path:
            case "GET", "/v1/collections/c":
                return httpx.Response(200, json={"name": "c", "settings": self.settings, "active_version": 1})
            case "GET", "/v1/collections/c/judgments":
                return httpx.Response(200, json=self.judgments)
            case "PUT", "/v1/collections/c":
                self.sent.append(body)
                return httpx.Response(200, json={})
            case "POST", "/v1/collections/c/search":
                return httpx.Response(200, json=self._found(body))
            case "POST", "/v1/collections/c/search/batch":
                return httpx.Response(200, json={"results": [self._found(one) for one in body["searches"]]})
        raise AssertionError(f"nobody expected {request.method} {request.url.path}")

    def _found(self, body: dict[str, Any]) -> dict[str, Any]:
        query = body["query"]
        near, far = ("right", "wrong") if self.useful else ("wrong", "other")
        reranked = bool(body.get("rerank")) and self.reranker
        hits = [
            self._hit(f"{near}-{query}", (1, 0.9), (2, 2.0), 0.1 if reranked else None),
            self._hit(f"{far}-{query}", (2, 0.3), (1, 9.0), 0.9 if reranked else None),
        ]
        missing = [{"stage": "rerank", "reason": "no reranker is configured"}]
        degraded = missing if body.get("rerank") and not self.reranker else []
        plan = {"dense": "exact", "reranked": reranked}
        return {"hits": hits, "embedder_version": self.version, "plan": plan, "degraded": [*degraded, *self.degraded]}

    def _hit(self, id_: str, dense: tuple[int, float], words: tuple[int, float], relevance: float | None) -> Any:
        legs = {
            name: {"rank": rank, "score": score, "normalised": 0.0, "share": 0.0}
            for name, (rank, score) in (("dense", dense), ("lexical", words))
        }
        rerank = None if relevance is None else {"rank": 1, "score": relevance, "share": 0.0}
        return {"id": id_, "explain": {**legs, "fusion": 0.0, "certainty": self.certainty, "rerank": rerank}}


def judged(count: int) -> BeirJudgments:
    return BeirJudgments(
        queries={f"q{at}": f"q{at}" for at in range(count)},
        grades={f"q{at}": {f"right-q{at}": 1} for at in range(count)},
    )


def test_what_is_better_on_queries_that_it_was_not_chosen_on_is_found_and_told() -> None:
    legs = Legs()
    found = choose_ranking.tune(connected(legs), "c", judged(60), folds=4)
    assert found.fusion.better
    assert found.fusion.after == 1.0
    assert found.fusion.before < 0.7
    assert found.after.fusion.alpha == 0.55, "the nearest of those that are equally good"
    assert found.after.candidates == 100
    assert found.rerank is not None
    assert found.rerank.better, "this reranker prefers what is wrong: it is to count less"
    assert found.after.rerank is not None
    assert found.after.rerank.weight < 0.5
    told = found.settings()
    assert told["rerank"] == {"depth": found.after.rerank.depth, "weight": found.after.rerank.weight}
    assert told["fusion"] == {"method": "convex", "alpha": 0.55, "k": 60}
    evidence = told["tuned"]
    assert (evidence["version"], evidence["queries"], evidence["folds"]) == (1, 60, 4)
    assert evidence["fusion"]["low"] > 0


def test_where_nothing_is_better_nothing_is_to_be_set() -> None:
    found = choose_ranking.tune(connected(Legs(useful=False)), "c", judged(40))
    assert not found.changed
    assert found.settings() == {}


def test_without_a_reranker_the_rest_is_tuned() -> None:
    found = choose_ranking.tune(connected(Legs(reranker=False)), "c", judged(40))
    assert (found.rerank, found.reranker_missing) == (None, "no reranker is configured")
    assert found.fusion.better
    assert "rerank" not in found.settings()
    assert "rerank" not in found.settings()["tuned"]


def test_an_uncertain_dense_leg_is_replayed_as_uncertain() -> None:
    """Its weight is what its certainty leaves of alpha, so that more alpha is wanted for the same."""
    found = choose_ranking.tune(connected(Legs(reranker=False, certainty=0.2)), "c", judged(40))
    assert found.after.fusion.alpha > 0.6


def test_too_few_queries_and_half_an_answer_are_no_evidence() -> None:
    with pytest.raises(Misconfigured, match="29 judged queries"):
        choose_ranking.tune(connected(Legs()), "c", judged(29))
    legs = Legs()
    legs.degraded = [{"stage": "lexical", "reason": "the lexical index is being built"}]
    with pytest.raises(Unavailable, match="being built"):
        choose_ranking.tune(connected(legs), "c", judged(30))


def test_the_sample_is_bounded_the_same_every_time_and_has_only_answerable_queries() -> None:
    judgments = judged(50)
    judgments.grades["q7"] = {"right-q7": 0}
    chosen = choose_ranking.sample_queries(judgments, 40)
    assert len(chosen) == len(set(chosen)) == 40
    assert chosen == choose_ranking.sample_queries(judgments, 40)
    assert "q7" not in choose_ranking.sample_queries(judgments, 100)


@pytest.fixture
def legs(monkeypatch: pytest.MonkeyPatch) -> Legs:
    made = Legs(reranker=False)
    monkeypatch.setattr(shell, "connect", lambda _: connected(made))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    queries = [f"q{at}" for at in range(40)]
    rows = [(query, f"right-{query}", 1) for query in queries]
    return beir.write(tmp_path / "judged", dict(zip(queries, queries, strict=True)), train=rows)


def test_it_sets_what_is_better_with_the_evidence(legs: Legs, folder: Path) -> None:
    done = azimuth("tune", "-c", "c", "--judgments", folder, "--split", "train")
    assert done.exit_code == 0, done.output
    (sent,) = legs.sent
    assert sent.keys() == {"fusion", "candidates", "tuned"}
    assert sent["tuned"]["queries"] == 40
    assert "c has convex, alpha 0.55" in done.stdout
    assert "no reranker is configured" in done.stderr


def test_a_dry_run_sets_nothing(legs: Legs, folder: Path) -> None:
    done = azimuth("tune", "-c", "c", "--judgments", folder, "--split", "train", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert legs.sent == []
    assert (told["stored"], told["gains"]["fusion"]["better"], told["gains"]["rerank"]) == (False, True, None)
    assert told["after"]["fusion"]["alpha"] == 0.55


def test_noise_sets_nothing(legs: Legs, folder: Path) -> None:
    legs.useful = False
    done = azimuth("tune", "-c", "c", "--judgments", folder, "--split", "train")
    assert (done.exit_code, legs.sent) == (0, [])
    assert "c stays as it is" in done.stdout


def test_its_own_test_set_is_taken_and_asked_for_where_there_is_none(legs: Legs) -> None:
    done = azimuth("tune", "-c", "c")
    assert done.exit_code == 2
    assert "azimuth judgments" in done.stderr
    wire = judged(40).wire()
    legs.judgments = {"queries": 40, "judgments": 40, "unknown_documents": 0, "uploaded_at": "2026-01-01", "set": wire}
    done = azimuth("tune", "-c", "c", "--sample", "35")
    assert done.exit_code == 0, done.output
    assert legs.sent[0]["tuned"]["queries"] == 35


def test_whether_it_is_tuned_is_told_and_whether_it_still_fits(legs: Legs) -> None:
    assert "c is not tuned" in azimuth("tune", "-c", "c", "--check").stdout
    legs.settings["tuned"] = {"version": 1, "at": "2026-01-01T00:00:00+00:00", "queries": 40, "outdated": False}
    done = azimuth("tune", "-c", "c", "--check")
    assert (done.exit_code, "tuned on version 1 with 40 queries" in done.stdout) == (0, True)
    legs.settings["tuned"]["outdated"] = True
    done = azimuth("tune", "-c", "c", "--check")
    assert (done.exit_code, "tune again" in done.stderr) == (1, True)
