"""Examples in place of a query: what hits shall be like, and unlike."""

from dataclasses import dataclass

from service.core.ids import DocumentId


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What hits shall be like, or unlike: either a document, a text or a vector."""

    id: DocumentId | None = None
    text: str | None = None
    vector: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Like:
    positive: tuple[Example, ...]
    negative: tuple[Example, ...] = ()

    @property
    def by_field(self) -> tuple[tuple[str, Example], ...]:
        """All examples, positive before negative, each with its field in the request."""
        sides = (("positive", self.positive), ("negative", self.negative))
        return tuple((f"like.{side}.{at}", one) for side, examples in sides for at, one in enumerate(examples))

    @property
    def ids(self) -> frozenset[DocumentId]:
        return frozenset(one.id for _, one in self.by_field if one.id is not None)
