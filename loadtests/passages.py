"""Is the passage shown that answers the question, and what does that cost? `python -m loadtests.passages FOLDER`.

FOLDER holds a collection of paragraphs in BEIR's layout, whose titles name the article that they are of. Two
collections are made of it: the articles, each one long document of all its paragraphs, and the paragraphs. A question
is asked of the articles; counted, where its article is among the hits: the passage shown lies in the right paragraph
for more than half of the shorter of the two. `dense` shows the best chunk by cosine, as every mode did without the
choice. Latency is that of hybrid searches in one process, with and without the choice in turns.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop

from loadtests import prepare
from loadtests.clients import ask
from loadtests.figures import heading, median, percentile, table
from loadtests.identifiers import load
from loadtests.sandbox import Sandbox, sandbox
from service.evaluation import beir
from service.runtime.container.api import open_api
from service.search.passages import PassageSelector

Question = tuple[str, str, int, int]
"""Its text, the article, and where in it the right paragraph begins and ends."""

WAYS: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "hybrid": {},
    "lexical": {"mode": "lexical"},
    "dense, by chunk": {"mode": "dense", "group_by": "chunk"},
    "hybrid, by chunk": {"group_by": "chunk"},
    **{f"hybrid, alpha {alpha}": {"fusion": {"alpha": alpha}} for alpha in (0.3, 0.7)},
}


def articles(folder: Path, most: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Question]]:
    """The articles, the paragraphs, and `most` questions by chance."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        paragraphs = [beir.document(json.loads(line)) for line in lines]
    texts: dict[str, str] = {}
    places: dict[str, tuple[str, int, int]] = {}
    for one in paragraphs:
        before = texts.get(one["title"], "")
        start = len(before) + 2 if before else 0
        texts[one["title"]] = f"{before}\n\n{one['text']}" if before else one["text"]
        places[one["id"]] = (one["title"], start, start + len(one["text"]))
    judged = beir.judgments(folder, "test")
    asked = random.Random(seed).sample(sorted(judged.grades), most)
    questions = [(judged.queries[number], *places[next(iter(judged.grades[number]))]) for number in asked]
    return [{"id": title, "title": title, "text": text} for title, text in texts.items()], paragraphs, questions


def share_shown(address: str, questions: Sequence[Question]) -> None:
    rows: list[list[object]] = []
    for way, options in WAYS.items():
        requests = [{"query": question[0], "k": 5, "include": [], **options} for question in questions]
        found, right = 0, 0
        for (_, article, start, end), answer in zip(questions, ask(address, "articles", requests).bodies, strict=True):
            hit = next((one for one in answer["hits"] if one["id"] == article), None)
            if hit is not None:
                found += 1
                common = min(end, hit["end"]) - max(start, hit["start"])
                right += common > 0.5 * min(end - start, hit["end"] - hit["start"])
        rows.append([way, found / len(questions), right / max(1, found)])
    heading(
        f"{len(questions)} questions: the article is found, and of these the passage shown is in the right paragraph"
    )
    table(["search", "found", "right passage"], rows)


async def latency(place: Sandbox, questions: Sequence[str]) -> None:
    chosen = PassageSelector.choose

    async def unchanged(self: Any, context: Any, candidates: Any, hits: Any) -> Any:
        return hits

    async with open_api(prepare.settings_in(place.folder), place.url) as app, app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
            rows: list[list[object]] = []
            for collection in ("articles", "paragraphs"):
                seconds: dict[str, list[float]] = {"without": [], "with": []}
                loop: dict[str, float] = {"without": 0.0, "with": 0.0}
                for number, question in enumerate((*questions[:30], *questions)):
                    for way, choose in (("without", unchanged), ("with", chosen)):
                        PassageSelector.choose = choose  # type: ignore[method-assign]
                        started, own = time.perf_counter(), time.thread_time()
                        answer = await client.post(f"/v1/collections/{collection}/search", json={"query": question})
                        answer.raise_for_status()
                        if number >= 30:
                            seconds[way].append(time.perf_counter() - started)
                            loop[way] += time.thread_time() - own
                for way, all_ in seconds.items():
                    own = 1e3 * loop[way] / len(all_)
                    ratio = median(all_) / median(seconds["without"])
                    shares = [percentile(all_, share) for share in (0.1, 0.95)]
                    rows.append([f"{collection}, {way}", shares[0], median(all_), shares[1], ratio, own])
    heading("Hybrid searches of ten hits: p10, p50, p95, p50 as a ratio, and the event loop's own time; ms")
    table(["collection, choice of passages", "p10", "p50", "p95", "ratio", "loop"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("corpus", type=Path)
    arguments.add_argument("--questions", type=int, default=1_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="keep the collections here, and find them again")
    chosen = arguments.parse_args()
    long, short, questions = articles(chosen.corpus, chosen.questions, chosen.seed)
    with sandbox(chosen.folder) as place:
        filled = place.folder / "filled"
        with place.api() as address:
            if not filled.exists():
                with place.process("worker"):
                    load(address, "articles", long)
                    load(address, "paragraphs", short)
                filled.touch()
            share_shown(address, questions)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(latency(place, [question[0] for question in questions[:200]]))


if __name__ == "__main__":
    main()
