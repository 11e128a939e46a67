"""Model cards of trained models (`README.md`), and the record of an adapted embedder for programs (`training.json`)."""

import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service import __version__
from service.embedder.reranker import adapter
from service.embedder.training.biencoder_training import BiEncoderRecipe, BiEncoderReport
from service.embedder.training.cross_encoder_training import CrossEncoderRecipe, CrossEncoderReport
from service.embedder.training.ranking_lists import Accuracy
from service.embedder.training.reranker_data import Material, Source
from service.embedder.training.trainable_model import TrainableModel

RECORD = "training.json"
_WORDS_SHOWN = 20


def write_embedder_card(
    folder: Path,
    name: str,
    licence: str,
    chain: TrainableModel,
    report: BiEncoderReport,
    recipe: BiEncoderRecipe,
    *,
    model: str,
    command: str,
) -> None:
    """Write card and record beside the model. OSError if writing fails."""
    settings = {**asdict(recipe), "rate": recipe.peak}
    record = {
        "azimuth": __version__,
        "base_model": model,
        "collection": name,
        "licence": licence,
        "command": command,
        "recipe": settings,
        "longest": chain.longest,
        "pairs": report.pairs,
        "held_out": len(report.chosen.scores),
        "candidates": {candidate.name: round(candidate.mean, 4) for candidate in report.candidates},
        "chosen": report.chosen.name,
        "gain": asdict(report.gain),
        "words": report.words,
        "steps": report.steps,
        "seconds": round(report.seconds),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    figures = [
        (f"{candidate.name}{' (this model)' if candidate is report.chosen else ''}", f"{candidate.mean:.4f}")
        for candidate in report.candidates
    ]
    shown = ", ".join(f"`{word}`" for word in report.words[:_WORDS_SHOWN])
    words = f"{len(report.words):,} words were made tokens, such as {shown}." if report.words else "No word was added."
    gain = report.gain
    card = f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {json.dumps(model)}
license: other
license_name: {json.dumps(licence or "not stated", ensure_ascii=False)}
---
# {folder.name}

An embedder adapted by Azimuth {__version__} from `{model}` to the documents of `{name}`. It is a model of
sentence-transformers like that one, with the same pooling, prompts and longest input; its space is another.

## Data

Documents of `{name}`. What was learned from them may be as confidential as they are.
Licence, as stated for the training: {licence or "not stated"}.

{_table(("learned from", "queries"), ((part, f"{count:,}") for part, count in report.pairs.items()))}

{len(report.chosen.scores):,} queries were held out; no document that answers them answers a training query.
{words}

## How

```sh
{command}
```

{report.steps:,} steps, {report.seconds / 60:.1f} minutes with mining and evaluation, on {platform.machine()}
({chain.device}), {_versions("sentence-transformers")}.
Texts were truncated at {chain.longest} tokens. {_losses(report.losses)}

{_table(("setting", "value"), settings.items())}

## Figures

nDCG@10 of the held-out queries, over a part of the passages: right ones, hard negatives, and others at random. It
selected among candidates, so it does not measure the quality of the chosen one; `azimuth judgments` and
`azimuth reindex` measure that.

{_table(("model", "nDCG@10"), figures)}

Gain over the original model: {gain.mean:+.4f}, 95 % between {gain.low:+.4f} and {gain.high:+.4f}.
"""
    (folder / adapter.CARD).write_text(card, encoding="utf-8")


def write_reranker_card(
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
    """Write the card beside the adapter. OSError if writing fails."""
    description = adapter.describe(folder)
    name = folder.resolve().name
    queries = [Counter(query.part for query in material.queries) for material in materials]
    data = [
        (one.name, part, f"x {times:g}", f"{count[part]:,}", f"{report.lists.get(f'{one.name}/{part}', 0):,}")
        for one, count in zip(sources, queries, strict=True)
        for part, times in one.parts.items()
    ]
    ranked = [
        (part, found.lists, f"{found.first_stage:.3f}", f"{found.reranker:.3f}") for part, found in held_out.items()
    ]
    card = f"""# {name}

A cross-encoder that ranks passages for a query: a LoRA adapter with pooler and head on `{description.backbone}`,
made by Azimuth {__version__}. It gives one logit for a pair (query, `title` newline `text`) of up to
{description.max_tokens} tokens. Use it with `AZIMUTH_RERANKER={name}` (the path of this folder).

## Data

{_table(("collection", "part", "taken", "queries", "lists trained on"), data)}

Documents that other splits of a folder judge are used neither as answers nor as negatives, and {hold_out:.0%} of
the documents, by title, were held out. The licences of the data decide who may receive the adapter: state them here.

## How

```sh
{command}
```

{report.steps:,} steps, {report.tokens:,} tokens, {report.seconds / 60:.1f} minutes on {platform.machine()},
{_versions("peft")}. {_losses(report.losses)}

{_table(("setting", "value"), asdict(recipe).items())}

Backbone: weights `{description.digests["weights"]}`, tokenizer `{description.digests["tokenizer"]}`. The adapter is
refused on any other.

## Held out

Probability of relevance: 1 / (1 + exp(-({description.slope:.4f} logit + {description.offset:.4f}))).

Lists of one right passage and up to 11 that the first stage confuses with it: share with the right one ranked first.

{_table(("part", "lists", "by the first stage", "by the reranker"), ranked)}
"""
    (folder / adapter.CARD).write_text(card, encoding="utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _versions(library: str) -> str:
    libraries = ("torch", "transformers", library, "tantivy")
    return f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in libraries)}"


def _losses(losses: Sequence[float]) -> str:
    """The trend of the loss over a run."""
    steps = max(1, len(losses) // 10)
    first, last = sum(losses[:steps]) / steps, sum(losses[-steps:]) / steps
    return f"Loss of the first tenth of the steps {first:.4f}, of the last {last:.4f}."
