"""Looking at what clients ask, every half minute where something new was asked: is it still what it was, and for us?

look up    how many documents say each word of the new queries
compare    with the collection and with earlier queries (`currents.py`), in a thread
remember   what came of it, by the minute, and export it

Searches pay for none of it: `QueryWindows` keeps what they leave behind. All of it is of this process, and gone with
it.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import AzimuthError, NotFound
from service.core.periodic import Clock
from service.core.ports.collections import Collections
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.query_syntax import parse_query as understood
from service.core.text import meaningful_sentences
from service.core.verdict import VERDICTS
from service.core.versions import EmbedderVersion
from service.drift.assess import NAMES, CollectionReference, DriftAssessment, Name, assess
from service.drift.query_window import MIN_LATEST, Key, QueryWindow, QueryWindows, WindowedQuery
from service.spaces.sampling import CollectionSampler

log = logging.getLogger(__name__)

PAUSE_SECONDS = 30.0
HISTORY = 1_440
"""Minutes that are remembered: a day of uninterrupted traffic."""
CHUNKS = 500
SENTENCES = 150
OWN_SECONDS = 3_600.0
CHANGED = 1.25
"""Times as many chunks as when the collection was looked at, or so many times fewer: looked at again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftMinute:
    """`queries`: that came since the minute before. `values`: of each measure; None where it could not be told."""

    at: datetime
    queries: int
    values: Mapping[Name, float | None]
    best_cosine: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftReport:
    """`queries`, `earlier`: in the two samples; `seen`: all that there were."""

    queries: int = 0
    earlier: int = 0
    seen: int = 0
    reading: DriftAssessment | None = None
    measured_at: datetime | None = None
    history: Sequence[DriftMinute] = ()


@dataclass(kw_only=True, slots=True)
class WatchedVersion:
    """What is known of one version. `due`: not looked at before, on the monotonic clock."""

    due: float = 0.0
    seen: int = 0
    own: CollectionReference | None = None
    own_rows: int = 0
    own_until: float = 0.0
    report: DriftReport = field(default_factory=DriftReport)
    history: deque[DriftMinute] = field(default_factory=lambda: deque(maxlen=HISTORY))


class DriftMonitor:
    """`pause`: seconds between two looks at one collection."""

    def __init__(
        self,
        *,
        traffic: QueryWindows,
        collections: Collections,
        versions: Versions,
        vectors: VectorStore,
        lexicon: Lexicon,
        sampling: CollectionSampler,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._traffic = traffic
        self._collections = collections
        self._versions = versions
        self._vectors = vectors
        self._lexicon = lexicon
        self._sampling = sampling
        self._pause = pause
        self._watched: dict[Key, WatchedVersion] = {}

    def report(self, collection: Collection) -> DriftReport:
        """As of the last look."""
        watched = self._watched.get((collection.id, collection.active_version))
        return DriftReport() if watched is None else watched.report

    async def tend(self, now: Clock) -> None:
        """Look at what is due. What goes wrong with one collection is logged, and holds up no other."""
        self._watched = {key: watched for key, watched in self._watched.items() if self._traffic.get(key) is not None}
        for key, window in tuple(self._traffic.items()):
            watched = self._watched.setdefault(key, WatchedVersion())
            if window.seen == watched.seen or len(window.latest) < MIN_LATEST or time.monotonic() < watched.due:
                continue
            watched.due = time.monotonic() + self._pause
            try:
                await self._look(key, window, watched, now)
            except NotFound:
                self._traffic.pop(key, None)  # deleted meanwhile
            except AzimuthError as error:
                log.warning("drift is not measured", extra={"collection_id": key[0], "reason": error.detail})
            except Exception:
                log.exception("drift is not measured", extra={"collection_id": key[0]})

    async def _look(self, key: Key, window: QueryWindow, watched: WatchedVersion, now: Clock) -> None:
        collection = await self._collections.get(key[0])
        if collection.active_version != key[1]:
            self._traffic.pop(key, None)
            return
        version = await self._versions.get(*key)
        seen, latest, earlier = window.seen, tuple(window.latest), tuple(window.earlier)
        await self._look_up(collection, latest)
        await self._know(collection, version, watched)
        reading = await asyncio.to_thread(assess, latest, earlier, watched.own)
        came, watched.seen, moment = seen - watched.seen, seen, now()
        self._remember(watched, reading, came, moment)
        watched.report = DriftReport(
            queries=len(latest),
            earlier=len(earlier),
            seen=seen,
            reading=reading,
            measured_at=moment,
            history=tuple(watched.history),
        )
        _export(collection, reading)

    # ------------------------------------------------------------ look up

    async def _look_up(self, collection: Collection, asked: Sequence[WindowedQuery]) -> None:
        """Those that were not yet. Their texts are let go."""
        for one in asked:
            if one.words is None:
                counts = await self._frequencies(collection, understood(one.text, one.syntax).text)
                if counts is None:
                    return
                one.words, one.text = (sum(count == 0 for count in counts), len(counts)), ""

    async def _frequencies(self, collection: Collection, text: str) -> tuple[int, ...] | None:
        """None where the lexical index cannot be asked now."""
        if not text:
            return ()
        try:
            return await self._lexicon.document_frequencies(collection, understood(text, "plain"))
        except AzimuthError as error:
            log.info("words are not looked up", extra={"collection": collection.name, "reason": error.detail})
            return None

    async def _know(self, collection: Collection, version: EmbedderVersion, watched: WatchedVersion) -> None:
        """What the collection itself is like, again after an hour or when it has changed by a quarter."""
        rows = (await self._versions.status(version)).rows
        alike = watched.own_rows / CHANGED < rows < watched.own_rows * CHANGED
        if watched.own is not None and alike and time.monotonic() < watched.own_until:
            return
        sample = await self._vectors.sample(version, CHUNKS)
        chance = random.Random(version.number)  # noqa: S311  no secret
        unknown, words = [], []
        chosen = [document_id for document_id, _ in sample.chunks[:SENTENCES]]
        async for document in self._sampling.documents(collection, chosen):
            parts = meaningful_sentences(document.text or document.title)
            counts = await self._frequencies(collection, chance.choice(parts)) if parts else ()
            if counts is None:
                return
            unknown.append(sum(count <= 1 for count in counts))  # said by the document that it is from alone
            words.append(len(counts))
        watched.own = CollectionReference(vectors=sample.vectors, unknown=unknown, words=words)
        watched.own_rows, watched.own_until = rows, time.monotonic() + OWN_SECONDS

    # ------------------------------------------------------------ remember

    def _remember(self, watched: WatchedVersion, reading: DriftAssessment, came: int, moment: datetime) -> None:
        minute = moment.replace(second=0, microsecond=0)
        if watched.history and watched.history[-1].at == minute:
            came += watched.history.pop().queries
        values: dict[Name, float | None] = dict.fromkeys(NAMES)
        values |= {one.name: one.gap.value for one in reading.measures if one.gap is not None}
        watched.history.append(DriftMinute(at=minute, queries=came, values=values, best_cosine=reading.best_cosine))


def _export(collection: Collection, reading: DriftAssessment) -> None:
    labels: dict[str, Any] = {"collection": collection.name}
    for measure in reading.measures:
        if measure.gap is None:
            metrics.DRIFT.remove_by_labels({**labels, "measure": measure.name})
        else:
            metrics.DRIFT.labels(collection.name, measure.name).set(measure.gap.value)
    if reading.verdict is None:
        metrics.DRIFT_VERDICT.remove_by_labels(labels)
    else:
        metrics.DRIFT_VERDICT.labels(collection.name).set(VERDICTS.index(reading.verdict))
