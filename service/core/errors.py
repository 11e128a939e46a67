"""Everything that can go wrong, as one tree. The first line of a docstring is the message of the error.

    AzimuthError
    |-- Invalid                 a client sent something that cannot be accepted     (422)
    |-- TooLarge                a client sent more than a documented limit          (413)
    |-- NotFound                                                                    (404)
    |   |-- CollectionNotFound
    |   |-- DocumentNotFound
    |   `-- VersionNotFound
    |-- Conflict                the state forbids it                                (409)
    |   |-- EmbedderChange
    |   |-- Overtaken               somebody else did something similar first; look again
    |   |-- PromotionRefused    the evidence speaks against it
    |   `-- VersionExists
    |-- Overloaded              too much at once; try again later                   (429)
    |-- Unavailable             something needed is not there now                   (503)
    |   |-- DatabaseUnavailable
    |   |-- LexiconUnavailable
    |   |-- ModelUnavailable
    |   |-- SpaceRefused
    |   `-- TimedOut
    |-- Unembeddable            one document for which the model gives no usable vector (never leaves the worker)
    `-- Misconfigured           the operator must change something before it can start (exit code 2)
        |-- DatabaseTooOld
        |-- MissingRights
        `-- MigrationMismatch

The HTTP status is decided at the edge (`api/failures.py`), not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One reason, and the place in the request that it speaks of (dots for nesting, empty for the whole)."""

    field: str
    message: str


class AzimuthError(Exception):
    """Something went wrong."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (self.__doc__ or "").strip().splitlines()[0]
        super().__init__(self.detail)


class Invalid(AzimuthError):
    """The request cannot be accepted as it stands."""

    def __init__(self, detail: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)

    @classmethod
    def at(cls, field: str, message: str) -> "Invalid":
        """The common case: one field, one reason."""
        return cls(f"{field}: {message}" if field else message, [FieldError(field, message)])


class TooLarge(AzimuthError):
    """The request is larger than a documented limit."""


class NotFound(AzimuthError):
    """There is no such thing."""


class CollectionNotFound(NotFound):
    """There is no such collection."""


class DocumentNotFound(NotFound):
    """There is no such document."""


class VersionNotFound(NotFound):
    """There is no such embedder version."""


class Conflict(AzimuthError):
    """The present state forbids it."""


class EmbedderChange(Conflict):
    """The embedder of a collection is set at its creation; another embedder is a new version: POST .../versions."""


class Overtaken(Conflict):
    """Somebody else registered a version at the same moment; look again."""


class PromotionRefused(Conflict):
    """The evidence speaks against this version; `force` promotes it all the same, and is recorded."""

    def __init__(self, detail: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        """`errors`: every check that failed, by its name."""
        super().__init__(detail)
        self.errors = tuple(errors)


class VersionExists(Conflict):
    """A version with the same embedder, chunking and index is there already."""

    def __init__(self, detail: str | None = None, *, number: int) -> None:
        """`number`: of the version that is there, so that a program can go on with it."""
        super().__init__(detail)
        self.errors = (FieldError("version", str(number)),)


class Overloaded(AzimuthError):
    """Too many requests are waiting; try again later."""

    def __init__(self, detail: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(AzimuthError):
    """Something that is needed is not there now; try again later."""

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
    """The loaded model does not give the vectors of this embedder version."""


class TimedOut(Unavailable):
    """It did not finish in time."""


class Unembeddable(AzimuthError):
    """The model gives no usable vector for this document."""


class Misconfigured(AzimuthError):
    """A setting or the surroundings must change before the service can start."""


class DatabaseTooOld(Misconfigured):
    """The database server or its pgvector extension is older than what this service supports."""


class MissingRights(Misconfigured):
    """The database role lacks a right that the service needs."""


class MigrationMismatch(Misconfigured):
    """A migration that was applied differs from the file of the same number."""
