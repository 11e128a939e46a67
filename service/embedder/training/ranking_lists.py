"""Lists to rank: one right passage among wrong ones, with the target distribution over them."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from service.embedder.training.hard_negatives import RankedNegatives
from service.embedder.training.reranker_data import SENTENCES
from service.embedder.training.training_queries import TITLES, TrainingQuery, keywords, without_asides

SOFT_SHARE = 0.05
"""Share of the target that follows the first stage instead of the judgment. Judgments are incomplete: a candidate that
both legs rank first may well be an answer, and a reranker that is never certain of the opposite blends better."""
SOFT_TEMPERATURE = 0.1
_RANK_OFFSET = 6
"""A candidate at rank r is drawn with a weight of 1 / (r + 6): half of the draws are among the first ten of 50."""
_KEYWORD_SHARES = {TITLES: 0.4, SENTENCES: 0.15}
_KEYWORD_SHARE_OF_JUDGED = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingList:
    """`passages[0]` is right. `first_stage`: the fused score of each passage."""

    query: str
    passages: list[str]
    first_stage: list[float]
    part: str

    @property
    def target(self) -> list[float]:
        """One probability for each passage: most of it on the first, the rest as a softmax of the first stage."""
        highest = max(self.first_stage)
        weights = [math.exp((score - highest) / SOFT_TEMPERATURE) for score in self.first_stage]
        soft = [SOFT_SHARE * weight / sum(weights) for weight in weights]
        return [soft[0] + 1 - SOFT_SHARE, *soft[1:]]


def draw(negatives: RankedNegatives, size: int, dice: random.Random) -> RankingList | None:
    """One right passage and `size` - 1 wrong ones, drawn anew each time. None if there is no wrong one."""
    if not negatives.wrong:
        return None
    query, material = negatives.query, negatives.material
    which = dice.randrange(len(query.right))
    right = query.answer or material.passage(query.right[which], titled=query.titled)
    drawn = sample_ranks(len(negatives.wrong), size - 1, dice)
    return RankingList(
        query=_vary(query, dice),
        passages=[right, *(material.passage(negatives.wrong[at], titled=query.titled) for at in drawn)],
        first_stage=[negatives.right_scores[which], *(negatives.scores[at] for at in drawn)],
        part=f"{material.name}/{query.part}",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Shares of the lists of a part in which the right passage is ranked first."""

    lists: int
    first_stage: float
    reranker: float


def accuracy(lists: Sequence[RankingList], logits: Sequence[Sequence[float]]) -> dict[str, Accuracy]:
    """Part -> how often the first stage, and the reranker with these logits, rank the right passage first."""
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, scores in zip(lists, logits, strict=True):
        hits[one.part].append((one.first_stage[0] == max(one.first_stage), scores[0] == max(scores)))
    found = {}
    for part, of_part in sorted(hits.items()):
        first_stage, reranker = map(fmean, zip(*of_part, strict=True))
        found[part] = Accuracy(lists=len(of_part), first_stage=first_stage, reranker=reranker)
    return found


def _vary(query: TrainingQuery, dice: random.Random) -> str:
    """The query as it is, as keywords, or, if it is a title, sometimes without asides."""
    if dice.random() < _KEYWORD_SHARES.get(query.part, _KEYWORD_SHARE_OF_JUDGED):
        return keywords(query.text)
    if query.part == TITLES and dice.random() < 0.5:
        return without_asides(query.text)
    return query.text


def sample_ranks(count: int, wanted: int, dice: random.Random) -> list[int]:
    """Weighted sample of ranks (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006)."""
    keys = [(math.log(dice.random() or 1e-12) * (rank + 1 + _RANK_OFFSET), rank) for rank in range(count)]
    return [rank for _, rank in sorted(keys, reverse=True)[:wanted]]
