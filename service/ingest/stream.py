"""Documents of a stream, batched as they arrive, in constant memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from service.core.concurrency import off_loop
from service.core.documents import Document
from service.core.errors import FieldError, in_words
from service.core.ids import DocumentId

BATCH_DOCUMENTS = 500
"""Most documents that are committed together."""
BATCH_CHARACTERS = 4_000_000
"""Characters after which a batch is committed; a number of a vector counts as 8."""
MAX_ERRORS = 1_000
"""Errors that are listed; further ones are only counted."""

Lines = AsyncIterator[Sequence[tuple[int, Document | str]]]
"""Groups of line numbers, from 1, each with its document or with the reason why it holds none."""


@dataclass(slots=True)
class StreamOutcome:
    """Documents by status, and the lines that were refused."""

    counts: dict[str, int] = field(default_factory=lambda: {"created": 0, "updated": 0, "unchanged": 0})
    errors: list[tuple[int, str]] = field(default_factory=list)
    failed: int = 0

    def refuse(self, line: int, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append((line, reason))


async def batches(
    lines: Lines, validate: Callable[[Document], list[FieldError]], outcome: StreamOutcome
) -> AsyncIterator[dict[int, Document]]:
    """The valid documents by their lines, to be committed batch by batch. None has an id twice: the later one wins."""
    batch: dict[int, Document] = {}
    ids: set[DocumentId] = set()
    characters = 0

    def check(group: Sequence[tuple[int, Document | str]]) -> list[tuple[int, Document | str]]:
        return [
            (line, in_words(errors) if isinstance(one, Document) and (errors := validate(one)) else one)
            for line, one in group
        ]

    async for group in lines:
        for line, document in await off_loop(0, check, group):
            if isinstance(document, str):
                outcome.refuse(line, document)
                continue
            if document.id in ids or len(batch) >= BATCH_DOCUMENTS or characters > BATCH_CHARACTERS:
                yield batch
                batch, characters = {}, 0
                ids.clear()
            batch[line] = document
            ids.add(document.id)
            characters += len(document.text) + len(document.title) + 8 * len(document.vector or ())
    if batch:
        yield batch
