"""What one step reads: queries, their answers, wrong passages, and who is whose rival."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """`texts`: first the answer of each query, then the wrong passages that were drawn for them.

    `rivals` [queries, texts]: true where a text is a wrong answer to a query, be it its own or another's. `columns`
    [queries, k]: for each query its answer and wrong passages among the texts; `logits` [queries, k]: what a teacher
    gives them, NaN for queries of which it said nothing.
    """

    queries: list[str]
    texts: list[str]
    rivals: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


def batches(
    examples: Sequence[MinedExample], passages: Passages, *, size: int, negatives: int, dice: random.Random
) -> Iterator[TrainingBatch]:
    """Without end; each example once before any comes again, but for those that do not fill a batch."""
    size = min(size, len(examples))
    while True:
        order = dice.sample(examples, len(examples))
        for start in range(0, len(order) - size + 1, size):
            yield batch(order[start : start + size], passages, negatives, dice)


def batch(examples: Sequence[MinedExample], passages: Passages, negatives: int, dice: random.Random) -> TrainingBatch:
    """`negatives`: wrong passages of each, drawn from those that were mined; those that a teacher read as they are."""
    texts = [one.pair.answer or passages.shown(titled=one.pair.titled)[one.passage] for one in examples]
    documents = [passages.documents[one.passage] for one in examples]
    width = 1 + max(negatives, *(len(one.wrong) for one in examples if one.logits), 0)
    columns = np.tile(np.arange(len(examples))[:, None], width)
    logits = np.full((len(examples), width), np.nan, np.float32)
    doubted: list[tuple[int, int]] = []
    for row, one in enumerate(examples):
        drawn = one.wrong if one.logits else dice.sample(one.wrong, min(negatives, len(one.wrong)))
        for place, at in enumerate(drawn, start=1):
            columns[row, place] = len(texts)
            if one.logits and one.logits[place] >= one.logits[0]:
                doubted.append((row, len(texts)))
            texts.append(passages.shown(titled=one.pair.titled)[at])
            documents.append(passages.documents[at])
        if one.logits and len(one.logits) == width:
            logits[row] = one.logits
    rivals = np.array([_wrong_for(one, documents, passages) for one in examples])
    for row, column in doubted:
        rivals[row, column] = False
    return TrainingBatch([one.pair.query for one in examples], texts, rivals, columns, logits)


def _wrong_for(one: MinedExample, documents: Sequence[int], passages: Passages) -> list[bool]:
    """Documents with a title of the right ones may answer too: they are no rivals."""
    same = {passages.titles[document] for document in one.pair.right} - {""}
    return [document not in one.pair.right and passages.titles[document] not in same for document in documents]
