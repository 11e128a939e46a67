"""Calibrates the confidence of each version: what the top scores of a search say about its query.

search     texts like queries for the collection (judged queries where there are enough, else perturbed sentences of its
           own documents) and foreign texts get the top scores that a search would get
exclude    subjects of the foreign texts that the collection turns out to cover
fit        the log-odds that a text is of the first kind, by logistic regression, and its error on held-out texts

docs/decisions/0023 has the reasons for these texts and scores, with measurements.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

import numpy as np

from service.confidence.corrections import MIN_REAL, learn_correction
from service.confidence.fit import auroc, balanced, calibration_error, fit_logistic, reliability
from service.confidence.synthetic_queries import SyntheticQuery, foreign_texts, perturbed_sentences
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
from service.core.vector_math import finite
from service.core.versions import COMPLETE_STATES, MAX_MARKS, Calibration, EmbedderVersion, Judgments
from service.search import filter_planner, retrievers
from service.search.confidence import MIN_CHUNKS
from service.spaces.resolver import Space
from service.spaces.sample_cache import similar_size
from service.spaces.sampling import MIN_QUERIES, CollectionSampler, stable_sample

log = logging.getLogger(__name__)

SENTENCES = 150
"""Of the collection's own, for each kind of text that is made of them."""
REAL = 200
"""Judged queries, and marked ones of each kind, at most."""
GROWTH = 1.25
"""Of the number of chunks, after which a calibration is outdated: the best of more scores is higher."""
MIN_FOREIGN = 100
"""Foreign texts that must remain when subjects that the collection covers are excluded."""
MIN_AUROC = 0.8
"""Below, scores do not separate the two kinds of text well enough to say anything."""
FOLDS = 5
_COVERED_QUANTILE = 0.25
"""A subject is covered where its median text scores as much as this quantile of the collection's own texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopScores:
    """The highest cosine, and the highest BM25 as a share of what is possible for this text about `subject`."""

    cosine: float
    bm25: float
    subject: str = ""
    vector: Vector | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceCalibrator:
    """Keeps the confidence of each version calibrated, beside live searches."""

    collections: Collections
    versions: Versions
    queue: JobQueue
    vectors: VectorStore
    lexicon: Lexicon
    test_sets: TestSets
    sampling: CollectionSampler

    async def calibrate_due(self, now: Clock) -> None:
        """Calibrate the versions that serve or soon may, where that is missing or outdated."""

        async def work(version: EmbedderVersion) -> None:
            if await self._is_due(version, now()):
                async with self.versions.calibration_lock(version) as locked:
                    if locked:
                        await self._calibrate_locked(version, now)

        await for_each_version(await self.versions.in_states(COMPLETE_STATES), work, failure_message="not learnt")

    async def _is_due(self, version: EmbedderVersion, now: datetime) -> bool:
        """Not during a bulk load, nor while the lexical leg is behind: the result would be outdated at once."""
        if version.spec.external:
            return False
        rows, known = (await self.versions.status(version)).rows, version.calibration
        if rows < MIN_CHUNKS:
            return False
        if known is not None and similar_size(known.rows, rows, GROWTH):
            uploaded_at = await self.test_sets.uploaded_at(version.collection_id)
            marks = await self.test_sets.count_marks(version.collection_id, "")
            few = max(marks, known.marks) < 2 * MIN_REAL
            if known.judged_at == uploaded_at and (few or similar_size(known.marks, marks, GROWTH)):
                return False
        waiting = (await self.queue.status(version.collection_id, version.number, now)).pending
        return waiting <= rows / 10 and self.lexicon.lag_seconds(version.collection_id) == 0.0

    async def _calibrate_locked(self, version: EmbedderVersion, now: Clock) -> None:
        version = await self.versions.get(version.collection_id, version.number)
        if not await self._is_due(version, now()):
            return  # another process held the lock before and has done it
        calibration = await self.calibrate(version, now)
        stored = await self.versions.save_calibration(version, calibration)
        figures = {name: getattr(calibration, name) for name in ("auroc", "error", "reason")}
        log.info(
            "confidence learnt" if stored else "confidence was learnt by another process",
            extra={"collection_id": version.collection_id, "version": version.number, **figures},
        )

    async def calibrate(self, version: EmbedderVersion, now: Clock) -> Calibration:
        """Raises AzimuthError where a leg or the model is not available now."""
        collection = await self.collections.get(version.collection_id)
        judgments = await self.test_sets.get(collection.id)
        status = await self.versions.status(version)
        space = Space(collection=collection, version=version, status=status)
        judged = _judged_queries(judgments)
        if len(judged) >= MIN_QUERIES:  # nearest to what people ask
            own = whole = await self._scores(space, judged)
            sources = {"judged queries": len(judged)}
        else:
            perturbed, sentences = await self._own_sentences(collection, version)
            own, whole = await self._scores(space, perturbed), await self._scores(space, sentences)
            sources = {"disturbed sentences": len(perturbed), "sentences": len(sentences)}
        foreign = _uncovered(await self._scores(space, foreign_texts()), own)
        sources["foreign texts"] = len(foreign)
        judged_at = None if judgments is None else judgments.uploaded_at
        marks = await self.test_sets.marks(collection.id, "", "", MAX_MARKS)  # tenants' say nothing of the whole
        unfitted = Calibration(
            rows=status.rows, sources=sources, learnt_at=now(), judged_at=judged_at, marks=len(marks)
        )
        fitted = await asyncio.to_thread(fit_calibration, unfitted, own, whole, foreign)
        known = frozenset(() if judgments is None else judgments.queries.values())
        marked = {mark.query: mark.answered for mark in marks if mark.query not in known}
        answered, unanswered = (_sample([text for text in marked if marked[text] == kind]) for kind in (True, False))
        if fitted.both is None or min(len(judged) + len(answered), len(unanswered)) < MIN_REAL:
            return fitted
        real = [*await self._scores(space, [*judged, *answered]), *await self._scores(space, unanswered)]
        vectors = np.array([one.vector for one in real], np.float64)
        truths = np.arange(len(real)) < len(real) - len(unanswered)
        learnt = await asyncio.to_thread(learn_correction, fitted.both.log_odds(_features(real)), vectors, truths)
        if learnt is None:
            return fitted
        sources |= {"marked as answered": len(answered), "marked as not answered": len(unanswered)}
        return replace(fitted, correction=learnt[0], deviation=learnt[1], sources=sources)

    async def _own_sentences(
        self, collection: Collection, version: EmbedderVersion
    ) -> tuple[list[SyntheticQuery], list[SyntheticQuery]]:
        """Sentences of random documents: perturbed, for both legs; and as they are, for the dense leg alone.

        Every second one of the latter may not find its own document: to find the very text that was encoded is too
        easy.
        """
        sample = await self.vectors.sample(version, 2 * SENTENCES)
        ids = (document_id for document_id, _ in sample.chunks)
        found = (await self.sampling.random_sentences(collection, version, ids))[:SENTENCES]
        whole = [
            SyntheticQuery(text=sentence, source=source if at % 2 else None)
            for at, (source, sentence) in enumerate(found)
        ]
        perturbed = perturbed_sentences([query.text for query in whole], random.Random(version.number))  # noqa: S311
        return [SyntheticQuery(text=text) for text in perturbed], whole

    async def _scores(self, space: Space, queries: Sequence[SyntheticQuery]) -> list[TopScores]:
        """Of the queries for which the embedder gives a usable vector."""
        vectors = await self.sampling.embed_queries(space.version, [query.text for query in queries])
        scores = []
        for query, vector, usable in zip(queries, vectors, finite(vectors), strict=True):
            if usable:
                scores.append(await self._score(space, query, vector))
            await asyncio.sleep(0)  # live searches first
        return scores

    async def _score(self, space: Space, query: SyntheticQuery, vector: Vector) -> TopScores:
        limit = retrievers.chunks_for(space, 2 if query.source is None else 10)
        plan = filter_planner.choose_plan(space.status, None, limit, exact=False, ef_search=None)
        dense = await self.vectors.nearest(VectorQuery(space.version, vector, limit, plan))
        words = parse_query(query.text, "plain")
        ceiling = await self.lexicon.max_score(space.collection, words)
        lexical = await self.lexicon.search(space.collection, words, 2)
        cosine, bm25 = (
            max((row.score for row in rows if row.document_id != query.source), default=0.0)
            for rows in (dense, lexical)
        )
        return TopScores(
            cosine=cosine, bm25=bm25 / ceiling if ceiling > 0 else 0.0, subject=query.subject, vector=vector
        )


def _judged_queries(judgments: Judgments | None) -> list[SyntheticQuery]:
    """Queries for which something is relevant."""
    if judgments is None:
        return []
    answered = (query for query, grades in judgments.grades.items() if any(grade > 0 for grade in grades.values()))
    return _sample([text for query in sorted(answered) if (text := judgments.queries[query]).strip()])


def _sample(texts: Sequence[str]) -> list[SyntheticQuery]:
    return [SyntheticQuery(text=text) for text in stable_sample(texts, REAL)]


def _uncovered(foreign: Sequence[TopScores], own: Sequence[TopScores]) -> list[TopScores]:
    """The scores of the foreign texts about subjects that the collection does not cover."""
    limit = float(np.quantile([one.cosine for one in own], _COVERED_QUANTILE)) if own else 0.0
    cosines: dict[str, list[float]] = defaultdict(list)
    for one in foreign:
        cosines[one.subject].append(one.cosine)
    return [one for one in foreign if median(cosines[one.subject]) <= limit]


def fit_calibration(
    unfitted: Calibration, own: Sequence[TopScores], whole: Sequence[TopScores], foreign: Sequence[TopScores]
) -> Calibration:
    """`both` is fitted to perturbed texts, `dense` to whole ones. The figures are of `both`, on held-out texts."""
    if len(own) < MIN_QUERIES or len(whole) < MIN_QUERIES:
        return replace(unfitted, reason="the collection has too little text to learn from")
    if len(foreign) < MIN_FOREIGN:
        return replace(unfitted, reason="the collection covers nearly every subject that is known as foreign")
    positives, negatives = _features(own), _features(foreign)
    folds = [np.s_[fold::FOLDS] for fold in range(FOLDS)]
    held_out = [_fit(np.delete(positives, fold, 0), np.delete(negatives, fold, 0)) for fold in folds]
    predicted = [
        np.concatenate([line.probabilities(features[fold]) for fold, line in zip(folds, held_out, strict=True)])
        for features in (positives, negatives)
    ]
    separation = auroc(*predicted)
    dense = _fit(_features(whole)[:, :1], negatives[:, :1])
    if separation < MIN_AUROC or dense.weights[0] <= 0:
        reason = f"its scores do not tell its own texts from foreign ones: AUROC {separation:.2f}"
        return replace(unfitted, reason=reason, auroc=separation)
    error = calibration_error(reliability(*balanced(*predicted)))
    both = _fit(positives, negatives)
    return replace(unfitted, dense=dense, both=both, auroc=round(separation, 4), error=round(error, 4))


def _fit(positives: Floats, negatives: Floats) -> Logistic:
    labels = np.arange(len(positives) + len(negatives)) < len(positives)
    return fit_logistic(np.concatenate([positives, negatives]), labels)


def _features(scores: Sequence[TopScores]) -> Floats:
    """Cosine and BM25, [n, 2]."""
    return np.array([[one.cosine, one.bm25] for one in scores])
