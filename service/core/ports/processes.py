from datetime import datetime
from typing import Protocol

from service.core.versions import ApiProcess


class Processes(Protocol):
    """The running API processes of this installation."""

    async def record_heartbeat(self, process: ApiProcess) -> None:
        """Store a heartbeat, and delete processes that have been silent for long."""

    async def seen_since(self, moment: datetime) -> tuple[ApiProcess, ...]:
        """The processes with a heartbeat since then."""

    async def remove(self, process_id: str) -> None:
        """Delete the heartbeat of a process that stops."""
