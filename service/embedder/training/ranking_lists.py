"""Lists to rank: one right passage among wrong ones, with the distribution that the model is to give them."""

import math
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from service.embedder.training.reranker_data import SENTENCES, TITLES, Material, Question
from service.embedder.training.reranker_negatives import Candidates

SOFT_SHARE = 0.05
"""Share of the target that follows the first stage rather than the judgment. Judgments are incomplete: a candidate that
both legs put on top may well answer too, and a reranker that was never certain of the opposite blends better."""
SOFT_TEMPERATURE = 0.1
_HEAD_OFFSET = 6
"""A candidate at rank r is drawn with a weight of 1 / (r + 6): half of the draws are among the first ten of 50."""
_KEYWORDS = {TITLES: 0.4, SENTENCES: 0.15}
_KEYWORDS_OF_JUDGED = 0.25
_ASIDE = re.compile(r"\([^)]*\)")
_WORD = re.compile(r"[\w][\w'/-]*")
_STOP_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by called
can could describe did do does doing during each few for from further get give had has have having he her here hers him
his how i if in information into is it its itself know many me more most much my need no nor not of off on once only or
other our out over own same she should so some such than that the their them then there these they this those through to
too under until up very was we were what when where which while who whom whose why will with would you your
"""
_EMPTY = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingList:
    """`passages[0]` is right. `first_stage`: what the fusion of both legs gave each passage."""

    query: str
    passages: list[str]
    first_stage: list[float]
    part: str

    @property
    def target(self) -> list[float]:
        """One probability a passage: most of it on the first, the rest as the first stage's scores would have it."""
        highest = max(self.first_stage)
        weights = [math.exp((score - highest) / SOFT_TEMPERATURE) for score in self.first_stage]
        soft = [SOFT_SHARE * weight / sum(weights) for weight in weights]
        return [soft[0] + 1 - SOFT_SHARE, *soft[1:]]


def draw(
    material: Material, question: Question, candidates: Candidates, size: int, dice: random.Random
) -> RankingList | None:
    """One right passage and `size` - 1 wrong ones, drawn anew each time. None where there is no wrong one to show."""
    if not candidates.wrong:
        return None
    which = dice.randrange(len(question.right))
    right = question.answer or material.passage(question.right[which], titled=question.titled)
    drawn = ranks(len(candidates.wrong), size - 1, dice)
    return RankingList(
        query=_asked(question, dice),
        passages=[right, *(material.passage(candidates.wrong[at], titled=question.titled) for at in drawn)],
        first_stage=[candidates.right_scores[which], *(candidates.scores[at] for at in drawn)],
        part=f"{material.name}/{question.part}",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Shares of the lists of a part on which the right passage came first."""

    lists: int
    first_stage: float
    reranker: float


def accuracy(lists: Sequence[RankingList], logits: Sequence[Sequence[float]]) -> dict[str, Accuracy]:
    """Part -> how often the first stage and the reranker, with these logits, put the right passage on top."""
    won: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, scores in zip(lists, logits, strict=True):
        won[one.part].append((one.first_stage[0] == max(one.first_stage), scores[0] == max(scores)))
    return {
        part: Accuracy(
            lists=len(of_part),
            first_stage=sum(first for first, _ in of_part) / len(of_part),
            reranker=sum(second for _, second in of_part) / len(of_part),
        )
        for part, of_part in sorted(won.items())
    }


def keywords(text: str) -> str:
    """What is left of a question when nobody is being polite: no aside, no question words, no stop words."""
    words = [word for word in _WORD.findall(_ASIDE.sub(" ", text)) if word.lower() not in _EMPTY]
    return " ".join(words) or text


def _asked(question: Question, dice: random.Random) -> str:
    if dice.random() < _KEYWORDS.get(question.part, _KEYWORDS_OF_JUDGED):
        return keywords(question.text)
    if question.part == TITLES and dice.random() < 0.5:
        return _ASIDE.sub(" ", question.text).strip() or question.text
    return question.text


def ranks(count: int, wanted: int, dice: random.Random) -> list[int]:
    """Ranks, more of the first (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006)."""
    keys = [(math.log(dice.random() or 1e-12) * (rank + 1 + _HEAD_OFFSET), rank) for rank in range(count)]
    return [rank for _, rank in sorted(keys, reverse=True)[:wanted]]
