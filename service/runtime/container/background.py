"""Background work that several processes share, or that waits for another part of the process."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from service.core.collections import EmbedderSpec
from service.core.errors import AzimuthError
from service.core.metrics import DATABASE_RESTORED
from service.core.periodic import repeat_every, utc_now
from service.core.ports.collections import Collections
from service.embedder.reranker.reranker import CrossEncoderReranker
from service.runtime.readiness import Readiness
from service.spaces.model_verification import ModelVerifier
from service.store.postgres.filters.indexed_fields import IndexedFields
from service.versions.state_machine import BUILD_STATES, VersionStateMachine

log = logging.getLogger(__name__)

RESTORE_SECONDS = 1.0
"""Between two looks whether the database was restored."""


def report_restore() -> None:
    log.warning("another state of the database was restored, or a replica took over: everything is read anew")
    DATABASE_RESTORED.inc()


def version_tasks(machine: VersionStateMachine, fields: IndexedFields) -> list[Coroutine[Any, Any, None]]:
    """Each state has a task of its own: an index build of hours must not delay the backfill of another version."""
    build = (repeat_every(one.value, 1.0, partial(machine.advance_all, utc_now, {one})) for one in sorted(BUILD_STATES))
    return [
        *build,
        repeat_every("fields", 1.0, lambda: fields.maintain(utc_now())),
        repeat_every("indexes", 5.0, partial(machine.maintain_complete, utc_now)),
    ]


async def load_reranker_last(reranker: CrossEncoderReranker | None, readiness: Readiness) -> None:
    """Load the reranker once the API is ready, so that it does not delay what every search needs."""
    if reranker is not None:
        while await readiness.missing():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(2.0)
        await reranker.warm()


async def load_default_model(collections: Collections, verifier: ModelVerifier) -> None:
    """Load it in a worker of a new installation, so that the first document does not wait for it.

    Where there are collections, the worker loads what their versions need and nothing else.
    """
    with suppress(AzimuthError):  # the API reports what is wrong with it
        if not await collections.all():
            await verifier.register(EmbedderSpec())
