"""What reranking costs: `python -m loadtests.rerank [--collection FOLDER]`.

For each query 50 passages, read by the whole second stage of a search (portions, tokens, packing, passes, calibration,
blend) in PyTorch, and in turns with it, so that all share whatever else the machine does, by

- the bare network over the very same batches, their tensors ready made;
- the bare network over the best packing of all 50 at once: what reading in portions costs;
- `CrossEncoder.predict` of sentence-transformers over the same pairs and weights, 32 at a time;
- the stage with every layer computed for all tokens, which is 1 of a second table;
- the stage of a search for 10 hits, which reads excerpts first, in PyTorch, and in what runs here by default.

Ratios of one run are what to trust. `--one-core`: one thread, by the processor time of the process, which other work on
the machine hardly touches. `--collection`: a folder in BEIR layout: its queries, and the passages that share most with
each; without one, random words.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from sentence_transformers import CrossEncoder

from loadtests.encode import words
from loadtests.figures import heading, median, table
from service.core.collections import RerankSettings
from service.core.explanation import Explanation
from service.core.ids import DocumentId
from service.core.search import Hit, SearchRequest
from service.embedder.models import device as devices
from service.embedder.models.batch_packing import cheapest_packing
from service.embedder.models.device import use_threads
from service.embedder.models.scheduler import PassScheduler
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.reranker import adapter, first_token
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.reranker.reranker import CrossEncoderReranker
from service.search.context import SearchContext
from service.search.rerank import RerankStage

DEPTH = 50
LONGEST = 200
"""Words of a passage: about what fits a chunk."""
K = 10
"""Hits that a search asks for; with `DEPTH` of them all passages are read whole."""
BARE, BEFORE = "bare passes, same batches", "all whole, every layer for all tokens, PyTorch"
Question = tuple[str, list[str]]
Batches = list[dict[str, torch.Tensor]]


def questions(collection: Path | None, count: int) -> list[Question]:
    """Queries with 50 passages each; lengths as in the collection, or from 30 to 200 random words."""
    dice = random.Random(7)
    if collection is None:
        return [
            (" ".join(words(dice, 10)), [" ".join(words(dice, dice.randint(30, LONGEST))) for _ in range(DEPTH)])
            for _ in range(count)
        ]
    with (collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, 5_000)]
    texts = [f"{row.get('title', '')}\n{' '.join(row['text'].split()[:LONGEST])}" for row in rows]
    with (collection / "queries.jsonl").open(encoding="utf-8") as lines:
        asked = [json.loads(line)["text"] for line in itertools.islice(lines, count)]
    terms = [set(re.findall(r"\w+", text.lower())) for text in texts]
    common = Counter(itertools.chain.from_iterable(terms))

    def nearest(query: str) -> list[str]:
        wanted = set(re.findall(r"\w+", query.lower()))
        shared = [sum(1 / common[term] for term in wanted & found) for found in terms]
        return [texts[at] for at in sorted(range(len(texts)), key=lambda at: -shared[at])[:DEPTH]]

    return [(query, nearest(query)) for query in asked]


@contextmanager
def seen() -> Iterator[list[list[Tokens]]]:
    """The batches that go through the network meanwhile."""
    batches: list[list[Tokens]] = []
    forward = PackedCrossEncoder.forward

    def noted(self: PackedCrossEncoder, pairs: Sequence[Tokens]) -> Any:
        batches.append(list(pairs))
        return forward(self, pairs)

    PackedCrossEncoder.forward = noted  # type: ignore[method-assign]
    try:
        yield batches
    finally:
        PackedCrossEncoder.forward = forward  # type: ignore[method-assign]


def tensors(pairs: PackedCrossEncoder, batches: Sequence[Sequence[Tokens]]) -> Batches:
    return [devices.tensors(pairs._padding.arrays(batch), pairs.device) for batch in batches]


@torch.inference_mode()
def bare(pairs: PackedCrossEncoder, batches: Batches) -> None:
    for inputs in batches:
        if pairs.device.type == "cpu":
            use_threads(inputs["input_ids"].numel(), pairs._threads)
        pairs.network(**inputs).logits.cpu()


def hits(passages: Sequence[str]) -> list[Hit]:
    return [
        Hit(
            id=DocumentId(f"d{at}"),
            chunk=0,
            score=1 - at / DEPTH,
            title="",
            text=text,
            start=0,
            end=len(text),
            metadata={},
            revision=1,
            content_revision=1,
            explanation=Explanation(dense=None, lexical=None, fusion=0.0),
        )
        for at, text in enumerate(passages)
    ]


@contextmanager
def library(name: str, dtype: torch.dtype) -> Iterator[CrossEncoder]:
    """The same weights as the library runs them."""
    merged = adapter.load_reranker(name)
    with tempfile.TemporaryDirectory() as folder:
        merged.network.save_pretrained(folder)  # type: ignore[operator]
        merged.tokenizer.save_pretrained(folder)
        yield CrossEncoder(folder, device="cpu", max_length=merged.max_tokens, model_kwargs={"dtype": dtype})


def measure(asked: Sequence[Question], name: str, rounds: int, one_core: bool, precision: str) -> None:
    clock = time.process_time if one_core else time.perf_counter
    scheduler = PassScheduler()
    settings: dict[str, Any] = {"device": "cpu", "threads": 1 if one_core else 0, "precision": precision}
    everything = RerankSettings(depth=DEPTH, weight=1.0)
    times: dict[str, list[float]] = {}
    padded, portioned, passes = 0, 0, 0
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as kept:

        def opened(**differing: Any) -> tuple[Any, RerankStage]:
            reranker = CrossEncoderReranker(name, scheduler, **{**settings, **differing})
            runner.run(reranker.warm())
            return reranker._model, RerankStage(reranker)

        pairs, stage = opened()
        with patch.object(first_token, "narrow", return_value=False):
            _, before = opened()
        default, chosen = opened(backend="auto", precision="auto", exports=Path(kept))
        dtype = next(pairs.network.parameters()).dtype
        with library(name, dtype) as theirs:
            for query, passages in asked:
                found = hits(passages)

                def search(
                    stage: RerankStage, k: int, asked: RerankSettings, query: str = query, found: list[Hit] = found
                ) -> None:
                    nowhere: Any = None  # the stage does not need a space
                    context = SearchContext(SearchRequest(text=query, k=k), nowhere)
                    runner.run(stage.rerank(context, asked, found))

                with seen() as batches:
                    search(stage, DEPTH, everything)
                encodings, *_ = pairs.tokens(query, passages)
                packing = cheapest_packing(list(map(len, encodings)), pairs.batch_tokens, pairs.pass_overhead)
                same = tensors(pairs, batches)
                at_once = tensors(pairs, [[encodings[at] for at in batch] for batch in packing])
                rivals: dict[str, Callable[[], object]] = {
                    BARE: partial(bare, pairs, same),
                    "the stage, all whole": partial(search, stage, DEPTH, everything),
                    "bare passes, all 50 packed at once": partial(bare, pairs, at_once),
                    "CrossEncoder.predict": partial(
                        theirs.predict,
                        [(query, passage) for passage in passages],
                        batch_size=32,
                        show_progress_bar=False,
                    ),
                    BEFORE: partial(search, before, DEPTH, everything),
                    "excerpts, PyTorch": partial(search, stage, K, RerankSettings()),
                    f"excerpts, {type(default).__name__}": partial(search, chosen, K, RerankSettings()),
                }
                for _ in range(rounds):
                    for rival, run in rivals.items():
                        started = clock()
                        run()
                        times.setdefault(rival, []).append(clock() - started)
                padded += sum(inputs["input_ids"].numel() for inputs in same)
                portioned += sum(map(len, encodings))
                passes += len(same)
        runner.run(scheduler.close())
    share = 100 * padded / portioned - 100
    heading(
        f"{len(asked)} queries x {rounds} rounds, {DEPTH} passages, {portioned / len(asked) / DEPTH:.0f} tokens a pair"
    )
    print(
        f"{passes / len(asked):.1f} passes a query, {share:.0f} % padding; {torch.get_num_threads()} threads, {dtype}"
    )
    order = list(times)
    split = order.index(BEFORE)
    for reference, rivals_of in ((BARE, order[:split]), (BEFORE, order[split:])):
        rows = [[one, median(times[one]), median(times[one]) / median(times[reference])] for one in rivals_of]
        table(["", "median ms", f"of {reference}"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--collection", type=Path, help="a folder in BEIR layout; none: random words")
    arguments.add_argument("--queries", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=5, help="how often each query is run by each")
    arguments.add_argument("--reranker", default=adapter.BUNDLED, help="the bundled one, or a folder with an adapter")
    arguments.add_argument("--one-core", action="store_true", help="one thread, by its processor time")
    arguments.add_argument(
        "--precision", default="auto", help="of PyTorch: float32 where the processor is limited to AVX2"
    )
    chosen = arguments.parse_args()
    if chosen.one_core:
        torch.set_num_threads(1)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    measure(
        questions(chosen.collection, chosen.queries), chosen.reranker, chosen.rounds, chosen.one_core, chosen.precision
    )


if __name__ == "__main__":
    main()
