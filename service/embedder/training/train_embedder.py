"""Documents in, an embedder that knows their words out. The story of one adaptation, from top to bottom.

Choose what is learnt from (`pairs`), let the reranker label what nobody judged (`teacher`), learn (`biencoder`), and
write the model, if it is better than the one that it was made of, with its card (`embedder_card`).
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transformers import logging

from service.core.errors import Misconfigured, ModelUnavailable
from service.core.ids import Role
from service.embedder.models import source
from service.embedder.reranker import adapter
from service.embedder.training import embedder_card, embedder_data, lora
from service.embedder.training.biencoder_training import BiEncoderRecipe, BiEncoderReport, BiEncoderTraining
from service.embedder.training.embedder_data import CROPS, TITLES, Documents, Pair
from service.embedder.training.teacher_labels import Teacher
from service.embedder.training.trainable_model import TrainableModel
from service.evaluation import beir

JUDGED = "train"
"""The split that is learnt from where none is named. Others are for measuring."""
_TITLED_SHARE = 0.5
"""Of documents with a title of more than a word: then titles are asked where nobody judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSubject:
    """What a model is adapted to. `judgments`: a folder in BEIR layout, or none. `licence`: of the documents, as told.

    `prompts`: in place of the model's own, by role; the new model carries them.
    """

    name: str
    documents: Documents
    judgments: Path | None = None
    prompts: Mapping[Role, str] = field(default_factory=dict)
    licence: str = ""


def documents_of(folder: Path) -> Documents:
    """Misconfigured where the folder is not in BEIR layout."""
    try:
        with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
            return [beir.document(json.loads(line)) for line in lines if line.strip()]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Misconfigured(f"{folder} is not in BEIR layout: corpus.jsonl: {type(error).__name__}: {error}") from error


def train(
    subject: TrainingSubject,
    model: str,
    out: Path,
    recipe: BiEncoderRecipe,
    *,
    parts: tuple[str, ...] = (),
    teacher: str | None = "",
    longest: int = 128,
    most_pairs: int = 10_000,
    device: str = "auto",
    precision: str = "auto",
    command: str = "",
    tell: Callable[[str], None] = lambda message: None,
) -> BiEncoderReport:
    """Adapt `model` to the subject and write it to the new folder `out`, if it is better: see `Report.better`.

    `parts`: what is learnt from; empty: the best that there is. `teacher`: a reranker, empty for the bundled one where
    there is one, None for none. Misconfigured with the reason where nothing can be learnt; ModelUnavailable where a
    model cannot be loaded.
    """
    if out.exists():
        raise Misconfigured(f"{out} is there already: name a new folder")
    if recipe.rank is not None:
        lora.need_lora()  # what is missing on this machine should show before minutes of work
    chosen = parts or (available(subject),)
    judged = {name: _judgments(subject, name) for name in chosen if name not in (TITLES, CROPS)}
    logging.disable_progress_bar()  # a bar for each file that is read says nothing of what goes on
    chain = TrainableModel(
        source.folder(*source.split(model)),
        prompts=subject.prompts,
        device=device,
        precision=precision,
        longest=longest,
    )
    passages, found = embedder_data.gather(subject.documents, judged, chosen, chain, most=most_pairs, seed=recipe.seed)
    tell(f"{len(subject.documents):,} documents; learning from {', '.join(chosen)} on {chain.device}")
    reader = _teacher(teacher, found, device, precision, tell)
    training = BiEncoderTraining(chain, passages, found, recipe, teacher=reader, tell=tell)
    report = training.run()
    if report.better:
        _write(out, subject, chain, report, recipe, model=model, command=command)
    return report


def available(subject: TrainingSubject) -> str:
    """Judgments before titles, titles before nothing but text."""
    if subject.judgments is not None and (subject.judgments / "qrels" / f"{JUDGED}.tsv").is_file():
        return JUDGED
    titled = sum(len(document["title"].split()) > 1 for document in subject.documents)
    return TITLES if titled > _TITLED_SHARE * len(subject.documents) else CROPS


def _judgments(subject: TrainingSubject, split: str) -> beir.BeirJudgments:
    if subject.judgments is None:
        raise Misconfigured(f"no folder was given that could hold qrels/{split}.tsv; there are {TITLES} and {CROPS}")
    return beir.judgments(subject.judgments, split)


def _teacher(
    name: str | None, found: list[Pair], device: str, precision: str, tell: Callable[[str], None]
) -> Teacher | None:
    """None where there is nothing to label."""
    if name is None or all(pair.judged for pair in found):
        return None
    try:
        return Teacher(name or adapter.BUNDLED, device=device, precision=precision)
    except ModelUnavailable as error:
        if name:
            raise
        tell(f"without a teacher's labels: {error.detail}")
        return None


def _write(
    out: Path,
    subject: TrainingSubject,
    chain: TrainableModel,
    report: BiEncoderReport,
    recipe: BiEncoderRecipe,
    *,
    model: str,
    command: str,
) -> None:
    """All of it or nothing: what is half written is never found under the name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        folder = Path(place) / out.name
        chain.save(folder)
        embedder_card.write(folder, subject.name, subject.licence, chain, report, recipe, model=model, command=command)
        shutil.move(folder, out)
