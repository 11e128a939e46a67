"""What every cross-encoder has besides its network: how it reads pairs of texts, and what its log-odds mean.

`CrossEncoder.predict` of sentence-transformers truncates both texts of a pair that is too long. Here the passage is
truncated first, then the query, and both are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core import metrics
from service.core.logistic import Logistic
from service.core.relevance import RelevanceCalibration
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import PassBudget
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens

MIN_PASSAGE_SHARE = 0.25
"""Of the input, which a passage keeps (if it is that long) before the query is cut: about 50 words of 256 tokens."""
PORTION, PORTION_ON_GPU = 16, 128
"""Passages of the length of an embedder's chunks that are tokenized, and read before the next are chosen, at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDescription:
    """What has to be known of a cross-encoder besides its weights. `tokenizer`: serialized."""

    tokenizer: str
    max_tokens: int
    padding: Padding
    calibration: Logistic
    relevance: RelevanceCalibration | None


class PairModel:
    """Pairs of texts in, log-odds of relevance out: a `PassModel` of the scheduler. Networks are in subclasses."""

    kind = "reranker"
    portion = PORTION

    def __init__(self, described: PairDescription, *, batch_tokens: int, pass_overhead: int) -> None:
        """`batch_tokens`: padded tokens of one pass. `pass_overhead`: see `PassModel`."""
        self.calibration, self.relevance = described.calibration, described.relevance
        self.max_tokens = described.max_tokens
        self.batch_tokens, self.pass_overhead = batch_tokens, pass_overhead
        self.budget = PassBudget(batch_tokens)
        self._padding = described.padding
        self._tokenizer = TextTokenizer(described.tokenizer, self.max_tokens, strategy="only_second")
        self._room = self.max_tokens - self._tokenizer.pair_overhead
        self._min_passage_tokens = int(MIN_PASSAGE_SHARE * self._room)

    def forward(self, pairs: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """One pass over all pairs: log-odds, [n]. MemoryError if the device has no room for it."""
        raise NotImplementedError

    def record(self, pairs: Sequence[Tokens], seconds: float) -> None:
        metrics.RERANK_PASS_SECONDS.observe(seconds)
        metrics.RERANKED_PAIRS.inc(len(pairs))

    def tokens(self, query: str, passages: Sequence[str]) -> tuple[list[Tokens], float]:
        """The query with each passage as the model reads them, and how much of the query was read with each of them,
        at least: a share, 1 where it was not cut.

        A passage is truncated down to `MIN_PASSAGE_SHARE` of the input. Only a query that does not fit beside that is
        cut, as little as the length of the passage allows: a score depends on no other passage.
        """
        (offsets,) = self._tokenizer.offsets([query])
        queries, share = [query] * len(passages), 1.0
        if len(offsets) > self._room - self._min_passage_tokens:
            rooms = [self._room - self._tokenizer.count(passage, self._min_passage_tokens) for passage in passages]
            by_room = {room: self._ends(query, offsets, room) for room in set(rooms)}
            queries, share = [by_room[room] for room in rooms], min(1.0, min(rooms) / len(offsets))
        return self._tokenizer.read(list(zip(queries, passages, strict=True))), share

    def _ends(self, query: str, offsets: npt.NDArray[np.int64], room: int) -> str:
        """The query, or as much of its beginning and its end as `room` tokens hold: the question is at either.

        A cut within a word may change its tokens, so that fewer than `room` of the original ones fit.
        """
        if len(offsets) <= room:
            return query
        for kept in range(room, 1, -1):
            tail = kept // 2
            ends = f"{query[: offsets[kept - tail - 1, 1]]} {query[offsets[-tail, 0] :]}"
            if len(self._tokenizer.offsets([ends])[0]) <= room:
                return ends
        return ""
