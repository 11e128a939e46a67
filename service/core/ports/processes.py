"""Port of the heartbeats of the API processes."""

from datetime import datetime
from typing import Protocol

from service.core.versions import ApiProcess


class Processes(Protocol):
    """The API processes of this installation, by their heartbeats."""

    async def record_heartbeat(self, process: ApiProcess) -> None:
        """A heartbeat. Processes not seen for long are forgotten."""
        ...

    async def seen_since(self, moment: datetime) -> tuple[ApiProcess, ...]:
        """Those seen since then."""
        ...

    async def remove(self, process_id: str) -> None:
        """It stops."""
        ...
