"""The model card: what an adapter was made of and how, written by the command that made it."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from service import __version__
from service.embedder.reranker import adapter
from service.embedder.training.cross_encoder_training import CrossEncoderRecipe, CrossEncoderReport
from service.embedder.training.ranking_lists import Accuracy
from service.embedder.training.reranker_data import Material, Source

_LIBRARIES = ("torch", "transformers", "peft", "tantivy")


def write(
    folder: Path,
    sources: Sequence[Source],
    materials: Sequence[Material],
    recipe: CrossEncoderRecipe,
    report: CrossEncoderReport,
    held_out: dict[str, Accuracy],
    *,
    hold_out: float,
    command: str,
) -> None:
    """Write `README.md` beside the adapter. OSError where the disk refuses."""
    description = adapter.describe(folder)
    settings = "\n".join(f"| {name} | {value} |" for name, value in asdict(recipe).items())
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    steps = max(1, len(report.losses) // 10)
    first, last = report.losses[:steps], report.losses[-steps:]
    text = f"""# {folder.resolve().name}

A cross-encoder that ranks passages for a query: a LoRA adapter with pooler and head on `{description.backbone}`,
made by Azimuth {__version__}. It gives one logit a pair (query, `title` newline `text`), pairs of up to
{description.max_tokens} tokens. Use it with `AZIMUTH_RERANKER={folder.resolve().name}` (the path of this folder).

## Data

| collection | part | taken | questions | lists seen |
|---|---|---|---|---|
{_data(sources, materials, report)}

Documents that other splits of a folder judge are neither asked about nor shown as wrong answers, and {hold_out:.0%} of
the documents, by title, were held out. The licences of the data decide who may be given the adapter: state them here.

## How

```sh
{command}
```

{report.steps:,} steps, {report.tokens:,} tokens, {report.seconds / 60:.1f} minutes on {platform.machine()},
Python {platform.python_version()}, {libraries}. Loss of the first tenth of the steps {sum(first) / len(first):.4f},
of the last {sum(last) / len(last):.4f}.

| setting | value |
|---|---|
{settings}

Backbone: weights `{description.digests["weights"]}`, tokenizer `{description.digests["tokenizer"]}`. The adapter is
refused on any other.

## Held out

Probability of relevance: 1 / (1 + exp(-({description.slope:.4f} logit + {description.offset:.4f}))).

Lists of one right passage and up to 11 that the first stage confuses with it: share with the right one on top.

| part | lists | by the first stage | by the reranker |
|---|---|---|---|
{_held_out(held_out)}
"""
    (folder / adapter.CARD).write_text(text, encoding="utf-8")


def _data(sources: Sequence[Source], materials: Sequence[Material], report: CrossEncoderReport) -> str:
    rows = []
    for one, material in zip(sources, materials, strict=True):
        asked = Counter(question.part for question in material.questions)
        for part, times in one.parts.items():
            seen = report.lists.get(f"{one.name}/{part}", 0)
            rows.append(f"| {one.name} | {part} | x {times:g} | {asked[part]:,} | {seen:,} |")
    return "\n".join(rows)


def _held_out(held_out: dict[str, Accuracy]) -> str:
    return "\n".join(
        f"| {part} | {found.lists} | {found.first_stage:.3f} | {found.reranker:.3f} |"
        for part, found in held_out.items()
    )
