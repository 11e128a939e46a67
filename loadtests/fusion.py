"""How should the legs be fused? `python -m loadtests.fusion FOLDER... --url http://127.0.0.1:8000`.

What both legs say of every judged query is asked of the running service once (and kept in `--kept`, if given); every
setting is then tried on it by the very functions that serve searches. FOLDERs are in BEIR layout; `python-docs` is the
demo's corpus, where the first sentence of a documentation string has to find the rest of it.

Prints nDCG@10 by collection, how far each setting stays behind the better leg at worst, and for each collection what
the setting that is best on all others costs it. docs/quality.md and docs/decisions/0024 have the figures.
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from azimuth_client.operations import ndjson
from loadtests.figures import heading, table
from service.cli import demo_corpus, load_documents, shell
from service.client.http_client import Client
from service.core.collections import FusionSettings
from service.evaluation import beir, replay
from service.evaluation.replay import Place, RankingSettings, RecordedQuery

AT_ONCE = 2
_SENTENCE = re.compile(r"\s*(.+?[.!?])(?:\s+|$)(.*)", re.DOTALL)
LEAST_REST = 80

Setting = Callable[[RecordedQuery], list[str]]


def convex(alpha: float, *, certainty: bool = True, floor: float | None = 0.0, candidates: int = 100) -> Setting:
    """`floor`: what cosines are scaled from; None: the lowest candidate's."""

    def ranking(one: RecordedQuery) -> list[str]:
        lowest = min((score for score, _ in one.dense.values()), default=0.0) if floor is None else floor
        dense = {document: (score - lowest, rank) for document, (score, rank) in one.dense.items()}
        moved = replace(one, dense=dense, certainty=one.certainty if certainty else 1.0)
        return replay.ranking(moved, RankingSettings(fusion=FusionSettings(alpha=alpha), candidates=candidates))

    return ranking


def rrf(k: int) -> Setting:
    return lambda one: replay.ranking(one, RankingSettings(fusion=FusionSettings(method="rrf", k=k), candidates=100))


def one_leg(leg: str) -> Setting:
    def ranking(one: RecordedQuery) -> list[str]:
        places: dict[str, Place] = getattr(one, leg)
        ranks = {document: rank for document, (_, rank) in places.items() if rank is not None}
        return sorted(ranks, key=ranks.__getitem__)[: replay.K]

    return ranking


ALPHAS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
LEGS: dict[str, Setting] = {"dense": one_leg("dense"), "lexical": one_leg("lexical")}
SETTINGS: dict[str, Setting] = {
    **{f"convex {alpha:g}": convex(alpha) for alpha in ALPHAS},
    **{f"convex {alpha:g}, 50 candidates": convex(alpha, candidates=50) for alpha in (0.5,)},
    **{f"convex {alpha:g}, 200 candidates": convex(alpha, candidates=200) for alpha in (0.5,)},
    **{f"convex {alpha:g}, always certain": convex(alpha, certainty=False) for alpha in ALPHAS},
    **{f"convex {alpha:g}, from -1": convex(alpha, certainty=False, floor=-1.0) for alpha in (0.6, 0.8)},
    **{f"convex {alpha:g}, from lowest": convex(alpha, certainty=False, floor=None) for alpha in (0.4, 0.5)},
    **{f"rrf {k}": rrf(k) for k in (10, 60)},
}


def asked(client: Client, folder: str, queries: int, language: str) -> list[RecordedQuery]:
    """The collection is loaded where it is not there yet."""
    if folder == demo_corpus.COLLECTION:
        name, (lines, judged) = f"{folder}-rest", python_docs()
    else:
        name = "-".join(Path(folder).parts[-2:]).lower().replace(".", "-")
        lines, judged = list(load_documents.lines_of(folder)[0]), beir.judgments(Path(folder))
    client.ensure_collection(name, {"language": language})
    load_documents.load(client, name, lines, len(lines), shell.err, wait=True)
    chosen = sorted(judged.queries)
    chosen = sorted(random.Random(0).sample(chosen, min(queries, len(chosen))))

    def ask(query: str) -> RecordedQuery:
        return replay.recorded_query(
            client.search_batch(name, replay.leg_requests(judged.queries[query])), judged.grades[query]
        )

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(ask, chosen))


def python_docs() -> tuple[list[bytes], beir.BeirJudgments]:
    """Documentation strings without their first sentence, which is the query that they are to be found by."""
    lines: list[bytes] = []
    queries: dict[str, str] = {}
    for document in demo_corpus.documents():
        signature, _, text = document.text.rpartition("\n\n") if "\n\n" in document.text[:200] else ("", "", "")
        if (match := _SENTENCE.match(text or document.text)) and len(match[2]) >= LEAST_REST:
            queries[document.id] = " ".join(match[1].split())
            rest = f"{signature}\n\n{match[2]}".strip()
            lines.append(ndjson({"id": document.id, "title": document.title, "text": rest}))
    return lines, beir.BeirJudgments(queries=queries, grades={one: {one: 1} for one in queries})


def kept(path: Path | None, ask: Callable[[], list[RecordedQuery]]) -> list[RecordedQuery]:
    if path is None or not path.is_file():
        found = ask()
        if path is not None:
            path.write_text(json.dumps([asdict(one) for one in found]))
        return found
    places = ("dense", "lexical")
    rows = json.loads(path.read_text())
    return [
        RecordedQuery(**{**row, **{leg: {key: tuple(place) for key, place in row[leg].items()} for leg in places}})
        for row in rows
    ]


def mean(said: Sequence[RecordedQuery], setting: Setting) -> float:
    return fmean(replay.quality(one, setting(one)) for one in said)


def report(said: dict[str, list[RecordedQuery]]) -> None:
    names = list(said)
    legs = {leg: [mean(said[name], setting) for name in names] for leg, setting in LEGS.items()}
    better = [max(column) for column in zip(*legs.values(), strict=True)]
    found = {label: [mean(said[name], setting) for name in names] for label, setting in SETTINGS.items()}
    heading("nDCG@10; behind: the most that a collection loses against its better leg")
    rows = [[leg, *(f"{value:.4f}" for value in values), "", ""] for leg, values in legs.items()]
    for label, values in found.items():
        behind = min(value - best for value, best in zip(values, better, strict=True))
        rows.append([label, *(f"{value:.4f}" for value in values), f"{fmean(values):.4f}", f"{behind:+.4f}"])
    table(["", *names, "mean", "behind"], rows)
    heading("best on all other collections, by mean regret")
    best = [max(column) for column in zip(*found.values(), strict=True)]
    for at, name in enumerate(names):
        others = [place for place in range(len(names)) if place != at]
        chosen = min(found, key=lambda label: fmean(best[place] - found[label][place] for place in others))
        print(f"  {name}: {chosen}, which costs it {best[at] - found[chosen][at]:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--queries", type=int, default=300, help="most of each collection")
    parser.add_argument("--kept", type=Path, help="folder for what the legs said")
    arguments = parser.parse_args()
    said: dict[str, list[RecordedQuery]] = {}
    with Client(arguments.url) as client:
        for folder in arguments.folders:
            path = Path(folder)
            language = path.name if path.parent.name == "xquad" else "en"
            file = None if arguments.kept is None else arguments.kept / f"{path.parent.name}-{path.name}.json"
            said[path.name] = kept(file, partial(asked, client, folder, arguments.queries, language))
    report(said)


if __name__ == "__main__":
    main()
