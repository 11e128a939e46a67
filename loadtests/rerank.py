"""What reranking costs beside its forward passes: `python -m loadtests.rerank [--collection FOLDER]`.

For each query 50 passages, read by the whole second stage of a search (portions, tokens, packing, passes, calibration,
blend), and in turns with it, so that all share whatever else the machine does, by

- the bare network over the very same batches, their tensors ready made;
- the bare network over the best packing of all 50 at once: what reading in portions costs;
- `CrossEncoder.predict` of sentence-transformers over the same pairs and weights, 32 at a time.

Ratios of one run are what to trust. `--one-core`: one thread, by the processor time of the process, which other work on
the machine hardly touches. `--collection`: a folder in BEIR layout, of which queries and passages are drawn; without
one, random words.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from loadtests.encode import words
from loadtests.figures import heading, median, table
from service.core.collections import RerankSettings
from service.core.ids import DocumentId
from service.core.search import Explanation, Hit, SearchRequest
from service.embedder.models import device as devices
from service.embedder.models.batch_packing import cheapest_packing
from service.embedder.models.device import use_threads
from service.embedder.models.scheduler import PassScheduler
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.reranker import adapter
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.reranker.reranker import CrossEncoderReranker
from service.search.context import SearchContext
from service.search.rerank import RerankStage

DEPTH = 50
LONGEST = 200
"""Words of a passage: about what fits a chunk."""
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
    return [(query, dice.sample(texts, DEPTH)) for query in asked]


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
        pairs._network(**inputs).logits.cpu()


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


def measure(asked: Sequence[Question], name: str, rounds: int, one_core: bool) -> None:
    clock = time.process_time if one_core else time.perf_counter
    scheduler = PassScheduler()
    reranker = CrossEncoderReranker(name, scheduler, device="cpu", threads=1 if one_core else 0)
    stage, everything = RerankStage(reranker), RerankSettings(depth=DEPTH, weight=1.0)
    times: dict[str, list[float]] = {}
    padded, portioned, passes, whole = 0, 0, 0, 0
    with asyncio.Runner() as runner:
        runner.run(reranker.warm())
        pairs = reranker._model
        assert pairs is not None
        dtype = next(pairs._network.parameters()).dtype
        with library(name, dtype) as theirs:
            for query, passages in asked:
                found = hits(passages)

                def ours(query: str = query, found: list[Hit] = found) -> None:
                    nowhere: Any = None  # the stage does not need a space
                    context = SearchContext(SearchRequest(text=query, k=DEPTH), nowhere)
                    runner.run(stage.rerank(context, everything, found))

                with seen() as batches:
                    ours()
                encodings, *_ = pairs.tokens(query, passages)
                packing = cheapest_packing(list(map(len, encodings)), pairs.batch_tokens, pairs.pass_overhead)
                same = tensors(pairs, batches)
                at_once = tensors(pairs, [[encodings[at] for at in batch] for batch in packing])
                rivals: dict[str, Callable[[], object]] = {
                    "bare passes, same batches": lambda same=same: bare(pairs, same),  # type: ignore[misc]
                    "the stage of a search": ours,
                    "bare passes, all 50 packed at once": lambda at_once=at_once: bare(pairs, at_once),  # type: ignore[misc]
                    "CrossEncoder.predict": lambda query=query, passages=passages: theirs.predict(  # type: ignore[misc]
                        [(query, passage) for passage in passages], batch_size=32, show_progress_bar=False
                    ),
                }
                for _ in range(rounds):
                    for rival, run in rivals.items():
                        started = clock()
                        run()
                        times.setdefault(rival, []).append(clock() - started)
                padded += sum(inputs["input_ids"].numel() for inputs in same)
                whole += sum(inputs["input_ids"].numel() for inputs in at_once)
                portioned += sum(map(len, encodings))
                passes += len(same)
        runner.run(scheduler.close())
    reference = median(times["bare passes, same batches"])
    share = 100 * padded / portioned - 100
    heading(
        f"{len(asked)} queries x {rounds} rounds, {DEPTH} passages, {portioned / len(asked) / DEPTH:.0f} tokens a pair"
    )
    print(
        f"{passes / len(asked):.1f} passes a query, {share:.0f} % padding; {torch.get_num_threads()} threads, {dtype}"
    )
    table(
        ["", "median ms", "of the bare passes"],
        [[rival, median(taken), median(taken) / reference] for rival, taken in times.items()],
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--collection", type=Path, help="a folder in BEIR layout; none: random words")
    arguments.add_argument("--queries", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=5, help="how often each query is run by each")
    arguments.add_argument("--reranker", default=adapter.BUNDLED, help="the bundled one, or a folder with an adapter")
    arguments.add_argument("--one-core", action="store_true", help="one thread, by its processor time")
    chosen = arguments.parse_args()
    if chosen.one_core:
        torch.set_num_threads(1)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    measure(questions(chosen.collection, chosen.queries), chosen.reranker, chosen.rounds, chosen.one_core)


if __name__ == "__main__":
    main()
