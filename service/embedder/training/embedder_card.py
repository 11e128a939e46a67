"""The model card of an adapted embedder, for readers (`README.md`) and for programs (`training.json`)."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from service import __version__
from service.embedder.training.biencoder_training import BiEncoderRecipe, BiEncoderReport
from service.embedder.training.trainable_model import TrainableModel

CARD, RECORD = "README.md", "training.json"
_LIBRARIES = ("torch", "transformers", "sentence-transformers", "tantivy")
_WORDS_SHOWN = 20


def write(
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
    """Beside the model. OSError where the disk refuses."""
    record = {
        "azimuth": __version__,
        "base_model": model,
        "collection": name,
        "licence": licence,
        "command": command,
        "recipe": {**asdict(recipe), "rate": recipe.peak},
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
    (folder / CARD).write_text(
        _card(folder.name, name, licence, chain, report, recipe, model, command), encoding="utf-8"
    )


def _card(
    title: str,
    name: str,
    licence: str,
    chain: TrainableModel,
    report: BiEncoderReport,
    recipe: BiEncoderRecipe,
    model: str,
    command: str,
) -> str:
    settings = "\n".join(
        f"| {setting} | {value} |" for setting, value in {**asdict(recipe), "rate": recipe.peak}.items()
    )
    pairs = "\n".join(f"| {part} | {count:,} |" for part, count in report.pairs.items())
    figures = "\n".join(
        f"| {candidate.name}{' (this model)' if candidate is report.chosen else ''} | {candidate.mean:.4f} |"
        for candidate in report.candidates
    )
    libraries = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)
    shown = ", ".join(f"`{word}`" for word in report.words[:_WORDS_SHOWN])
    words = f"{len(report.words):,} words were made tokens, such as {shown}." if report.words else "No word was added."
    tenth = max(1, report.steps // 10)
    first, last = report.losses[:tenth], report.losses[-tenth:]
    gain = report.gain
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {json.dumps(model)}
license: other
license_name: {json.dumps(licence or "not stated", ensure_ascii=False)}
---
# {title}

An embedder adapted by Azimuth {__version__} from `{model}` to the documents of `{name}`. It is a model of
sentence-transformers like that one, with the same pooling, prompts and longest input; its space is another.

## Data

Documents of `{name}`. What was learnt from them may be as confidential as they are.
Licence, as whoever trained it said: {licence or "not stated"}.

| learnt from | queries |
|---|---|
{pairs}

{len(report.chosen.scores):,} queries were put aside; no document that answers them answers one that was learnt from.
{words}

## How

```sh
{command}
```

{report.steps:,} steps, {report.seconds / 60:.1f} minutes with mining and measuring, on {platform.machine()}
({chain.device}), Python {platform.python_version()}, {libraries}.
Texts were cut at {chain.longest} tokens. Loss of the first tenth of the steps {sum(first) / len(first):.4f}, of the
last {sum(last) / len(last):.4f}.

| setting | value |
|---|---|
{settings}

## Figures

nDCG@10 of the queries put aside, over a part of the passages: right and wrongly found ones, others by chance. It chose
among candidates and so is no measure of what the chosen one is worth; `azimuth judgments` and `azimuth reindex` measure
that.

| model | nDCG@10 |
|---|---|
{figures}

Gain over the model that it was made of: {gain.mean:+.4f}, 95 % between {gain.low:+.4f} and {gain.high:+.4f}.
"""
