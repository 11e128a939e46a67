"""How settings, specs and identities are kept as JSON: the one place that knows both sides.

What a row does not name takes its default, so that a new setting needs no migration. What this program does not know
is an error (TypeError): a row written by a newer program must not be read half.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from service.domain import Chunking, CollectionSettings, EmbedderSpec, Fusion, Identity

Json = dict[str, Any]


def settings_to_json(settings: CollectionSettings) -> Json:
    return dataclasses.asdict(settings)


def settings_from_json(row: Mapping[str, Any]) -> CollectionSettings:
    values = dict(row)
    for name, read in (("embedder", spec_from_json), ("chunking", chunking_from_json), ("fusion", _fusion_from_json)):
        if name in values:
            values[name] = read(values[name])
    return CollectionSettings(**values)


def spec_to_json(spec: EmbedderSpec) -> Json:
    return dataclasses.asdict(spec)


def spec_from_json(row: Mapping[str, Any]) -> EmbedderSpec:
    return EmbedderSpec(**row)


def chunking_to_json(chunking: Chunking) -> Json:
    return dataclasses.asdict(chunking)


def chunking_from_json(row: Mapping[str, Any]) -> Chunking:
    return Chunking(**row)


def identity_to_json(identity: Identity) -> Json:
    return {"parts": dict(identity.parts), "dimensions": identity.dimensions, "max_tokens": identity.max_tokens}


def identity_from_json(row: Mapping[str, Any]) -> Identity:
    return Identity(**row)


def canary_to_json(canary: Mapping[str, tuple[float, ...]]) -> Json:
    return {text: list(vector) for text, vector in canary.items()}


def canary_from_json(row: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    # A whole number comes back from JSON as an integer.
    return {text: tuple(map(float, vector)) for text, vector in row.items()}


def _fusion_from_json(row: Mapping[str, Any]) -> Fusion:
    return Fusion(**row)
