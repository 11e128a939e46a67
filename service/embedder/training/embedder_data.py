"""Training data of an embedder: queries with the passages that answer them, in parts.

- the name of a split (`train`): its judged queries;
- `titles`: a document's title is the query, its text without the title the answer;
- `crops`: a few words of a passage are the query, another stretch of the same passage the answer (independent cropping,
  Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning", TMLR 2022). Half of them are
  reduced to keywords, as people search. This part needs nothing but documents.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.core.errors import Misconfigured
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.training.training_queries import (
    TITLES,
    Documents,
    TrainingQuery,
    fold,
    judged_queries,
    keywords,
    title_queries,
)
from service.embedder.worker.text_splitter import split_document
from service.evaluation.beir import BeirJudgments

CROPS = "crops"
MIN_QUERIES = 40
"""Fewer are too few to learn from and to measure with."""
MAX_DOCUMENTS = 10_000
"""Documents to mine negatives from: all right ones, and others at random."""
_OVERLAP_TOKENS = 16
_HELD_OUT_SHARE, _MIN_HELD_OUT, _MAX_HELD_OUT = 0.1, 20, 200
_TITLE_WORDS = (2, 40)
_CROP_WORDS = (3, 16)
_ANSWER_SHARE, _MIN_PASSAGE_WORDS = (0.5, 1.0), 12
"""Of a cropped passage: the share that is the answer, and its shortest length."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Documents split to the length of training. `texts` are as served, title first; `bodies` are without titles.

    `documents`: the document of each passage. `titles`: one for each document, folded for comparison.
    """

    texts: list[str]
    bodies: list[str]
    documents: list[int]
    titles: list[str]

    def by_document(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for passage, document in enumerate(self.documents):
            found.setdefault(document, []).append(passage)
        return found

    def shown(self, *, titled: bool) -> list[str]:
        return self.texts if titled else self.bodies


def gather(
    documents: Documents,
    judgments: Mapping[str, BeirJudgments],
    parts: Sequence[str],
    chain: TrainableModel,
    *,
    most: int,
    seed: int,
) -> tuple[Passages, list[TrainingQuery]]:
    """Passages and at most `most` queries, of each part in proportion to its size.

    `parts`: names of `judgments`, `titles`, `crops`. Misconfigured if there is too little to learn from.
    """
    dice = random.Random(seed)  # noqa: S311 not a secret
    positions = {document["id"]: at for at, document in enumerate(documents)}
    titles = [document["title"] for document in documents]
    queries = [query for name, judged in judgments.items() for query in judged_queries(judged, positions, name)]
    if TITLES in parts:
        queries += title_queries(titles, [document["text"] for document in documents], words=_TITLE_WORDS)
    queries = dice.sample(queries, min(most, len(queries)))
    wanted = dict.fromkeys(at for query in queries for at in query.right)
    others = [at for at in range(len(documents)) if at not in wanted]
    wanted |= dict.fromkeys(dice.sample(others, min(len(others), max(0, MAX_DOCUMENTS - len(wanted)))))
    passages = split_documents(documents, sorted(wanted), chain)
    if CROPS in parts:
        queries += crop_queries(documents, passages, dice)
    queries = dice.sample(queries, min(most, len(queries)))
    if len(queries) < MIN_QUERIES:
        found = f"{len(documents)} documents gave {len(queries)} queries with answers ({', '.join(parts)})"
        raise Misconfigured(f"{found}: at least {MIN_QUERIES} are needed to learn from")
    return passages, queries


def split_documents(documents: Documents, wanted: Iterable[int], chain: TrainableModel) -> Passages:
    """Split documents as the service does, with the chain's own tokenizer, to `chain.longest` tokens."""
    tokenizer = chain.tokenizer.backend_tokenizer
    overhead = len(chain.tokenizer(chain.prompts["document"])["input_ids"])
    limits = {"max_tokens": chain.longest, "overlap_tokens": _OVERLAP_TOKENS, "overhead": overhead}
    passages = Passages([], [], [], [fold(document["title"]) for document in documents])
    for at in wanted:
        title, text = documents[at]["title"], documents[at]["text"]
        title_offsets, text_offsets = (
            np.array(tokenizer.encode(part, add_special_tokens=False).offsets, dtype=np.int64).reshape(-1, 2)
            for part in (title, text)
        )
        for chunk in split_document(title, text, title_offsets, text_offsets, **limits):
            passages.texts.append(chunk.text)
            passages.bodies.append(text[chunk.start : chunk.end])
            passages.documents.append(at)
    return passages


def crop_queries(documents: Documents, passages: Passages, dice: random.Random) -> Iterator[TrainingQuery]:
    """One query for each passage that is long enough; every second answer is shown below its title."""
    for at, (body, document) in enumerate(zip(passages.bodies, passages.documents, strict=True)):
        words = body.split()
        if len(words) < _MIN_PASSAGE_WORDS:
            continue
        crop = _crop(words, dice.randint(*_CROP_WORDS), dice)
        answer = _crop(words, round(len(words) * dice.uniform(*_ANSWER_SHARE)), dice)
        titled = dice.random() < 0.5
        yield TrainingQuery(
            text=keywords(crop) if dice.random() < 0.5 else crop,
            part=CROPS,
            right=(document,),
            passage=at,
            answer=f"{documents[document]['title']}\n{answer}" if titled else answer,
            titled=titled,
        )


def _crop(words: Sequence[str], length: int, dice: random.Random) -> str:
    start = dice.randint(0, max(0, len(words) - length))
    return " ".join(words[start : start + length])


def hold_out(queries: Sequence[TrainingQuery], dice: random.Random) -> tuple[list[TrainingQuery], list[TrainingQuery]]:
    """Queries to learn from and to measure with, judged ones if there are enough. No document answers in both.

    Misconfigured if nothing is left to learn from.
    """
    judged = [query for query in queries if query.judged]
    measurable = judged if len(judged) >= MIN_QUERIES else list(queries)
    wanted = min(_MAX_HELD_OUT, max(_MIN_HELD_OUT, round(_HELD_OUT_SHARE * len(measurable))))
    hidden = {at for query in dice.sample(measurable, min(wanted, len(measurable))) for at in query.right}
    held_out = [query for query in measurable if hidden.issuperset(query.right)]
    learned = [query for query in queries if hidden.isdisjoint(query.right)]
    if not learned:
        raise Misconfigured("the queries share their answers: nothing is left to learn from beside those to measure by")
    return learned, dice.sample(held_out, min(_MAX_HELD_OUT, len(held_out)))
