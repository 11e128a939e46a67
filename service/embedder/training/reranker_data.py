"""Training data of a reranker: queries with the documents that answer them, from folders in BEIR layout.

A folder is given with the parts to take from it, `FOLDER=PART[*TIMES],...`:

- the name of a split (`train`): its judged queries;
- `titles`: each document's title is a query, its text the answer;
- `sentences`: one sentence of each document is a query, the rest of the document the answer (the inverse cloze task,
  Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question Answering", ACL 2019).

`*2` takes each query twice, `*0.3` three tenths of them. Documents that any other split judges are neither used as
answers nor as negatives, so that measuring on that split afterwards is fair.
"""

import csv
import hashlib
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from service.core.errors import Misconfigured
from service.embedder.training.training_queries import (
    TITLES,
    TrainingQuery,
    judged_queries,
    read_documents,
    title_queries,
)
from service.evaluation import beir

SENTENCES = "sentences"
_MIN_TEXT_LENGTH = 80
"""Characters of a document below which it answers nothing."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
_SENTENCE_WORDS = (6, 45)
_TITLE_WORDS = (1, 40)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A folder and the parts to take from it: part -> times."""

    folder: Path
    parts: dict[str, float]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """One collection to learn from. Documents are identified by their position in `titles` and `texts`.

    `foreign`: documents that other splits judge; `hidden`: held-out documents. `queries` are learned from; `held_out`
    are those whose right answers are all hidden.
    """

    name: str
    titles: list[str]
    texts: list[str]
    foreign: frozenset[int]
    hidden: frozenset[int]
    queries: list[TrainingQuery]
    held_out: list[TrainingQuery]

    def passage(self, document: int, *, titled: bool) -> str:
        """The text that a search shows to the reranker."""
        title, text = self.titles[document], self.texts[document]
        return f"{title}\n{text}" if titled and title else text


def parse(argument: str) -> Source:
    """`FOLDER`, or `FOLDER=PART[*TIMES],...`. Misconfigured if it is malformed."""
    path, _, parts = argument.partition("=") if not Path(argument).is_dir() else (argument, "", "")
    taken: dict[str, float] = {}
    for part in (parts or "train").split(","):
        name, _, times = part.strip().partition("*")
        try:
            taken[name.strip()] = float(times or 1)
        except ValueError:
            raise Misconfigured(f"{part!r} of {argument!r}: after * a number is expected, such as train*2") from None
        if not name.strip() or not 0 < taken[name.strip()] <= 1000:
            raise Misconfigured(f"{part!r} of {argument!r} is no part: use NAME or NAME*TIMES, with TIMES above 0")
    folder = Path(path)
    if not (folder / "corpus.jsonl").is_file():
        raise Misconfigured(f"{folder} is not in BEIR layout: corpus.jsonl is needed")
    return Source(folder=folder, parts=taken)


def read(source: Source, *, hold_out: float, seed: int) -> Material:
    """The folder's documents and the queries of its parts, each as often as wanted.

    `hold_out`: share of the documents, by title, that are not learned from. Misconfigured if files are missing or
    malformed, or nothing can be learned from them.
    """
    documents = read_documents(source.folder)
    titles = [document["title"] for document in documents]
    texts = [document["text"] for document in documents]
    positions = {document["id"]: at for at, document in enumerate(documents)}
    drawn = [share(document["title"] or document["id"], seed) for document in documents]
    hidden = frozenset(at for at, value in enumerate(drawn) if value < hold_out)
    foreign = frozenset(positions[document] for document in _judged_elsewhere(source) if document in positions)
    dice = random.Random(f"{seed} {source.name}")  # noqa: S311 not a secret
    queries: list[TrainingQuery] = []
    held_out: list[TrainingQuery] = []
    for part, times in source.parts.items():
        found: Iterator[TrainingQuery]
        if part == TITLES:
            found = title_queries(titles, texts, words=_TITLE_WORDS, min_length=_MIN_TEXT_LENGTH, excluded=foreign)
        elif part == SENTENCES:
            found = _sentence_queries(titles, texts, foreign, dice)
        else:
            found = judged_queries(beir.judgments(source.folder, part), positions, part)
        of_part = list(found)
        learned = [query for query in of_part if hidden.isdisjoint(query.right)]
        held_out += [query for query in of_part if hidden.issuperset(query.right)]
        queries += _repeat(learned, times, dice)
    if not queries:
        raise Misconfigured(f"{source.folder} has nothing to learn from: {', '.join(source.parts)} gave no query")
    return Material(
        name=source.name, titles=titles, texts=texts, foreign=foreign, hidden=hidden, queries=queries, held_out=held_out
    )


def _sentence_queries(
    titles: Sequence[str], texts: Sequence[str], excluded: Set[int], dice: random.Random
) -> Iterator[TrainingQuery]:
    """Half of the queries are last sentences: those of abstracts state a result, as queries do."""
    shortest, longest = _SENTENCE_WORDS
    for at, text in enumerate(texts):
        sentences = _SENTENCE_END.split(text)
        fit = [index for index, sentence in enumerate(sentences) if shortest <= len(sentence.split()) <= longest]
        if at in excluded or len(sentences) < 3 or not fit:
            continue
        chosen = fit[-1] if dice.random() < 0.5 else dice.choice(fit)
        rest = " ".join(sentences[:chosen] + sentences[chosen + 1 :])
        if len(rest) < _MIN_TEXT_LENGTH:
            continue
        titled = bool(titles[at]) and dice.random() < 0.5
        answer = f"{titles[at]}\n{rest}" if titled else rest
        yield TrainingQuery(text=sentences[chosen], part=SENTENCES, right=(at,), answer=answer, titled=titled)


def _repeat(queries: list[TrainingQuery], times: float, dice: random.Random) -> list[TrainingQuery]:
    """All queries as often as the whole part of `times` says, and a random share of them for its fraction."""
    fraction, whole = math.modf(times)
    return queries * int(whole) + dice.sample(queries, round(fraction * len(queries)))


def _judged_elsewhere(source: Source) -> Iterable[str]:
    """Documents that are judged by splits of the folder from which nothing is taken."""
    for path in sorted((source.folder / "qrels").glob("*.tsv")):
        if path.stem not in source.parts:
            with path.open(encoding="utf-8", newline="") as rows:
                yield from (row.get("corpus-id") or "" for row in csv.DictReader(rows, delimiter="\t"))


def share(text: str, seed: int) -> float:
    """A number in [0, 1), the same for equal texts."""
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
