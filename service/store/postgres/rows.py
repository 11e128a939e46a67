"""Rows of documents, collections and versions, as the queries of several modules select them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import TupleRow

from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.ids import CollectionId, CollectionName, DocumentId, Fingerprint, VersionNumber
from service.core.versions import EmbedderVersion, VersionState
from service.store.postgres import json_records


def stored(
    document_id: str,
    title: str,
    text: str,
    metadata: dict[str, Any],
    revision: int,
    content_revision: int,
    created_at: datetime,
    updated_at: datetime,
) -> StoredDocument:
    """The columns in the order in which every query gives them."""
    return StoredDocument(
        id=DocumentId(document_id),
        title=title,
        text=text,
        metadata=metadata,
        revision=revision,
        content_revision=content_revision,
        created_at=created_at,
        updated_at=updated_at,
    )


def collection_of(row: TupleRow) -> Collection:
    """id, name, settings, active_version, previous_version, created_at."""
    identifier, name, settings, active, previous, created_at = row
    return Collection(
        id=CollectionId(identifier),
        name=CollectionName(name),
        settings=json_records.settings_from_json(settings),
        active_version=VersionNumber(active),
        previous_version=None if previous is None else VersionNumber(previous),
        created_at=created_at,
    )


def version_of(row: TupleRow) -> EmbedderVersion:
    """The columns in the order of the block `columns` of `versions.sql`."""
    (
        collection_id,
        number,
        state,
        spec,
        chunking,
        identity,
        fingerprint,
        canary,
        index,
        paused,
        reason,
        evidence,
        calibration,
        created_at,
    ) = row
    return EmbedderVersion(
        collection_id=CollectionId(collection_id),
        number=VersionNumber(number),
        state=VersionState(state),
        spec=json_records.spec_from_json(spec),
        chunking=json_records.chunking_from_json(chunking),
        identity=json_records.identity_from_json(identity),
        fingerprint=Fingerprint(fingerprint),
        canary=json_records.canary_from_json(canary),
        index=json_records.index_from_json(index),
        paused=paused,
        reason=reason,
        evidence=None if evidence is None else json_records.evidence_from_json(evidence),
        calibration=None if calibration is None else json_records.calibration_from_json(calibration),
        created_at=created_at,
    )


def text_array(values: Sequence[str]) -> str:
    """Many texts as one array literal: the driver would adapt them one by one, a microsecond each."""
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * max(0, len(values) - 1):
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"
