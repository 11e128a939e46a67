"""Stores beyond this machine (s3, gs, ...), as far as fsspec knows them and their package is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.core.errors import Misconfigured


@contextmanager
def reaching(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it. Misconfigured, with the address, whatever fails there: the
    libraries of stores raise errors of many kinds."""
    try:
        from fsspec.core import url_to_fs

        yield url_to_fs(url)
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise Misconfigured(f"{url} cannot be reached: {reason}") from error
