"""Learning, for each version, what the top scores of a search say of its question.

ask      texts like questions for the collection (judged queries where there are enough, else sentences of its own
         documents, disturbed), and foreign ones (`foreign.txt`), get the top scores that a search would see
leave    subjects of the foreign texts that the collection turns out to cover: they are not foreign here
fit      the log-odds that a text is of the first kind, by logistic regression; and its error on texts left out
keep     with the version

Why these texts and these scores, with measurements: docs/decisions/0023. All of it runs beside live searches, one text
at a time, and again when the collection has changed by a quarter.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import numpy as np

from service.confidence.fit import Truths, auroc, calibration_error, evened, fit, reliability
from service.confidence.synthetic_queries import SyntheticQuery, disturbed, foreign
from service.core.collections import Collection
from service.core.ids import Vector
from service.core.logistic import Floats, Logistic
from service.core.periodic import Clock, for_each_version
from service.core.ports.collections import Collections
from service.core.ports.lexicon import Lexicon
from service.core.ports.queue import JobQueue
from service.core.ports.test_sets import TestSets
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.ports.versions import Versions
from service.core.query_syntax import parse_query
from service.core.text import meaningful_sentences
from service.core.vector_math import finite
from service.core.versions import COMPLETE_STATES, Calibration, EmbedderVersion, Judgments
from service.search import filter_planner, retrievers
from service.search.confidence import MIN_CHUNKS
from service.spaces.resolver import Space
from service.spaces.sampling import FEW, CollectionSampler, some

log = logging.getLogger(__name__)

SENTENCES = 150
"""Of the collection's own, for each kind of text that is made of them."""
JUDGED = 200
CHANGED = 1.25
"""Times as many chunks as when it was learnt, or so many times fewer: the best of more scores is higher."""
LEAST_FOREIGN = 100
"""Texts that must be left when subjects that the collection covers are gone."""
LEAST_AUROC = 0.8
"""Below, scores do not tell the two apart well enough to say anything."""
FOLDS = 5
_COVERED = 0.25
"""A subject is covered where its middle text finds as much as this quantile of the collection's own does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopScores:
    """The highest cosine, and the highest BM25 as a share of what is possible for this text."""

    cosine: float
    bm25: float


class ConfidenceCalibrator:
    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        queue: JobQueue,
        vectors: VectorStore,
        lexicon: Lexicon,
        test_sets: TestSets,
        sampling: CollectionSampler,
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._queue = queue
        self._vectors = vectors
        self._lexicon = lexicon
        self._test_sets = test_sets
        self._sampling = sampling

    async def tend(self, now: Clock) -> None:
        """Learn what was not learnt yet or is outdated, of every version that is or may be searched."""

        async def learn(version: EmbedderVersion) -> None:
            if await self._due(version, now()):
                await self._learn(version, now)

        await for_each_version(await self._versions.in_states(COMPLETE_STATES), learn, failure_message="not learnt")

    async def _due(self, version: EmbedderVersion, now: datetime) -> bool:
        """Not in the middle of a bulk load, nor while the lexical leg is behind: it would be learnt twice."""
        if version.spec.external:
            return False
        rows = (await self._versions.status(version)).rows
        known = version.calibration
        if rows < MIN_CHUNKS:
            return False
        if known is not None and await self._stands(version, known, rows):
            return False
        waiting = (await self._queue.status(version.collection_id, version.number, now)).pending
        return waiting <= rows / 10 and self._lexicon.lag_seconds(version.collection_id) == 0.0

    async def _stands(self, version: EmbedderVersion, known: Calibration, rows: int) -> bool:
        """Was it learnt from about what there is?"""
        alike = known.rows / CHANGED < rows < known.rows * CHANGED
        return alike and known.judged_at == await self._test_sets.uploaded_at(version.collection_id)

    async def _learn(self, version: EmbedderVersion, now: Clock) -> None:
        async with self._versions.calibration_lock(version) as ours:
            if not ours:
                return
            version = await self._versions.get(version.collection_id, version.number)
            if not await self._due(version, now()):
                return  # whoever had the lock before has done it
            calibration = await self.calibrate(version, now)
            kept = await self._versions.save_calibration(version, calibration)
            log.info(
                "confidence learnt" if kept else "confidence was learnt by somebody else",
                extra={
                    "collection_id": version.collection_id,
                    "version": version.number,
                    "auroc": calibration.auroc,
                    "error": calibration.error,
                    "reason": calibration.reason,
                },
            )

    async def calibrate(self, version: EmbedderVersion, now: Clock) -> Calibration:
        """Ask, and fit. AzimuthError where a leg or the model is not to be had just now."""
        collection = await self._collections.get(version.collection_id)
        judgments = await self._test_sets.get(collection.id)
        judged_at = None if judgments is None else judgments.uploaded_at
        status = await self._versions.status(version)
        space = Space(collection=collection, version=version, status=status)
        judged = _judged(judgments)
        whole: Sequence[SyntheticQuery]
        if len(judged) >= FEW:  # nearest to what people ask
            asked = whole = judged
            sources = {"judged queries": len(judged)}
        else:
            asked, whole = await self._own(collection, version)
            sources = {"disturbed sentences": len(asked), "sentences": len(whole)}
        own = await self._scores(space, asked)
        own_whole = own if whole is asked else await self._scores(space, whole)
        foreign_texts = foreign()
        scored = await self._scores(space, foreign_texts)
        left = _uncovered(foreign_texts, scored, own)
        sources["foreign texts"] = len(left)
        learnt = await asyncio.to_thread(fitted, _known(own), _known(own_whole), left)
        return Calibration(
            dense=learnt.dense,
            both=learnt.both,
            reason=learnt.reason,
            rows=status.rows,
            sources=sources,
            auroc=learnt.auroc,
            error=learnt.error,
            learnt_at=now(),
            judged_at=judged_at,
        )

    # ------------------------------------------------------------ ask

    async def _own(
        self, collection: Collection, version: EmbedderVersion
    ) -> tuple[list[SyntheticQuery], list[SyntheticQuery]]:
        """Sentences of random documents: disturbed, for both legs; and as they stand, for the dense leg alone.

        Of the latter every second one may not find its own document, for to be found by the very text that was encoded
        is too easy.
        """
        sample = await self._vectors.sample(version, 2 * SENTENCES)
        chance = random.Random(version.number)  # noqa: S311  no secret
        ids = (document_id for document_id, _ in sample.chunks)
        found = [
            (document.id, chance.choice(parts))
            async for document in self._sampling.documents(collection, ids)
            if (parts := meaningful_sentences(document.text or document.title))
        ][:SENTENCES]
        texts = [sentence for _, sentence in found]
        whole = [
            SyntheticQuery(text=sentence, source=source if at % 2 else None)
            for at, (source, sentence) in enumerate(found)
        ]
        return [SyntheticQuery(text=text) for text in disturbed(texts, chance)], whole

    async def _scores(self, space: Space, texts: Sequence[SyntheticQuery]) -> list[TopScores | None]:
        """Aligned with the texts; None where the embedder gives no usable vector."""
        vectors = await self._sampling.embedded(space.version, [one.text for one in texts])
        scores: list[TopScores | None] = []
        for one, vector, usable in zip(texts, vectors, finite(vectors), strict=True):
            scores.append(await self._score(space, one, vector) if usable else None)
            await asyncio.sleep(0)
        return scores

    async def _score(self, space: Space, one: SyntheticQuery, vector: Vector) -> TopScores:
        limit = retrievers.chunks_for(space, 2 if one.source is None else 10)
        plan = filter_planner.choose_plan(space.status, None, limit, exact=False, ef_search=None)
        rows = await self._vectors.nearest(VectorQuery(space.version, vector, limit, plan))
        words = parse_query(one.text, "plain")
        ceiling = await self._lexicon.max_score(space.collection, words)
        found = await self._lexicon.search(space.collection, words, 2)
        return TopScores(
            cosine=max((row.score for row in rows if row.document_id != one.source), default=0.0),
            bm25=max((row.score for row in found if row.document_id != one.source), default=0.0) / ceiling
            if ceiling > 0
            else 0.0,
        )


# ---------------------------------------------------------------- leave and fit


def _judged(judgments: Judgments | None) -> list[SyntheticQuery]:
    """Queries that something is relevant for."""
    if judgments is None:
        return []
    answered = (query for query, grades in judgments.grades.items() if any(grade > 0 for grade in grades.values()))
    texts = [text for query in sorted(answered) if (text := judgments.queries[query]).strip()]
    return [SyntheticQuery(text=text) for text in some(texts, JUDGED)]


def _known(scores: Sequence[TopScores | None]) -> list[TopScores]:
    return [one for one in scores if one is not None]


def _uncovered(
    texts: Sequence[SyntheticQuery], scores: Sequence[TopScores | None], own: Sequence[TopScores | None]
) -> list[TopScores]:
    """The scores of the foreign texts whose subjects are none of the collection's."""
    known = [one.cosine for one in _known(own)]
    limit = float(np.quantile(known, _COVERED)) if known else 0.0
    by_subject: dict[str, list[TopScores]] = {}
    for text, one in zip(texts, scores, strict=True):
        if one is not None:
            by_subject.setdefault(text.subject, []).append(one)
    kept = [each for each in by_subject.values() if median(one.cosine for one in each) <= limit]
    return [one for each in kept for one in each]


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationFit:
    dense: Logistic | None = None
    both: Logistic | None = None
    reason: str | None = None
    auroc: float | None = None
    error: float | None = None


