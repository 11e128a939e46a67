"""Chunk documents with the embedder's own tokenizer: many documents in one call to it."""

from collections.abc import Sequence
from dataclasses import replace

from service.core.collections import ChunkingSettings
from service.core.documents import Chunk, StoredDocument
from service.core.errors import Unembeddable
from service.core.jobs import ClaimedJob
from service.core.ports.embedder import Encoder
from service.embedder.worker.text_splitter import split_document

_PRECISE_TRIES = 4
"""Tries that reduce the room by the excess; later tries halve it."""


def chunk_documents(
    encoder: Encoder, documents: Sequence[StoredDocument], chunking: ChunkingSettings
) -> list[tuple[Chunk, ...]]:
    """The chunks of each document, with lengths as the embedder counts them. Blocks: call it in a thread.

    A passage may tokenize into more tokens on its own than within its text (subword merges across the cut). Such a
    document is split again with less room until every chunk fits; only what cannot be split further stays too long and
    is marked as truncated.
    """
    most = min(chunking.max_tokens or encoder.identity.max_tokens, encoder.identity.max_tokens)
    overhead = encoder.overhead("document")
    offsets = encoder.offsets([part for document in documents for part in (document.title, document.text)])

    def chunks_of(index: int, room: int) -> tuple[Chunk, ...]:
        return split_document(
            documents[index].title,
            documents[index].text,
            *offsets[2 * index : 2 * index + 2],
            max_tokens=room,
            context_tokens=most,
            overlap_tokens=chunking.overlap_tokens,
            overhead=overhead,
        )

    result: list[tuple[Chunk, ...]] = [()] * len(documents)
    rooms = dict.fromkeys(range(len(documents)), most)
    tries = 0
    while rooms:
        tries += 1
        tried = {index: chunks_of(index, room) for index, room in rooms.items()}
        lengths = iter(encoder.lengths([part.text for chunks in tried.values() for part in chunks], "document"))
        for index, chunks in tried.items():
            counted = tuple(replace(part, tokens=next(lengths)) for part in chunks)
            excess = max(part.tokens for part in counted) - most
            room = rooms.pop(index)
            if excess > 0 and room > overhead + 1:
                own = room - overhead
                rooms[index] = overhead + max(1, own - excess if tries <= _PRECISE_TRIES else own // 2)
            else:
                result[index] = tuple(replace(part, truncated=part.truncated or part.tokens > most) for part in counted)
    return result


def with_image(chunks: tuple[Chunk, ...], claimed: ClaimedJob, encoder: Encoder) -> tuple[Chunk, ...]:
    """The chunks of a document and, if it has an image, that as another one, which shows the beginning of the text.

    Unembeddable where the embedder takes none.
    """
    if claimed.image is None:
        return chunks
    if not encoder.identity.takes_images:
        raise Unembeddable("The document has an image, and this embedder takes none.")
    if not claimed.document.text and not claimed.document.title:
        chunks = ()
    (read,) = encoder.read([claimed.image], "document")
    end = chunks[0].end if chunks else 0
    return (*chunks, Chunk(number=len(chunks), start=0, end=end, text="", tokens=len(read), image=claimed.image))
