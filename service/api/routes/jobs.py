"""Everything long at one place. Derived from where each kind keeps its state: there is no table of jobs."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from typing_extensions import TypedDict

from service.api.dependencies import Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import JsonRoute
from service.api.schemas.base import CollectionNameField, QueryParameters
from service.core.collections import Collection, FieldState
from service.core.errors import NotFound
from service.core.ids import CollectionName
from service.core.metadata import MAX_FIELD_LENGTH
from service.core.periodic import utc_now
from service.core.versions import COMPLETE_STATES, Progress, VersionState

JobKind = Literal["encoding", "reindex", "index", "calibration", "field"]
JobState = Literal["running", "paused", "done", "failed"]
STATES: Mapping[VersionState, JobState] = {
    VersionState.BACKFILLING: "running",
    VersionState.INDEXING: "running",
    VersionState.VERIFYING: "running",
    VersionState.FAILED: "failed",
    **dict.fromkeys((*COMPLETE_STATES, VersionState.RETIRED), "done"),
}
"""Of the re-index that fills a version."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute, responses=error_responses(503))


class JobsQuery(QueryParameters):
    collection: CollectionNameField | None = None
    state: JobState | None = None


class JobAnswer(TypedDict):
    id: str
    kind: JobKind
    collection: str
    version: int | None
    state: JobState
    phase: str
    """What it does: of a re-index, the state of its version."""
    progress: Progress | None
    started: datetime | None
    ended: datetime | None
    """Null also where it is not known any more."""
    error: str | None


class JobsAnswer(TypedDict):
    jobs: list[JobAnswer]


@router.get("", summary="List the jobs", responses=error_responses(404, 422))
async def list_jobs(service: ServiceDep, query: Annotated[JobsQuery, Query()]) -> JobsAnswer:
    """What is encoded, re-indexed, indexed and calibrated, and fields that are filled."""
    collections = await service.collections.all()
    if query.collection is not None:
        collections = (await service.collections.by_name(query.collection),)
    jobs = [job for one in collections for job in await _of(service, one)]
    return {"jobs": [job for job in jobs if query.state in {None, job["state"]}]}


@router.get("/{id:id}", summary="One job", responses=error_responses(404, 422))
async def get(service: ServiceDep, id: Annotated[str, Path(max_length=MAX_FIELD_LENGTH + 100)]) -> JobAnswer:
    """404 also for one that is over and left nothing behind."""
    with suppress(NotFound):
        collection = await service.collections.by_name(CollectionName(id.partition(".")[0]))
        for job in await _of(service, collection):
            if job["id"] == id:
                return job
    raise NotFound(f"There is no job {id}.")


async def _of(service: Service, collection: Collection) -> list[JobAnswer]:
    jobs: list[JobAnswer] = []

    def add(kind: JobKind, which: object, state: JobState, phase: str, **more: Any) -> None:
        answer: Any = dict.fromkeys(JobAnswer.__annotations__)
        answer |= {"id": f"{collection.name}.{kind}.{which}", "kind": kind, "collection": collection.name}
        jobs.append(answer | {"state": state, "phase": phase} | more)

    with suppress(NotFound):  # the collection, or a version of it, was deleted meanwhile
        counts, active = await service.collections.counts(collection), collection.active_version
        if counts.pending:
            done = counts.documents - counts.pending - counts.failed
            progress = Progress(done=done, total=counts.documents, failed=counts.failed)
            add("encoding", active, "running", "encoding", version=active, progress=progress)
        for version in await service.versions.of(collection.id):
            about: dict[str, Any] = {"version": version.number}
            if version.number > 1:  # the first one came with its collection
                state = STATES[version.state]
                about |= {"started": version.created_at, "error": version.reason}
                if state != "done":
                    about["progress"] = await service.backfills.progress(version, utc_now())
                elif version.evidence is not None:
                    about["ended"] = version.evidence.gathered_at
                paused = version.paused and state == "running"
                add("reindex", version.number, "paused" if paused else state, version.state, **about)
            if version.state in COMPLETE_STATES:
                health, _ = await service.recall_controller.health(collection, version)
                if health.index is not None and health.index.building:
                    add("index", version.number, "running", "building", version=version.number)
            if (learnt := version.calibration) is not None:
                ended: dict[str, Any] = {"version": version.number, "ended": learnt.learnt_at, "error": learnt.reason}
                add("calibration", version.number, "failed" if learnt.reason else "done", "confidence", **ended)
        for field in await service.collections.fields(collection.id):
            if field.state is FieldState.BUILDING:
                add("field", field.name, "running", "filling")
    return jobs
