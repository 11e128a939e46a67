"""What a reranker learns from: questions with the documents that answer them, out of folders in BEIR layout.

A folder is named with the parts that are to be taken from it, `FOLDER=PART[*TIMES],...`:

- the name of a split (`train`): its judged queries;
- `titles`: each document's title is a question, its text the answer;
- `sentences`: one sentence of each document is a question, the rest of it the answer (the inverse cloze task, Lee et
  al., "Latent Retrieval for Weakly Supervised Open Domain Question Answering", ACL 2019).

`*2` takes each question twice, `*0.3` three tenths of them. Documents that any other split judges are neither asked
about nor shown as wrong answers, so that measuring on that split afterwards is fair.
"""

import csv
import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.core.errors import Misconfigured
from service.evaluation import beir

TITLES, SENTENCES = "titles", "sentences"
_SHORTEST_TEXT = 80
"""Characters of a document below which it answers nothing."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
_SENTENCE_WORDS = (6, 45)
_TITLE_WORDS = (1, 40)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """`right`: positions of all documents that answer it. `answer`: text shown instead of a right document's own, where
    the question was cut from it. `titled`: passages are shown below their titles."""

    text: str
    part: str
    right: tuple[int, ...]
    answer: str | None = None
    titled: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A folder and what is taken from it: part -> times."""

    folder: Path
    parts: dict[str, float]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """One collection as it is learnt from. Documents are told by their position in `titles` and `texts`.

    `foreign`: documents that other splits judge; `hidden`: those held out. `questions` are learnt from, `held_out`,
    whose right answers are all hidden, are not.
    """

    name: str
    titles: list[str]
    texts: list[str]
    foreign: frozenset[int]
    hidden: frozenset[int]
    questions: list[Question]
    held_out: list[Question]

    def passage(self, document: int, *, titled: bool) -> str:
        """As a search shows it to the reranker."""
        title, text = self.titles[document], self.texts[document]
        return f"{title}\n{text}" if titled and title else text


def parse(told: str) -> Source:
    """`FOLDER`, or `FOLDER=PART[*TIMES],...`. Misconfigured where it cannot be read."""
    path, _, parts = told.partition("=") if not Path(told).is_dir() else (told, "", "")
    taken: dict[str, float] = {}
    for part in (parts or "train").split(","):
        name, _, times = part.strip().partition("*")
        try:
            taken[name.strip()] = float(times or 1)
        except ValueError:
            raise Misconfigured(f"{part!r} of {told!r}: after * a number is expected, such as train*2") from None
        if not name.strip() or not 0 < taken[name.strip()] <= 1000:
            raise Misconfigured(f"{part!r} of {told!r} is no part: use NAME or NAME*TIMES, with TIMES above 0")
    folder = Path(path)
    if not (folder / "corpus.jsonl").is_file():
        raise Misconfigured(f"{folder} is not in BEIR layout: corpus.jsonl is needed")
    return Source(folder=folder, parts=taken)


def read(source: Source, *, hold_out: float, seed: int) -> Material:
    """The folder's documents, and the questions of the parts that are asked for, each as often as wanted.

    `hold_out`: share of the documents, by their titles, of which nothing is learnt. Misconfigured where files are
    missing or wrong, or nothing can be learnt from them.
    """
    ids, titles, texts = _corpus(source.folder)
    place = {document: position for position, document in enumerate(ids)}
    hidden = {at for at in range(len(ids)) if share(titles[at] or ids[at], seed) < hold_out}
    foreign = {place[document] for document in _judged_elsewhere(source) if document in place}
    dice = random.Random(f"{seed} {source.name}")  # noqa: S311 - what is drawn is no secret
    questions: list[Question] = []
    held_out: list[Question] = []
    for part, times in source.parts.items():
        if part == TITLES:
            found = _by_title(titles, texts, foreign)
        elif part == SENTENCES:
            found = _by_sentence(titles, texts, foreign, dice)
        else:
            found = _judged(source.folder, part, place)
        every = list(found)
        learnt = [question for question in every if not hidden.intersection(question.right)]
        held_out += [question for question in every if hidden.issuperset(question.right)]
        questions += _times(learnt, times, dice)
    if not questions:
        raise Misconfigured(f"{source.folder} has nothing to learn from: {', '.join(source.parts)} gave no question")
    return Material(
        name=source.name,
        titles=titles,
        texts=texts,
        foreign=frozenset(foreign),
        hidden=frozenset(hidden),
        questions=questions,
        held_out=held_out,
    )


def _corpus(folder: Path) -> tuple[list[str], list[str], list[str]]:
    try:
        with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
            rows = [beir.document(json.loads(line)) for line in lines if line.strip()]
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"{folder}/corpus.jsonl cannot be read: {type(error).__name__}: {error}") from error
    return [row["id"] for row in rows], [row["title"] for row in rows], [row["text"] for row in rows]


def _judged(folder: Path, split: str, place: dict[str, int]) -> Iterator[Question]:
    judged = beir.judgments(folder, split)
    for query, graded in judged.grades.items():
        right = tuple(place[document] for document, grade in graded.items() if grade > 0 and document in place)
        if right:
            yield Question(text=judged.queries[query], part=split, right=right)


def _by_title(titles: list[str], texts: list[str], left_out: set[int]) -> Iterator[Question]:
    """Passages go without titles: among them the right one would be told by its title alone."""
    same: dict[str, list[int]] = {}
    for at, title in enumerate(titles):
        same.setdefault(" ".join(title.lower().split()), []).append(at)
    for title, right in same.items():
        fit = [at for at in right if len(texts[at]) >= _SHORTEST_TEXT]
        if _TITLE_WORDS[0] <= len(title.split()) <= _TITLE_WORDS[1] and fit and not left_out.intersection(right):
            yield Question(text=titles[fit[0]], part=TITLES, right=tuple(fit), titled=False)


def _by_sentence(titles: list[str], texts: list[str], left_out: set[int], dice: random.Random) -> Iterator[Question]:
    """The last sentences of abstracts state what was found, as queries do: they are asked half of the time."""
    for at, text in enumerate(texts):
        sentences = _SENTENCE.split(text)
        fit = [
            index
            for index, sentence in enumerate(sentences)
            if _SENTENCE_WORDS[0] <= len(sentence.split()) <= _SENTENCE_WORDS[1]
        ]
        if at in left_out or len(sentences) < 3 or not fit:
            continue
        asked = fit[-1] if dice.random() < 0.5 else dice.choice(fit)
        rest = " ".join(sentences[:asked] + sentences[asked + 1 :])
        if len(rest) < _SHORTEST_TEXT:
            continue
        titled = bool(titles[at]) and dice.random() < 0.5
        answer = f"{titles[at]}\n{rest}" if titled else rest
        yield Question(text=sentences[asked], part=SENTENCES, right=(at,), answer=answer, titled=titled)


def _times(questions: list[Question], times: float, dice: random.Random) -> list[Question]:
    """Each `times` over; of the fraction that remains, a random part."""
    part, whole = math.modf(times)
    return questions * int(whole) + dice.sample(questions, round(part * len(questions)))


def _judged_elsewhere(source: Source) -> Iterable[str]:
    """Documents that are judged by splits of the folder from which nothing is taken."""
    for path in sorted((source.folder / "qrels").glob("*.tsv")):
        if path.stem not in source.parts:
            with path.open(encoding="utf-8", newline="") as rows:
                yield from (row.get("corpus-id") or "" for row in csv.DictReader(rows, delimiter="\t"))


def share(text: str, seed: int) -> float:
    """A number in [0, 1) that is always the same for a text."""
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
