"""Everything that can go wrong, as one tree. The first line of a docstring is the message of the error.

    AzimuthError
    |-- Invalid                     the request contains something that cannot be accepted  (422)
    |   `-- UnusableImages
    |-- TooLarge                    the request exceeds a documented limit                  (413)
    |-- Forbidden                   the key of the request does not allow it                (403)
    |   `-- ForeignDocuments
    |-- NotFound                                                                            (404)
    |   |-- CollectionNotFound
    |   |-- DocumentNotFound
    |   `-- VersionNotFound
    |-- Conflict                    the current state does not allow it                     (409)
    |   |-- DocumentsExist
    |   |-- EmbedderChange
    |   |-- Overtaken               another version was registered meanwhile; handled by a retry
    |   |-- PromotionRefused
    |   `-- VersionExists
    |-- Overloaded                  too many requests at once                               (429)
    |   `-- RateLimited
    |-- Unavailable                 something that is needed is not available now           (503)
    |   |-- DatabaseUnavailable
    |   |-- LexiconUnavailable
    |   |-- ModelUnavailable
    |   |-- SpaceRefused
    |   |-- TimedOut
    |   `-- WritesRefused
    |-- Unembeddable                one document without a usable vector; never leaves the worker
    `-- Misconfigured               the operator must change something first                (exit code 2)
        |-- DatabaseTooOld
        |-- MissingRights
        `-- MigrationMismatch

The HTTP status is decided in `api/problems.py`, which also derives the `type` of a problem from the class name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.core.ids import DocumentId


@dataclass(frozen=True, slots=True)
class FieldError:
    """One reason, and the place in the request that it is about (dots for nesting, empty for the whole)."""

    field: str
    message: str


MAX_PLACES = 20
"""Most places that one error names; it counts the others."""


def in_words(errors: Sequence[FieldError], count: int | None = None) -> str:
    """The reasons in one line. `count`: of all errors, where `errors` are only the first of them."""
    reasons = [f"{error.field}: {error.message}" if error.field else error.message for error in errors[:MAX_PLACES]]
    more = (len(errors) if count is None else count) - len(reasons)
    return "; ".join([*reasons, f"and {more} more"] if more > 0 else reasons)


@contextmanager
def raised_as(kind: Callable[[str], Exception], message: str, *errors: type[Exception]) -> Iterator[None]:
    """What the block raises of these `errors` becomes one of this kind: the message, and the reason after it."""
    try:
        yield
    except errors as error:
        raise kind(f"{message}: {error}") from error


class AzimuthError(Exception):
    """Something went wrong."""

    def __init__(self, detail: str | None = None, errors: Sequence[FieldError] = (), count: int | None = None) -> None:
        """`errors`: everything that is wrong with the request, or every failed check by its name.

        `count`: of all errors, where `errors` are only the first of them.
        """
        self.detail = detail or (self.__doc__ or "").strip().splitlines()[0]
        self.errors = tuple(errors)
        self.count = len(self.errors) if count is None else count
        super().__init__(self.detail)


class Invalid(AzimuthError):
    """The request cannot be accepted as it stands."""

    @classmethod
    def at(cls, field: str, message: str) -> "Invalid":
        """One field, one reason."""
        return cls(f"{field}: {message}" if field else message, [FieldError(field, message)])


class TooLarge(AzimuthError):
    """The request is larger than a documented limit."""


class Forbidden(AzimuthError):
    """The API key of this request does not allow it."""


class ForeignDocuments(Forbidden):
    """The filter of this key does not admit all of the documents."""

    def __init__(self, reasons: Mapping[DocumentId, str]) -> None:
        """`reasons`: by the ids of the documents that may not be written."""
        self.reasons = reasons
        super().__init__(*_cannot_be_written(reasons))


class NotFound(AzimuthError):
    """The resource does not exist."""


class CollectionNotFound(NotFound):
    """There is no such collection."""


class DocumentNotFound(NotFound):
    """There is no such document."""


class VersionNotFound(NotFound):
    """There is no such embedder version."""


class Conflict(AzimuthError):
    """Conflict with the current state."""


class DocumentsExist(Conflict):
    """Documents with these ids are there already."""

    def __init__(self, reasons: Mapping[DocumentId, str]) -> None:
        """`reasons`: by the ids of the documents that are there."""
        self.reasons = reasons
        super().__init__(*_cannot_be_written(reasons))


def _cannot_be_written(reasons: Mapping[DocumentId, str]) -> tuple[str, list[FieldError]]:
    errors = [FieldError("documents", f"{id_}: {reason}") for id_, reason in reasons.items()]
    return f"{len(errors)} of the documents cannot be written, {errors[0].message}", errors


class UnusableImages(Invalid):
    """Images of documents cannot be read, or an embedder of the collection takes none."""

    def __init__(self, reasons: Mapping[DocumentId, str]) -> None:
        self.reasons = reasons
        super().__init__(*_cannot_be_written(reasons))


class EmbedderChange(Conflict):
    """The embedder of a collection cannot be changed in place; register a new version: POST .../versions."""


class Overtaken(Conflict):
    """Another version was registered at the same time; retry."""


class PromotionRefused(Conflict):
    """The evidence is against this version; `force` promotes it nevertheless, and is recorded."""


class VersionExists(Conflict):
    """A version with the same embedder, chunking and index exists already."""

    def __init__(self, detail: str | None = None, *, number: int) -> None:
        """`number`: of the existing version, so that a program can continue with it."""
        super().__init__(detail, [FieldError("version", str(number))])


class Overloaded(AzimuthError):
    """Too many requests are waiting; retry later."""

    def __init__(self, detail: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(Overloaded):
    """The rate of requests of this API key is used up; retry later."""


class Unavailable(AzimuthError):
    """Something that is needed is not available now; retry later."""

    def __init__(self, detail: str | None = None, retry_after: float = 2.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""


class LexiconUnavailable(Unavailable):
    """The lexical index of this collection is not ready."""


class ModelUnavailable(Unavailable):
    """The model cannot be loaded or does not answer."""


class SpaceRefused(Unavailable):
    """The loaded model does not reproduce the vectors of this embedder version."""


class TimedOut(Unavailable):
    """The operation did not finish in time."""


class WritesRefused(Unavailable):
    """The database accepts no writes now, because its disk is nearly full or it is a standby; searches go on."""

    def __init__(self, detail: str | None = None, retry_after: float = 30.0) -> None:
        super().__init__(detail, retry_after)


class Unembeddable(AzimuthError):
    """The model gives no usable vector for this document."""


class Misconfigured(AzimuthError):
    """A setting or the environment must be changed before the service can start."""


class DatabaseTooOld(Misconfigured):
    """The database server or its pgvector extension is older than this service supports."""


class MissingRights(Misconfigured):
    """The database role lacks a right that the service needs."""


class MigrationMismatch(Misconfigured):
    """An applied migration differs from the file of the same number."""
