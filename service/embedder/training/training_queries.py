"""Queries with the documents that answer them: what embedders and rerankers learn from."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.errors import Misconfigured
from service.evaluation import beir

TITLES = "titles"
"""The part of queries that are titles of documents. The part of judged queries is the name of their split."""

Documents = Sequence[Mapping[str, Any]]
"""Each with `id`, `title` and `text`; identified by position."""

_ASIDE = re.compile(r"\([^)]*\)")
_WORD = re.compile(r"[\w][\w'/-]*")
_STOP_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by called
can could describe did do does doing during each few for from further get give had has have having he her here hers him
his how i if in information into is it its itself know many me more most much my need no nor not of off on once only or
other our out over own same she should so some such than that the their them then there these they this those through to
too under until up very was we were what when where which while who whom whose why will with would you your
"""
_SKIPPED = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingQuery:
    """A query and `right`, the positions of all documents that answer it.

    `passage`, `answer`: the passage that the query was cut from, and the text that is shown as its answer instead.
    `titled`: passages are shown below their titles. `judged`: by people, not derived from a document.
    """

    text: str
    part: str
    right: tuple[int, ...]
    passage: int | None = None
    answer: str | None = None
    titled: bool = True
    judged: bool = False


def read_documents(folder: Path) -> list[dict[str, Any]]:
    """The documents of a folder. Misconfigured if it is not in BEIR layout."""
    try:
        with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
            return [beir.document(json.loads(line)) for line in lines if line.strip()]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"corpus.jsonl cannot be read: {type(error).__name__}: {error}"
        raise Misconfigured(f"{folder} is not in BEIR layout: {reason}") from error


def judged_queries(judgments: beir.BeirJudgments, positions: Mapping[str, int], split: str) -> Iterator[TrainingQuery]:
    """The judged queries that a known document answers. `positions`: document id -> position."""
    for query, graded in judgments.grades.items():
        right = tuple(positions[document] for document, grade in graded.items() if grade > 0 and document in positions)
        if right:
            yield TrainingQuery(text=judgments.queries[query], part=split, right=right, judged=True)


def title_queries(
    titles: Sequence[str],
    texts: Sequence[str],
    *,
    words: tuple[int, int],
    min_length: int = 1,
    excluded: Set[int] = frozenset(),
) -> Iterator[TrainingQuery]:
    """Titles of `words` words as queries, answered by each document with that title and a long enough text.

    Passages are shown without titles, which would give the right ones away. Titles of `excluded` documents are skipped.
    """
    same: dict[str, list[int]] = {}
    for at, title in enumerate(titles):
        same.setdefault(fold(title), []).append(at)
    for title, documents in same.items():
        right = [at for at in documents if len(texts[at].strip()) >= min_length]
        if words[0] <= len(title.split()) <= words[1] and right and excluded.isdisjoint(documents):
            yield TrainingQuery(text=titles[right[0]], part=TITLES, right=tuple(right), titled=False)


def fold(title: str) -> str:
    """A title for comparison: in lower case with single spaces."""
    return " ".join(title.lower().split())


def keywords(text: str) -> str:
    """A question reduced to keywords: without asides in parentheses, question words and stop words."""
    words = [word for word in _WORD.findall(_ASIDE.sub(" ", text)) if word.lower() not in _SKIPPED]
    return " ".join(words) or text


def without_asides(text: str) -> str:
    return _ASIDE.sub(" ", text).strip() or text
