"""Client of Azimuth: `Client` blocks, `AsyncClient` is awaited; both have the methods of `operations.Operations`.

Requests and answers are dictionaries; `shapes` has their types.
"""

from azimuth_client.client import AsyncClient, Client
from azimuth_client.errors import ApiError, AzimuthError, Unreachable
from azimuth_client.operations import Retries

__all__ = ["ApiError", "AsyncClient", "AzimuthError", "Client", "Retries", "Unreachable"]