def fitted(own: Sequence[TopScores], whole: Sequence[TopScores], foreign_ones: Sequence[TopScores]) -> CalibrationFit:
    """`both` learns of the disturbed texts, `dense` of whole ones; the figures are of `both`, on texts left out."""
    if len(own) < FEW or len(whole) < FEW:
        return CalibrationFit(reason="the collection has too little text to learn from")
    if len(foreign_ones) < LEAST_FOREIGN:
        return CalibrationFit(reason="the collection covers nearly every subject that is known as foreign")
    left_out = [_left_out(own, foreign_ones, fold) for fold in range(FOLDS)]
    positives = np.concatenate([each for each, _ in left_out])
    negatives = np.concatenate([each for _, each in left_out])
    found = auroc(positives, negatives)
    dense = fit(*_examples(whole, foreign_ones, _cosines))
    if found < LEAST_AUROC or dense.weights[0] <= 0:
        return CalibrationFit(
            reason=f"its scores do not tell its own texts from foreign ones: AUROC {found:.2f}", auroc=found
        )
    return CalibrationFit(
        dense=dense,
        both=fit(*_examples(own, foreign_ones, _all)),
        auroc=round(found, 4),
        error=round(calibration_error(reliability(*evened(positives, negatives))), 4),
    )


def _left_out(own: Sequence[TopScores], foreign_ones: Sequence[TopScores], fold: int) -> tuple[Floats, Floats]:
    """The probabilities of every fifth text of each kind, by a fit to the others."""
    line = fit(
        *_examples(
            [one for at, one in enumerate(own) if at % FOLDS != fold],
            [one for at, one in enumerate(foreign_ones) if at % FOLDS != fold],
            _all,
        )
    )
    return line.probabilities(_all(own[fold::FOLDS])), line.probabilities(_all(foreign_ones[fold::FOLDS]))


def _examples(
    own: Sequence[TopScores], foreign_ones: Sequence[TopScores], features: Callable[[Sequence[TopScores]], Floats]
) -> tuple[Floats, Truths]:
    return np.concatenate([features(own), features(foreign_ones)]), np.arange(len(own) + len(foreign_ones)) < len(own)


def _cosines(scores: Sequence[TopScores]) -> Floats:
    return np.array([[one.cosine] for one in scores])


def _all(scores: Sequence[TopScores]) -> Floats:
    return np.array([[one.cosine, one.bm25] for one in scores])
