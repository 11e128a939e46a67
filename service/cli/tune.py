"""`azimuth tune`: fusion and reranking of a collection, chosen on judged queries and kept with the evidence."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from service.cli import choose_ranking, load_documents, shell, tables
from service.client.http_client import Client
from service.evaluation import beir
from service.evaluation.cross_validation import Selection
from service.evaluation.replay import RankingSettings


def tune_collection(
    collection: shell.Collection,
    judgments: Annotated[
        Path | None,
        typer.Option(help="Judged queries in BEIR layout; default: the collection's own test set."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgments of the folder.")] = "test",
    sample: Annotated[int, typer.Option(min=choose_ranking.FEWEST, max=10_000, help="Most queries that are asked.")] = (
        choose_ranking.SAMPLE
    ),
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts of the cross-validation.")] = choose_ranking.FOLDS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be set, and set nothing.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only say whether the collection is tuned; exit code 1 where it is outdated."),
    ] = False,
    as_json: shell.AsJson = False,
    url: shell.Url = None,
) -> None:
    """Find the fusion, candidates and reranking that answer judged queries best, and set them with the evidence.

    Each choice is judged on queries that it was not made on (cross-validation). What gains nothing beyond the noise
    is left as it is.
    """
    with shell.connect(url) as client:
        if check:
            _tell_tuned(client.call("GET", f"/v1/collections/{collection}"), as_json)
            return
        client.call("GET", f"/v1/collections/{collection}")  # a wrong name is told before a wrong folder
        judged = _own(client, collection) if judgments is None else beir.judgments(judgments, split)
        with load_documents.progress_on(shell.err) as progress:
            steps = _steps(progress)
            found = choose_ranking.tune(client, collection, judged, sample=sample, folds=folds, progress=steps)
        wanted = found.settings()
        if wanted and not dry_run:
            client.call("PUT", f"/v1/collections/{collection}", json=wanted)
    if as_json:
        shell.out.print_json(data=_as_json(found, stored=bool(wanted) and not dry_run))
        return
    shell.out.print(_table(found))
    if found.unread is not None:
        shell.say(f"only fusion and candidates were tuned, without reranking: {found.unread}", "yellow")
    if not wanted:
        shell.tell(f"Nothing is better beyond the noise: {collection} stays as it is.")
    elif dry_run:
        shell.tell(f"{collection} would get {_shown(found.after)}.")
    else:
        shell.tell(f"{collection} has {_shown(found.after)} from now on, with the evidence.")


def _own(client: Client, collection: str) -> beir.BeirJudgments:
    """The test set of the collection."""
    kept = client.call("GET", f"/v1/collections/{collection}/judgments", params={"full": "true"})
    if not kept["queries"]:
        shell.stop(
            f"{collection} has no judgments: name a folder with --judgments, or upload one by `azimuth judgments`"
        )
    grades: dict[str, dict[str, int]] = {}
    for row in kept["set"]["qrels"]:
        grades.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return beir.BeirJudgments(queries={row["_id"]: row["text"] for row in kept["set"]["queries"]}, grades=grades)


def _steps(progress: Progress) -> choose_ranking.Progress:
    def start(stage: str, steps: int) -> Callable[[], None]:
        task = progress.add_task(stage, total=steps)
        return lambda: progress.advance(task)

    return start


def _tell_tuned(collection: dict[str, Any], as_json: bool) -> None:
    tuned = collection["settings"]["tuned"]
    if as_json:
        shell.out.print_json(data={"tuned": tuned})
    elif tuned is None:
        shell.tell(f"{collection['name']} is not tuned.")
    else:
        queries = f"{tuned['queries']} queries, {tables.when(tuned['at'])}"
        shell.tell(f"{collection['name']} was tuned on version {tuned['version']} with {queries}.")
    if tuned is not None and tuned["outdated"]:
        shell.stop(f"Version {collection['active_version']} is active now: tune again.", shell.PARTLY)


def _table(found: choose_ranking.Outcome) -> Table:
    table = Table("", "in use", "best", "nDCG@10, held out", "difference, 95 %", "")
    rows: list[tuple[str, Selection | None, str, str]] = [
        ("first stage", found.fusion, _first(found.before), _first(found.best)),
        ("reranking", found.rerank, _second(found.before), _second(found.best)),
    ]
    for name, choice, now, best in rows:
        if choice is not None:
            figures = f"{choice.before:.4f} -> {choice.after:.4f}"
            difference = f"{choice.gain.mean:+.4f} [{choice.gain.low:+.4f}, {choice.gain.high:+.4f}]"
            verdict = "better" if choice.better else "no better"
            table.add_row(name, now, best, figures, difference, verdict)
    return table


def _first(recipe: RankingSettings) -> str:
    fusion = recipe.fusion
    how = f"convex, alpha {fusion.alpha:g}" if fusion.method == "convex" else f"rrf, k {fusion.k}"
    return f"{how}, {recipe.candidates} candidates"


def _second(recipe: RankingSettings) -> str:
    return "" if recipe.rerank is None else f"depth {recipe.rerank.depth}, weight {recipe.rerank.weight:g}"


def _shown(recipe: RankingSettings) -> str:
    return f"{_first(recipe)}; rerank {_second(recipe)}"


def _as_json(found: choose_ranking.Outcome, *, stored: bool) -> dict[str, Any]:
    choices = {"fusion": found.fusion, "rerank": found.rerank}
    return {
        "version": found.version,
        "queries": found.queries,
        "folds": found.folds,
        "before": _recipe_json(found.before),
        "after": _recipe_json(found.after),
        "best": _recipe_json(found.best),
        "gains": {
            name: None if choice is None else {**choose_ranking.gain_json(choice), "better": choice.better}
            for name, choice in choices.items()
        },
        "stored": stored,
    }


def _recipe_json(recipe: RankingSettings) -> dict[str, Any]:
    return {
        "fusion": choose_ranking.fusion_json(recipe.fusion),
        "candidates": recipe.candidates,
        "rerank": choose_ranking.rerank_json(recipe.rerank),
    }
