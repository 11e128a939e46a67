"""Adapt an embedder to documents: the steps of one adaptation, from top to bottom.

Gather queries (`embedder_data`), label those that nobody judged with the reranker (`teacher_labels`), train
(`biencoder_training`), and write the model with its card (`model_card`) if it is better than the original.
"""

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
from service.embedder.training import embedder_data, model_card
from service.embedder.training.biencoder_training import BiEncoderRecipe, BiEncoderReport, BiEncoderTraining
from service.embedder.training.embedder_data import CROPS
from service.embedder.training.teacher_labels import Teacher
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.training.trainer import require_libraries
from service.embedder.training.training_queries import TITLES, Documents, TrainingQuery
from service.evaluation import beir

JUDGED = "train"
"""The default split to learn from. Others are for measuring."""
_TITLED_SHARE = 0.5
"""Share of documents with a title of more than a word from which on titles are the default without judgments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSubject:
    """What a model is adapted to. `judgments`: a folder in BEIR layout, if there is one. `licence`: of the documents.

    `prompts`: replace the model's own, by role; the new model carries them.
    """

    name: str
    documents: Documents
    judgments: Path | None = None
    prompts: Mapping[Role, str] = field(default_factory=dict)
    licence: str = ""


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
    kept: Path | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> BiEncoderReport:
    """Adapt `model` to the subject and write it to the new folder `out` if it is better: see `BiEncoderReport.better`.

    `parts`: what to learn from; empty for the best available part. `teacher`: a reranker; empty for the bundled one if
    it can be loaded, None for no teacher. `kept`: see `source.folder`. Misconfigured with the reason if nothing can be
    learned; ModelUnavailable if a model cannot be loaded.
    """
    if out.exists():
        raise Misconfigured(f"{out} is there already: name a new folder")
    require_libraries()  # before minutes of work
    chosen = parts or (default_part(subject),)
    judged = {name: _judgments(subject, name) for name in chosen if name not in (TITLES, CROPS)}
    logging.disable_progress_bar()  # a bar for each file is noise
    base = source.folder(*source.split(model), kept)
    chain = TrainableModel(base, prompts=subject.prompts, device=device, precision=precision, longest=longest)
    passages, queries = embedder_data.gather(
        subject.documents, judged, chosen, chain, most=most_pairs, seed=recipe.seed
    )
    notify(f"{len(subject.documents):,} documents; learning from {', '.join(chosen)} on {chain.device}")
    labeller = _teacher(teacher, queries, device, precision, notify)
    report = BiEncoderTraining(chain, passages, queries, recipe, teacher=labeller, notify=notify).run()
    if report.better:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Written elsewhere and moved: a half-written model never appears under the name.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
            folder = Path(place) / out.name
            chain.save(folder)
            model_card.write_embedder_card(
                folder, subject.name, subject.licence, chain, report, recipe, model=model, command=command
            )
            shutil.move(folder, out)
    return report


def default_part(subject: TrainingSubject) -> str:
    """Judgments if there are any, else titles if most documents have one, else crops."""
    if subject.judgments is not None and (subject.judgments / "qrels" / f"{JUDGED}.tsv").is_file():
        return JUDGED
    titled = sum(len(document["title"].split()) > 1 for document in subject.documents)
    return TITLES if titled > _TITLED_SHARE * len(subject.documents) else CROPS


def _judgments(subject: TrainingSubject, split: str) -> beir.BeirJudgments:
    if subject.judgments is None:
        raise Misconfigured(f"no folder was given that could hold qrels/{split}.tsv; there are {TITLES} and {CROPS}")
    return beir.judgments(subject.judgments, split)


def _teacher(
    name: str | None, queries: list[TrainingQuery], device: str, precision: str, notify: Callable[[str], None]
) -> Teacher | None:
    """None if there is nothing to label, or the bundled reranker cannot be loaded."""
    if name is None or all(query.judged for query in queries):
        return None
    try:
        return Teacher(name or adapter.BUNDLED, device=device, precision=precision)
    except ModelUnavailable as error:
        if name:
            raise
        notify(f"without a teacher's labels: {error.detail}")
        return None
