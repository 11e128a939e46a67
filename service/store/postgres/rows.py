"""Rows of documents, collections and versions, as the queries of several modules select them."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from psycopg.rows import TupleRow

from service.core.collections import ChunkingSettings, Collection, CollectionSettings, EmbedderSpec, IndexSettings
from service.core.documents import StoredDocument
from service.core.versions import Calibration, EmbedderIdentity, EmbedderVersion, PromotionEvidence, VersionState
from service.store.postgres.json_records import read, read_optional

_DOCUMENT = tuple(field.name for field in fields(StoredDocument))
_COLLECTION = ("id", "name", "settings", "active_version", "previous_version", "created_at")
_VERSION = tuple(field.name for field in fields(EmbedderVersion))


def version_key(version: EmbedderVersion) -> dict[str, Any]:
    """The values by which statements find the row of a version."""
    return {"collection_id": version.collection_id, "number": version.number}


def document_of(columns: Sequence[Any]) -> StoredDocument:
    """The columns in the order of the fields of StoredDocument."""
    return StoredDocument(**dict(zip(_DOCUMENT, columns, strict=True)))


def collection_of(row: TupleRow) -> Collection:
    """id, name, settings, active_version, previous_version, created_at."""
    values = dict(zip(_COLLECTION, row, strict=True))
    return Collection(**values | {"settings": read(CollectionSettings, values["settings"])})


def version_of(row: TupleRow) -> EmbedderVersion:
    """The columns of the block `columns` of `version_transitions.sql`, which are the fields of EmbedderVersion."""
    values = dict(zip(_VERSION, row, strict=True))
    parsed = {
        "state": VersionState(values["state"]),
        "spec": read(EmbedderSpec, values["spec"]),
        "chunking": read(ChunkingSettings, values["chunking"]),
        "identity": read(EmbedderIdentity, values["identity"]),
        # JSON gives a whole number as an integer.
        "canary": {text: tuple(map(float, vector)) for text, vector in values["canary"].items()},
        "index": read(IndexSettings, values["index"]),
        "evidence": read_optional(PromotionEvidence, values["evidence"]),
        "calibration": read_optional(Calibration, values["calibration"]),
    }
    return EmbedderVersion(**values | parsed)


def text_array(values: Sequence[str]) -> str:
    """Many texts as one array literal: the driver would adapt them one by one, a microsecond each."""
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * max(0, len(values) - 1):
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"
