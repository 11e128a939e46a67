"""The errors of the driver become those of `service.core.errors`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import (
    DiskFull,
    ForeignKeyViolation,
    IdleInTransactionSessionTimeout,
    InterfaceError,
    InternalError_,
    InvalidColumnReference,
    LockNotAvailable,
    OperationalError,
    QueryCanceled,
    ReadOnlySqlTransaction,
    UndefinedTable,
)
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from service.core.errors import CollectionNotFound, DatabaseUnavailable, TimedOut, WritesRefused

_LASTING_TABLES = re.compile(r'"(audit|changes|collections|documents|embedder_versions|installation|jobs|processes)"')


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the errors of the driver as errors of the service; the cause is kept."""
    try:
        yield
    except ForeignKeyViolation as error:  # every foreign key of the schema is one to `collections`
        raise CollectionNotFound from error
    except (QueryCanceled, LockNotAvailable) as error:
        raise TimedOut("The database did not finish in time.") from error
    except ReadOnlySqlTransaction as error:
        raise WritesRefused from error
    except DiskFull as error:
        raise WritesRefused(f"The disk of the database is full: {_first_line(error)}") from error
    except PoolTimeout as error:
        raise DatabaseUnavailable("No database connection became free in time.") from error
    except (UndefinedTable, InvalidColumnReference, InternalError_) as error:
        if isinstance(error, UndefinedTable) and not _LASTING_TABLES.search(str(error)):
            raise  # of a version that was retired meanwhile, or a mistake of ours
        raise DatabaseUnavailable("The database lacks tables or indexes; a dump may just be restored.") from error
    except (OperationalError, InterfaceError, IdleInTransactionSessionTimeout, PoolClosed, TooManyRequests) as error:
        raise DatabaseUnavailable(f"The database does not answer: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
