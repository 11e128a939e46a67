"""What an embedder learns from: queries with the documents that answer them, from judgments, titles or text alone.

- the name of a split (`train`): its judged queries;
- `titles`: a document's title is asked, its text without the title answers;
- `crops`: a few words out of a passage are asked, another stretch of the same passage answers (independent cropping,
  Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning", TMLR 2022). Half of them are
  stripped to keywords, as people ask. It needs nothing but documents.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.core.errors import Misconfigured
from service.embedder.training.ranking_lists import keywords
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.worker.text_splitter import split_document
from service.evaluation.beir import BeirJudgments

TITLES, CROPS = "titles", "crops"
LEAST_PAIRS = 40
"""Fewer teach nothing, and measure nothing."""
MOST_DOCUMENTS = 10_000
"""Documents among which wrong answers are looked for: what is asked about, and others by chance."""
_OVERLAP_TOKENS = 16
_HELD_OUT_SHARE, _LEAST_HELD_OUT, _MOST_HELD_OUT = 0.1, 20, 200
_TITLE_WORDS = (2, 40)
_CROP_WORDS = (3, 16)
_ANSWER_SHARE = (0.5, 1.0)
"""Of a passage that a crop was taken from, as its answer."""
_LEAST_WORDS = 12
"""Of a passage that is cropped."""

Documents = Sequence[Mapping[str, str]]
"""Each with `id`, `title` and `text`; told by their positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A query and `right`, the documents that answer it.

    `passage`, `answer`: where the query was cut from, and what answers it instead. `titled`: answers are read below
    their titles. `judged`: by people, not guessed.
    """

    query: str
    part: str
    right: tuple[int, ...]
    passage: int | None = None
    answer: str | None = None
    titled: bool = True
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Passages:
    """Documents cut to the length of training. `texts` are as served, title first; `bodies` are without titles.

    `documents`: the document that each is of. `titles`: one for each document, folded for comparison.
    """

    texts: list[str]
    bodies: list[str]
    documents: list[int]
    titles: list[str]

    def of(self) -> dict[int, list[int]]:
        """Document -> its passages."""
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
) -> tuple[Passages, list[Pair]]:
    """Passages and at most so many pairs, of each part in proportion to what it has.

    `parts`: names of `judgments`, `titles`, `crops`. Misconfigured where nothing can be learnt from.
    """
    dice = random.Random(seed)  # noqa: S311 - what is drawn is no secret
    place = {document["id"]: at for at, document in enumerate(documents)}
    titles = [" ".join(document["title"].lower().split()) for document in documents]
    pairs = [pair for name, found in judgments.items() for pair in judged(found, place, name)]
    if TITLES in parts:
        pairs += by_title(documents, titles)
    pairs = dice.sample(pairs, min(most, len(pairs)))
    wanted = dict.fromkeys(at for pair in pairs for at in pair.right)
    others = [at for at in range(len(documents)) if at not in wanted]
    wanted |= dict.fromkeys(dice.sample(others, min(len(others), max(0, MOST_DOCUMENTS - len(wanted)))))
    passages = cut(documents, sorted(wanted), titles, chain)
    if CROPS in parts:
        pairs += by_crop(documents, passages, dice)
    pairs = dice.sample(pairs, min(most, len(pairs)))
    if len(pairs) < LEAST_PAIRS:
        told = f"{len(documents)} documents gave {len(pairs)} queries with answers ({', '.join(parts)})"
        raise Misconfigured(f"{told}: at least {LEAST_PAIRS} are needed to learn from")
    return passages, pairs


def cut(documents: Documents, wanted: Iterable[int], titles: list[str], chain: TrainableModel) -> Passages:
    """Cut as Azimuth cuts, with the chain's own tokenizer, to `chain.longest` tokens."""
    tokenizer = chain.tokenizer.backend_tokenizer
    overhead = len(chain.tokenizer(chain.prompts["document"])["input_ids"])
    passages = Passages([], [], [], titles)
    for at in wanted:
        title, text = documents[at]["title"], documents[at]["text"]
        offsets = (tokenizer.encode(part, add_special_tokens=False).offsets for part in (title, text))
        tokens_of_title, tokens_of_text = (np.array(found, dtype=np.int64).reshape(-1, 2) for found in offsets)
        for piece in split_document(
            title,
            text,
            tokens_of_title,
            tokens_of_text,
            max_tokens=chain.longest,
            overlap_tokens=_OVERLAP_TOKENS,
            overhead=overhead,
        ):
            passages.texts.append(piece.text)
            passages.bodies.append(text[piece.start : piece.end])
            passages.documents.append(at)
    return passages


def judged(judgments: BeirJudgments, place: Mapping[str, int], part: str) -> list[Pair]:
    """One pair for each query that a document of the collection answers."""
    found = []
    for query, graded in judgments.grades.items():
        right = tuple(place[document] for document, grade in graded.items() if grade > 0 and document in place)
        if right:
            found.append(Pair(query=judgments.queries[query], part=part, right=right, judged=True))
    return found


def by_title(documents: Documents, titles: Sequence[str]) -> list[Pair]:
    """A title that several documents have is asked once, and answered by each."""
    same: dict[str, list[int]] = {}
    for at, title in enumerate(titles):
        if _TITLE_WORDS[0] <= len(title.split()) <= _TITLE_WORDS[1] and documents[at]["text"].strip():
            same.setdefault(title, []).append(at)
    return [
        Pair(query=documents[right[0]]["title"], part=TITLES, right=tuple(right), titled=False)
        for right in same.values()
    ]


def by_crop(documents: Documents, passages: Passages, dice: random.Random) -> list[Pair]:
    """One pair for each passage that is long enough; every second answer is read below its title."""
    pairs = []
    for at, (body, document) in enumerate(zip(passages.bodies, passages.documents, strict=True)):
        words = body.split()
        if len(words) < _LEAST_WORDS:
            continue
        asked = _crop(words, dice.randint(*_CROP_WORDS), dice)
        answer = _crop(words, round(len(words) * dice.uniform(*_ANSWER_SHARE)), dice)
        titled = dice.random() < 0.5
        pair = Pair(
            query=keywords(asked) if dice.random() < 0.5 else asked,
            part=CROPS,
            right=(document,),
            passage=at,
            answer=f"{documents[document]['title']}\n{answer}" if titled else answer,
            titled=titled,
        )
        pairs.append(pair)
    return pairs


def _crop(words: Sequence[str], length: int, dice: random.Random) -> str:
    start = dice.randint(0, max(0, len(words) - length))
    return " ".join(words[start : start + length])


def divide(pairs: Sequence[Pair], dice: random.Random) -> tuple[list[Pair], list[Pair]]:
    """To learn from, and to measure by: judged ones where there are enough. No document answers on both sides.

    Misconfigured where nothing is left on one of them.
    """
    ours = [pair for pair in pairs if pair.judged]
    measured = ours if len(ours) >= LEAST_PAIRS else list(pairs)
    wanted = min(_MOST_HELD_OUT, max(_LEAST_HELD_OUT, round(_HELD_OUT_SHARE * len(measured))))
    hidden = {at for pair in dice.sample(measured, min(wanted, len(measured))) for at in pair.right}
    held_out = [pair for pair in measured if hidden.issuperset(pair.right)]
    learnt = [pair for pair in pairs if hidden.isdisjoint(pair.right)]
    if not learnt:
        raise Misconfigured("the queries share their answers: nothing is left to learn from beside those to measure by")
    return learnt, dice.sample(held_out, min(_MOST_HELD_OUT, len(held_out)))
