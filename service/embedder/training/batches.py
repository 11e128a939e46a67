"""The examples of one contrastive step: queries, passages, and which passage is a negative of which query."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample
from service.embedder.training.trainer import Rows


def examples_of_steps(
    examples: Sequence[MinedExample], size: int, dice: random.Random
) -> Iterator[Sequence[MinedExample]]:
    """Endless; each example comes once before any comes again, except those that do not fill a step of `size`."""
    while True:
        order = dice.sample(examples, len(examples))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def columns(examples: Sequence[MinedExample], passages: Passages, negatives: int, dice: random.Random) -> Rows:
    """`query`, `answer`, `wrong_1` ..., and `label` as `ContrastiveLoss.of_vectors` takes it.

    `negatives`: mined passages drawn for each query; those that a teacher labelled are taken as they are. A query that
    has fewer gets its answer again, which does not count.
    """
    shown = 1 + max(negatives, *(len(one.wrong) for one in examples if one.logits), 0)
    texts = np.empty((shown, len(examples)), object)
    documents = np.empty((shown, len(examples)), int)
    logits = np.full((len(examples), shown), np.nan)
    left_out: list[tuple[int | slice, int | slice, int]] = []
    for row, one in enumerate(examples):
        of_query = passages.shown(titled=one.query.titled)
        drawn = one.wrong if one.logits else dice.sample(one.wrong, min(negatives, len(one.wrong)))
        answer = one.query.answer or of_query[one.passage]
        texts[:, row] = [answer, *(of_query[at] for at in drawn), *[answer] * (shown - 1 - len(drawn))]
        documents[:, row] = passages.documents[one.passage]
        documents[1 : 1 + len(drawn), row] = [passages.documents[at] for at in drawn]
        left_out.append((slice(None), slice(1 + len(drawn), None), row))
        if one.logits:
            better = [at for at, logit in enumerate(one.logits) if at and logit >= one.logits[0]]
            left_out += [(row, at, row) for at in better]
            if len(one.logits) == shown:
                logits[row] = one.logits
    counted = np.array([_negatives_of(one, documents.ravel().tolist(), passages) for one in examples])
    counted = counted.reshape(len(examples), *documents.shape)
    for place in left_out:
        counted[place] = False
    for row in range(len(examples)):
        counted[row, 0, row] = True
    made: dict[str, Any] = {"query": [one.query.text for one in examples], "answer": texts[0].tolist()}
    made |= {f"wrong_{at}": texts[at].tolist() for at in range(1, shown)}
    return {**made, "label": np.hstack([logits, counted.reshape(len(examples), -1)]).tolist()}


def _negatives_of(example: MinedExample, documents: Sequence[int], passages: Passages) -> list[bool]:
    """Documents with the title of a right one may be answers too, so they are no negatives."""
    right = example.query.right
    same = {passages.titles[document] for document in right} - {""}
    return [document not in right and passages.titles[document] not in same for document in documents]
