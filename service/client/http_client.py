"""The client of the commands: `azimuth_client`, patient, and with what operators do to versions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from azimuth_client import ApiError, Retries, Unreachable
from azimuth_client import Client as AzimuthClient
from service.core.errors import Misconfigured, raised_as
from service.evaluation.beir import BeirJudgments

RETRIES = Retries(busy=20, statuses=frozenset({429}), broken=0)
"""That no service answers, or none that is ready, is told at once: `follow_version` alone waits for it."""


class Client(AzimuthClient):
    """One connection pool to one service. Use as a context manager."""

    def __init__(self, url: str, key: str | None = None, certificate: Path | None = None) -> None:
        """`certificate`: a PEM file that is trusted besides the usual authorities, and those of `SSL_CERT_FILE`."""
        with raised_as(Misconfigured, f"{url} is no address of a service", httpx.InvalidURL):
            super().__init__(url, key, timeout=600.0, retries=RETRIES, certificate=certificate, trust_env=False)

    def export(self, name: str, params: dict[str, Any]) -> Iterator[bytes]:
        """The lines of all documents, in pieces as they arrive. Unreachable where they end too early."""
        try:
            with self._http.stream("GET", f"/v1/collections/{name}/export", params=params) as response:
                if not response.is_success:
                    response.read()
                    raise ApiError(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise Unreachable(f"the export from {self.url} broke off ({error})") from error

    def counts(self, name: str) -> dict[str, int]:
        return self.collection(name)["counts"]

    def versions(self, name: str) -> dict[str, Any]:
        """`active_version` and `versions`, each in the shape of `version`."""
        return self.call("GET", f"/v1/collections/{name}/versions")

    def version(self, name: str, number: int) -> dict[str, Any]:
        return self.call("GET", f"/v1/collections/{name}/versions/{number}")

    def register(self, name: str, body: dict[str, Any]) -> tuple[int, bool]:
        """The number of the version and True if it is new, False if an equal version existed already."""
        try:
            return int(self.call("POST", f"/v1/collections/{name}/versions", json=body)["number"]), True
        except ApiError as error:
            there = dict(error.errors).get("version", "")
            if error.kind != "version-exists" or not there.isdecimal():
                raise
            return int(there), False

    def change(self, name: str, number: int, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`promote`, `pause` or `resume` a version."""
        request: dict[str, Any] = {} if body is None else {"json": body}
        return self.call("POST", f"/v1/collections/{name}/versions/{number}/{verb}", **request)

    def roll_back(self, name: str, note: str = "") -> dict[str, Any]:
        """Roll back; returns the version that is active now. ApiError if another operator was faster."""
        request = {"from": self.collection(name)["active_version"], "note": note}
        return self.call("POST", f"/v1/collections/{name}/versions/rollback", json=request)

    def retire(self, name: str, number: int, note: str = "") -> dict[str, Any]:
        params = {"confirm": number, "note": note}
        return self.call("DELETE", f"/v1/collections/{name}/versions/{number}", params=params)

    def upload_judgments(self, name: str, judgments: BeirJudgments) -> dict[str, Any]:
        """Replace the collection's test set; returns the counts of what was stored."""
        return self.call("POST", f"/v1/collections/{name}/judgments", json=judgments.wire())
