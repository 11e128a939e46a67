"""Client of the HTTP API for the commands; its exceptions read as messages for a shell user."""

import json
import random
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from service.core.errors import Misconfigured
from service.evaluation.beir import BeirJudgments

STREAM_DOCUMENTS = 500
"""Documents per NDJSON request: small enough that a broken connection costs little, large enough to be fast."""
STREAM_BYTES = 8 * 2**20
"""A request also ends when its lines reach this size."""
ATTEMPTS = 20
"""Requests that one call makes at most while the service has no room."""


class Refused(Exception):
    """The service answered with an error; `str()` is the text of its problem document.

    `kind`: the end of the problem's type, such as `conflict`; `errors`: pairs of field and message; `checks`: the
    evidence of a refused promotion. All are empty if the answer is not a problem document.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.kind = ""
        self.errors: tuple[tuple[str, str], ...] = ()
        self.checks: tuple[dict[str, Any], ...] = ()
        try:
            problem = response.json()
            self.errors = tuple((one["field"], one["message"]) for one in problem.get("errors") or [])
            self.checks = tuple(problem.get("checks") or ())
            self.kind = str(problem.get("type") or "").rpartition(":")[2]
            self.detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
            reasons = [f"{field}: {message}" for field, message in self.errors[:5]]
            text = "; ".join([self.detail, *(reason for reason in reasons if reason not in self.detail)])
        except (ValueError, AttributeError, KeyError):
            self.detail = text = response.text[:300] or response.reason_phrase
        super().__init__(f"{response.status_code}: {text}")


class Unreachable(Exception):
    """No service answers at the address."""


class Client:
    """One connection pool to one service. Use as a context manager."""

    def __init__(self, url: str, key: str | None = None, certificate: Path | None = None) -> None:
        """`certificate`: a PEM file that is trusted besides the usual authorities, and those of `SSL_CERT_FILE`."""
        self.url = url.rstrip("/")
        headers = {b"Authorization": f"Bearer {key}".encode()} if key else None
        timeout = httpx.Timeout(600.0, connect=5.0)
        try:
            verify = tls(httpx.URL(self.url), certificate)
            self._http = httpx.Client(
                base_url=self.url, headers=headers, timeout=timeout, verify=verify, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise Misconfigured(f"{url} is no address of a service: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """The JSON of a 2xx answer. Raises Refused on any other status, Unreachable if no service answers.

        Where the service has no room (429), the request is repeated.
        """
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                raise Unreachable(f"no service answers at {self.url} ({error})") from error
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS or attempt == ATTEMPTS - 1:
                break
            time.sleep(random.random() * float(response.headers.get("Retry-After", 1)))  # noqa: S311  no secret
        if not response.is_success:
            raise Refused(response)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    def alive(self) -> bool:
        return self._succeeds("/livez", timeout=2.0)

    def ready(self) -> bool:
        return self._succeeds("/readyz", timeout=5.0)

    def _succeeds(self, path: str, timeout: float) -> bool:
        try:
            return self._http.get(path, timeout=timeout).is_success
        except httpx.TransportError:
            return False

    def ensure_collection(self, name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        """The collection; it is created with `settings` if it does not exist, and left unchanged if it does."""
        try:
            return self.call("GET", f"/v1/collections/{name}")
        except Refused as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise
            return self.call("PUT", f"/v1/collections/{name}", json=settings or {})

    def ingest(self, name: str, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Send NDJSON lines in requests of a few hundred; yields the outcome of each request after its commit."""
        held: list[bytes] = []
        size = 0
        for line in lines:
            held.append(line if line.endswith(b"\n") else line + b"\n")
            size += len(line)
            if len(held) >= STREAM_DOCUMENTS or size >= STREAM_BYTES:
                yield self._send(name, held)
                held, size = [], 0
        if held:
            yield self._send(name, held)

    def _send(self, name: str, lines: list[bytes]) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-ndjson"}
        body = b"".join(lines)
        outcome: dict[str, Any] = self.call("POST", f"/v1/collections/{name}/documents", content=body, headers=headers)
        return {**outcome, "lines": len(lines)}

    def counts(self, name: str) -> dict[str, int]:
        counts: dict[str, int] = self.call("GET", f"/v1/collections/{name}")["counts"]
        return counts

    def documents(self, name: str, where: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All documents that pass the filter, read page by page, ordered by id."""
        params: dict[str, Any] = {"limit": 100, "filter": json.dumps(where or {})}
        while True:
            page = self.call("GET", f"/v1/collections/{name}/documents", params=params)
            yield from page["documents"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def search(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", f"/v1/collections/{name}/search", json=request)

    def searches(self, name: str, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several searches in one request; texts that they share are encoded once."""
        body = {"searches": list(requests)}
        results: list[dict[str, Any]] = self.call("POST", f"/v1/collections/{name}/search/batch", json=body)["results"]
        return results

    def versions(self, name: str) -> dict[str, Any]:
        """`active_version` and `versions`, each in the shape of `version`."""
        return self.call("GET", f"/v1/collections/{name}/versions")

    def version(self, name: str, number: int) -> dict[str, Any]:
        return self.call("GET", f"/v1/collections/{name}/versions/{number}")

    def register(self, name: str, body: dict[str, Any]) -> tuple[int, bool]:
        """The number of the version and True if it is new, False if an equal version existed already."""
        try:
            return int(self.call("POST", f"/v1/collections/{name}/versions", json=body)["number"]), True
        except Refused as refused:
            there = dict(refused.errors).get("version", "")
            if refused.kind != "version-exists" or not there.isdecimal():
                raise
            return int(there), False

    def change(self, name: str, number: int, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`promote`, `pause` or `resume` a version."""
        request = {} if body is None else {"json": body}
        return self.call("POST", f"/v1/collections/{name}/versions/{number}/{verb}", **request)

    def roll_back(self, name: str, note: str = "") -> dict[str, Any]:
        """Roll back; returns the version that is active now. Refused if another operator was faster."""
        request = {"from": self.call("GET", f"/v1/collections/{name}")["active_version"], "note": note}
        return self.call("POST", f"/v1/collections/{name}/versions/rollback", json=request)

    def retire(self, name: str, number: int, note: str = "") -> dict[str, Any]:
        params = {"confirm": number, "note": note}
        return self.call("DELETE", f"/v1/collections/{name}/versions/{number}", params=params)

    def upload_judgments(self, name: str, judgments: BeirJudgments) -> dict[str, Any]:
        """Replace the collection's test set; returns the counts of what was stored."""
        return self.call("POST", f"/v1/collections/{name}/judgments", json=judgments.wire())


def ndjson(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def tls(url: httpx.URL, certificate: Path | None) -> ssl.SSLContext | bool:
    """How the certificate of a service is verified. On this machine it need not have the name of the address."""
    if url.scheme != "https":
        return True
    context = httpx.create_ssl_context()
    if certificate is not None:
        context.load_verify_locations(certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the service's own is enough, without its issuer's
        context.check_hostname = url.host not in {"127.0.0.1", "::1", "localhost"}
    return context
