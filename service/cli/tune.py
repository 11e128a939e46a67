"""`azimuth tune`: fusion and reranking of a collection, chosen on judged queries and kept with the evidence."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli import choose_ranking, load_documents, shell, tables
from service.cli.shell import Answer
from service.client.http_client import Client
from service.evaluation import beir
from service.evaluation.cross_validation import Selection
from service.evaluation.replay import RankingSettings


@shell.answering
def tune_collection(
    collection: shell.Collection,
    judgments: Annotated[
        Path | None, typer.Option(help="Judged queries in BEIR layout; default: the collection's own test set.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgments of the folder.")] = "test",
    feedback: Annotated[bool, typer.Option("--feedback", help="Marked queries in place of the test set.")] = False,
    sample: Annotated[
        int, typer.Option(min=choose_ranking.MIN_QUERIES, max=10_000, help="Most queries that are asked.")
    ] = (choose_ranking.SAMPLED_QUERIES),
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts of the cross-validation.")] = choose_ranking.FOLDS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be set, and set nothing.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only say whether the collection is tuned; exit code 1 where it is outdated."),
    ] = False,
    url: shell.Url = None,
) -> Answer:
    """Find the fusion, candidates and reranking that answer judged queries best, and set them with the evidence.

    Each choice is judged on queries that it was not made on (cross-validation). What gains nothing beyond the noise
    is left as it is.
    """
    with shell.connect(url) as client:
        if check:
            return _tuning_state(client.call("GET", f"/v1/collections/{collection}"))
        client.call("GET", f"/v1/collections/{collection}")  # a wrong name is told before a wrong folder
        if feedback:
            judged = _marked_queries(client, collection)
        else:
            judged = _stored_judgments(client, collection) if judgments is None else beir.judgments(judgments, split)
        with load_documents.progress_bar(shell.err) as progress:
            found = choose_ranking.tune(
                client,
                collection,
                judged,
                sample=sample,
                folds=folds,
                progress=lambda stage, steps: partial(progress.advance, progress.add_task(stage, total=steps)),
            )
        wanted = found.settings()
        if wanted and not dry_run:
            client.call("PUT", f"/v1/collections/{collection}", json=wanted)
    if found.reranker_missing is not None:
        shell.print_err(f"only fusion and candidates were tuned, without reranking: {found.reranker_missing}", "yellow")
    told = f"{collection} has {_ranking_text(found.after)} from now on, with the evidence."
    if not wanted:
        told = f"Nothing is better beyond the noise: {collection} stays as it is."
    elif dry_run:
        told = f"{collection} would get {_ranking_text(found.after)}."
    return Answer(_outcome_json(found, stored=bool(wanted) and not dry_run), _table(found), told)


def _stored_judgments(client: Client, collection: str) -> beir.BeirJudgments:
    """The test set of the collection."""
    kept = client.call("GET", f"/v1/collections/{collection}/judgments", params={"full": "true"})
    if not kept["queries"]:
        shell.fail(
            f"{collection} has no judgments: name a folder with --judgments, or upload one by `azimuth judgments`"
        )
    grades: dict[str, dict[str, int]] = {}
    for row in kept["set"]["qrels"]:
        grades.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return beir.BeirJudgments(queries={row["_id"]: row["text"] for row in kept["set"]["queries"]}, grades=grades)


def _marked_queries(client: Client, collection: str) -> beir.BeirJudgments:
    """With the documents that helped. What keys with a filter mark says nothing of the whole collection."""
    marks = [one for one in client.feedback(collection) if one["documents"] and not one["tenant"]]
    grades = {one["id"]: dict.fromkeys(one["documents"], 1) for one in marks}
    return beir.BeirJudgments(queries={one["id"]: one["query"] for one in marks}, grades=grades)


def _tuning_state(collection: dict[str, Any]) -> Answer:
    if (tuned := collection["settings"]["tuned"]) is None:
        return Answer({"tuned": None}, f"{collection['name']} is not tuned.")
    queries = f"{tuned['queries']} queries, {tables.local_time(tuned['at'])}"
    if tuned["outdated"]:
        shell.print_err(f"Version {collection['active_version']} is active now: tune again.")
    told = f"{collection['name']} was tuned on version {tuned['version']} with {queries}."
    return Answer({"tuned": tuned}, told, code=shell.EXIT_PARTIAL if tuned["outdated"] else 0)


def _table(found: choose_ranking.TuningOutcome) -> Table:
    table = Table("", "in use", "best", "nDCG@10, held out", "difference, 95 %", "")
    rows: list[tuple[str, Selection | None, str, str]] = [
        ("first stage", found.fusion, _first_stage_text(found.before), _first_stage_text(found.best)),
        ("reranking", found.rerank, _rerank_text(found.before), _rerank_text(found.best)),
    ]
    for name, choice, now, best in rows:
        if choice is not None:
            figures = f"{choice.before:.4f} -> {choice.after:.4f}"
            difference = f"{choice.gain.mean:+.4f} [{choice.gain.low:+.4f}, {choice.gain.high:+.4f}]"
            verdict = "better" if choice.better else "no better"
            table.add_row(name, now, best, figures, difference, verdict)
    return table


def _first_stage_text(recipe: RankingSettings) -> str:
    fusion = recipe.fusion
    how = f"convex, alpha {fusion.alpha:g}" if fusion.method == "convex" else f"rrf, k {fusion.k}"
    return f"{how}, {recipe.candidates} candidates"


def _rerank_text(recipe: RankingSettings) -> str:
    return "" if recipe.rerank is None else f"depth {recipe.rerank.depth}, weight {recipe.rerank.weight:g}"


def _ranking_text(recipe: RankingSettings) -> str:
    return f"{_first_stage_text(recipe)}; rerank {_rerank_text(recipe)}"


def _outcome_json(found: choose_ranking.TuningOutcome, *, stored: bool) -> dict[str, Any]:
    gains = {
        name: None if choice is None else {**choose_ranking.gain_to_json(choice), "better": choice.better}
        for name, choice in (("fusion", found.fusion), ("rerank", found.rerank))
    }
    figures = {name: getattr(found, name) for name in ("version", "queries", "folds")}
    settings = {name: asdict(getattr(found, name)) for name in ("before", "after", "best")}
    return {**figures, **settings, "gains": gains, "stored": stored}
