"""What a document may contain, and which version stores the vector that it brings."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.documents import Document
from service.core.errors import Conflict, FieldError, Invalid, VersionNotFound
from service.core.ids import VersionNumber, changes_in_urls
from service.core.metadata import FieldTypes, name_error, nfc, type_errors
from service.core.vector_math import unit
from service.core.versions import EmbedderVersion

_SURROGATE = re.compile("[\ud800-\udfff]")

VectorTarget = EmbedderVersion | str
"""The version that stores the vectors of documents; a str is the reason why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLimits:
    """Limits of one document, and of one request. Lengths in code points, `metadata_bytes` as JSON in UTF-8."""

    id_length: int = 512
    title_length: int = 10_000
    text_length: int = 1_000_000
    metadata_bytes: int = 65_536
    metadata_depth: int = 8
    batch: int = 1_000


def document_errors(
    document: Document, target: VectorTarget | None, limits: DocumentLimits, types: FieldTypes, prefix: str = ""
) -> list[FieldError]:
    """Everything that is wrong with the document, whose metadata has these types; `prefix` begins each field's name."""
    # First of all: what is too long takes long to walk through.
    size = len(json.dumps(document.metadata, ensure_ascii=False).encode(errors="surrogatepass"))
    if size > limits.metadata_bytes:
        return [FieldError(f"{prefix}metadata", f"larger than {limits.metadata_bytes} bytes")]
    errors = [
        *_text_errors(document.id, f"{prefix}id", limits.id_length),
        *_text_errors(document.title, f"{prefix}title", limits.title_length),
        *_text_errors(document.text, f"{prefix}text", limits.text_length),
        *_metadata_errors(document.metadata, f"{prefix}metadata", limits.metadata_depth),
        *_vector_errors(document, target, f"{prefix}vector"),
    ]
    if not document.id.strip():
        errors.append(FieldError(f"{prefix}id", "must not be empty"))
    elif changes_in_urls(document.id):
        reason = "its URL would be another one: no '.' or '..' between slashes, no slashes alone, no control characters"
        errors.append(FieldError(f"{prefix}id", reason))
    if not document.text.strip() and not document.title.strip() and document.image is None:
        errors.append(FieldError(f"{prefix}text", "must not be empty where there is no title and no image either"))
    if not errors:
        errors += [FieldError(f"{prefix}metadata.{at}", error) for at, error in type_errors(document.metadata, types)]
    return errors


def vector_target(versions: Sequence[EmbedderVersion], number: VersionNumber | None) -> VectorTarget:
    """Which of a collection's versions stores the vectors of documents: version `number`, or the only external one.

    VersionNotFound, Conflict or Invalid where version `number` cannot store any.
    """
    if number is None:
        external = [version for version in versions if version.written and version.spec.external]
        if len(external) == 1:
            return external[0]
        if not external:
            return "no embedder version of this collection takes vectors (its embedder would be external)"
        numbers = ", ".join(str(version.number) for version in external)
        return f"several embedder versions take vectors ({numbers}): name one (embedder_version)"
    named = next((version for version in versions if version.number == number), None)
    if named is None:
        raise VersionNotFound(f"there is no embedder version {number}")
    if not named.spec.external:
        raise Invalid.at("embedder_version", f"version {number} makes its vectors itself, by {named.spec.model}")
    if not named.written:
        raise Conflict(f"version {number} is {named.state}: it takes no vectors")
    return named


def _vector_errors(document: Document, target: VectorTarget | None, field: str) -> Iterator[FieldError]:
    if document.vector is None:
        return
    if not isinstance(target, EmbedderVersion):
        yield FieldError(field, target or "no embedder version is named that takes vectors")
    elif len(document.vector) != target.dimensions:
        expected = f"version {target.number} has {target.dimensions} dimensions"
        yield FieldError(field, f"has {len(document.vector)} numbers; {expected}")
    # The sum tells of nearly all vectors that they are finite, and in a tenth of the time.
    elif not (math.isfinite(sum(document.vector)) and any(document.vector)) and unit(document.vector) is None:
        yield FieldError(field, "has no direction: its numbers are all zero, or not finite")


def _text_errors(text: str, field: str, max_length: int) -> Iterator[FieldError]:
    """PostgreSQL cannot store NUL, and UTF-8 cannot encode half of a surrogate pair."""
    if len(text) > max_length:
        yield FieldError(field, f"longer than {max_length} characters")
    if "\0" in text:
        yield FieldError(field, "contains a NUL character")
    if _SURROGATE.search(text):
        yield FieldError(field, "contains half of a surrogate pair, which is not Unicode text")


def _metadata_errors(value: Any, field: str, depth: int, name: str | None = None) -> Iterator[FieldError]:
    """Metadata must be JSON that PostgreSQL can store and filters can compare; `name`: by which they find the value."""
    match value:
        case str():
            yield from _text_errors(value, field, 1_000_000)
        case bool() | None:
            pass
        case int() if not -(2**63) <= value < 2**63:
            yield FieldError(field, "an integer must fit 64 bits")
        case float() if not math.isfinite(value):
            yield FieldError(field, "NaN and infinity are not JSON")
        case Mapping() | list() | tuple() if depth == 0:
            yield FieldError(field, "nested too deeply")
        case Mapping():
            if len(set(map(nfc, value))) < len(value):
                yield FieldError(field, "two keys are the same text, composed differently (they are compared in NFC)")
            for key, inner in value.items():
                yield from _text_errors(key, field, 512)
                full_name = key if name is None else f"{name}.{key}"
                if error := name_error(full_name):
                    yield FieldError(field, f'no filter could name the key "{full_name[:100]}" ({error}): rename it')
                yield from _metadata_errors(inner, f"{field}.{key}", depth - 1, full_name)
        case list() | tuple():
            for at, inner in enumerate(value):
                yield from _metadata_errors(inner, f"{field}.{at}", depth - 1, name)
