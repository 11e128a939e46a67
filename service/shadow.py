"""Live searches answered again by a version that is to be promoted, off the hot path."""

from service.domain import CollectionName
from service.query import Request


class Shadow:
    def offer(self, name: CollectionName, request: Request) -> None: ...
