"""For whom the work at hand is done, so that clients, and the requests of each, can take turns at what they share."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """One request. `client`: as the audit trail names it; empty for the service's own work in the background."""

    client: str


SERVICE = Caller("")
CALLER: ContextVar[Caller] = ContextVar("caller", default=SERVICE)
