"""The service as the commands see it: its HTTP API, with its errors as exceptions that a shell user understands."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import httpx

from service.core.errors import Misconfigured
from service.evaluation.beir import BeirJudgments

READ_SECONDS = 600.0
STREAM_DOCUMENTS = 500
"""Documents of one NDJSON request: small enough that a broken connection costs little, large enough to be quick."""

STREAM_BYTES = 8 * 2**20
"""And no more than this and one line, so that long documents are not gathered by the hundred."""


PAGE_DOCUMENTS = 100
"""Documents of one page of a listing."""

ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 compared with, not bound to


class Refused(Exception):
    """The service answered with an error; `str()` says which, as its problem document puts it.

    `kind` is the end of the problem's type, such as `conflict`; `errors` are pairs of a field and what is wrong there;
    `checks` is the evidence that a refused promotion comes with. All are empty where the answer is no problem document.
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


def address_of(host: str, port: int) -> str:
    """Where a client on the same machine finds a service that was told to listen there."""
    host = "127.0.0.1" if host in ANY_ADDRESS else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Client:
    """One connection pool to one service. Use as a context manager."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {b"Authorization": f"Bearer {key}".encode()} if key else None
        timeout = httpx.Timeout(READ_SECONDS, connect=5.0)
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)
        except httpx.InvalidURL as error:
            raise Misconfigured(f"{url} is no address of a service: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of a 2xx answer. Refused where the service says no, Unreachable where nobody answers."""
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Unreachable(f"no service answers at {self.url} ({error})") from error
        if not response.is_success:
            raise Refused(response)
        return response.json() if response.content else None

    def alive(self) -> bool:
        try:
            return self._http.get("/livez", timeout=2.0).is_success
        except httpx.TransportError:
            return False

    def ready(self) -> bool:
        try:
            return self._http.get("/readyz", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    # ------------------------------------------------------------ collections and documents

    def ensure_collection(self, name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        """The collection, created with `settings` where there is none yet; an existing one stays as it is."""
        try:
            existing: dict[str, Any] = self.call("GET", f"/v1/collections/{name}")
        except Refused as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise
            created: dict[str, Any] = self.call("PUT", f"/v1/collections/{name}", json=settings or {})
            return created
        return existing

    def ingest(self, name: str, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Send NDJSON lines in requests of a few hundred; answers the outcome of each request as it is committed."""
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

    def documents(self, name: str) -> Iterator[dict[str, Any]]:
        """All of them, page by page, ordered by id."""
        cursor: str | None = None
        while True:
            params = {"limit": PAGE_DOCUMENTS} | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", f"/v1/collections/{name}/documents", params=params)
            yield from page["documents"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def search(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("POST", f"/v1/collections/{name}/search", json=request)
        return answer

    def searches(self, name: str, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several at once, in their order: texts that they have in common are encoded once."""
        body = {"searches": list(requests)}
        found: list[dict[str, Any]] = self.call("POST", f"/v1/collections/{name}/search/batch", json=body)["results"]
        return found

    # ------------------------------------------------------------ embedder versions

    def versions(self, name: str) -> dict[str, Any]:
        """`active_version` and `versions`, each as `version` answers it."""
        found: dict[str, Any] = self.call("GET", f"/v1/collections/{name}/versions")
        return found

    def version(self, name: str, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/v1/collections/{name}/versions/{number}")
        return found

    def register(self, name: str, body: dict[str, Any]) -> tuple[int, bool]:
        """The number of the new version, and True; or of the one that is the same and there already, and False."""
        try:
            return int(self.call("POST", f"/v1/collections/{name}/versions", json=body)["number"]), True
        except Refused as refused:
            there = dict(refused.errors).get("version", "")
            if refused.kind != "version-exists" or not there.isdecimal():
                raise
            return int(there), False

    def change(self, name: str, number: int, verb: str, body: dict[str, Any] | None = None) -> Any:
        """`promote`, `pause` or `resume` a version."""
        request = {} if body is None else {"json": body}
        return self.call("POST", f"/v1/collections/{name}/versions/{number}/{verb}", **request)

    def roll_back(self, name: str, note: str = "") -> dict[str, Any]:
        """The version that is active now. Refused where another operator was quicker."""
        leaving = self.call("GET", f"/v1/collections/{name}")["active_version"]
        request = {"from": leaving, "note": note}
        active: dict[str, Any] = self.call("POST", f"/v1/collections/{name}/versions/rollback", json=request)
        return active

    def retire(self, name: str, number: int, note: str = "") -> Any:
        params = {"note": note} if note else {}
        return self.call("DELETE", f"/v1/collections/{name}/versions/{number}", params=params)

    def upload_judgments(self, name: str, judgments: BeirJudgments) -> dict[str, Any]:
        """Make them the collection's own test set, in place of the one before; counts of what was taken."""
        taken: dict[str, Any] = self.call("POST", f"/v1/collections/{name}/judgments", json=judgments.wire())
        return taken


def ndjson(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
