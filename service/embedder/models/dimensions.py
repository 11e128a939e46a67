"""How many dimensions of a model an embedder keeps."""

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid


def kept_dimensions(spec: EmbedderSpec, available: int) -> int:
    """The dimensions that the specification keeps of those that the model has. Invalid if it asks for more."""
    kept = available if spec.dimensions is None else spec.dimensions
    if not 1 <= kept <= available:
        raise Invalid.at("embedder.dimensions", f"this embedder has {available}")
    return kept
