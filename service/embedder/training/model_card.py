"""Model cards of trained models (`README.md`), and the record of an adapted embedder for programs (`training.json`).

The texts are the templates `embedder_card.md` and `reranker_card.md` beside this module.
"""

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    (folder / "training.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    figures = [
        (f"{candidate.name}{' (this model)' if candidate is report.chosen else ''}", f"{candidate.mean:.4f}")
        for candidate in report.candidates
    ]
    shown = ", ".join(f"`{word}`" for word in report.words[:20])
    stated = licence or "not stated"
    values = record | {
        "yaml_model": json.dumps(model),
        "yaml_licence": json.dumps(stated, ensure_ascii=False),
        "licence": stated,
        "chain": chain,
        "pairs": _table(("learned from", "queries"), ((part, f"{count:,}") for part, count in report.pairs.items())),
        "words": f"{len(report.words):,} words were made tokens, such as {shown}." if shown else "No word was added.",
        "libraries": _versions("sentence-transformers"),
        "settings": _table(("setting", "value"), settings.items()),
        "figures": _table(("model", "nDCG@10"), figures),
    }
    _write_card(folder, "embedder", report, values)


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
    queries = [Counter(query.part for query in material.queries) for material in materials]
    data = [
        (one.name, part, f"x {times:g}", f"{count[part]:,}", f"{report.lists.get(f'{one.name}/{part}', 0):,}")
        for one, count in zip(sources, queries, strict=True)
        for part, times in one.parts.items()
    ]
    ranked = [
        (part, found.lists, f"{found.first_stage:.3f}", f"{found.reranker:.3f}") for part, found in held_out.items()
    ]
    values = {
        "adapter": adapter.describe(folder),
        "hold_out": hold_out,
        "command": command,
        "data": _table(("collection", "part", "taken", "queries", "lists trained on"), data),
        "libraries": _versions("peft"),
        "settings": _table(("setting", "value"), asdict(recipe).items()),
        "ranked": _table(("part", "lists", "by the first stage", "by the reranker"), ranked),
    }
    _write_card(folder, "reranker", report, values)


def _write_card(
    folder: Path, kind: str, report: BiEncoderReport | CrossEncoderReport, values: Mapping[str, object]
) -> None:
    """Fill the template of this kind of model and write it to the folder."""
    tenth = max(1, report.steps // 10)
    first, last = sum(report.losses[:tenth]) / tenth, sum(report.losses[-tenth:]) / tenth
    common = {
        "azimuth": __version__,
        "name": folder.resolve().name,
        "report": report,
        "minutes": report.seconds / 60,
        "machine": platform.machine(),
        "losses": f"Loss of the first tenth of the steps {first:.4f}, of the last {last:.4f}.",
    }
    template = Path(__file__).with_name(f"{kind}_card.md").read_text("utf-8")
    (folder / adapter.CARD).write_text(template.format_map({**common, **values}), encoding="utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _versions(library: str) -> str:
    libraries = ("torch", "transformers", library, "tantivy")
    return f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in libraries)}"
