"""Vectors that the client brings: no model here, only the client's statement of what made them."""

from typing import NoReturn

from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.errors import Invalid
from service.core.versions import EmbedderIdentity

MAX_DIMENSIONS = 4_000

REFUSAL = "the vectors of this version come from the client: send `vector`"


def resolve(spec: EmbedderSpec) -> EmbedderSpec:
    """The specification itself. Invalid if a field is missing that only the client knows, or one of a model is set."""
    if spec.dimensions is None or not 1 <= spec.dimensions <= MAX_DIMENSIONS:
        raise Invalid.at("embedder.dimensions", f"{EXTERNAL} vectors declare theirs, from 1 to {MAX_DIMENSIONS}")
    if spec.identity is None or not spec.identity.strip():
        raise Invalid.at("embedder.identity", f"{EXTERNAL} vectors need a name for what makes them")
    for field in ("revision", "query_prompt", "document_prompt"):
        if getattr(spec, field):
            raise Invalid.at(f"embedder.{field}", f"{EXTERNAL} vectors have none")
    return spec


class ExternalEncoder:
    """Stands in for an encoder: it has an identity and refuses to encode or tokenize."""

    batch_tokens = 1
    streams = 1

    def __init__(self, spec: EmbedderSpec) -> None:
        spec = resolve(spec)
        assert spec.identity is not None
        assert spec.dimensions is not None
        self.identity = EmbedderIdentity(
            parts={"kind": EXTERNAL, "identity": spec.identity}, dimensions=spec.dimensions, max_tokens=0
        )

    def unchanged(self) -> bool:
        return True

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise Invalid(REFUSAL)

    offsets = overhead = lengths = read = forward = encode = _refuse
