"""What can go wrong.

AzimuthError
|- ApiError      the service refused the request, or failed
`- Unreachable   no service answered at the address
"""

from typing import Any

import httpx


class AzimuthError(Exception):
    """Any error of this client."""


class Unreachable(AzimuthError):
    """No service answered at the address."""


class ApiError(AzimuthError):
    """The service answered with an error; `str()` is the text of its problem document (RFC 9457).

    `kind`: the end of the problem's type, such as `conflict`; `errors`: pairs of field and message; `checks`: the
    evidence of a refused promotion; `problem`: the whole document. All are empty if the answer is none.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.kind = ""
        self.request_id = response.headers.get("X-Request-ID")
        self.errors: tuple[tuple[str, str], ...] = ()
        self.checks: tuple[dict[str, Any], ...] = ()
        self.problem: dict[str, Any] = {}
        try:
            problem = response.json()
            self.errors = tuple((one["field"], one["message"]) for one in problem.get("errors") or [])
            self.checks = tuple(problem.get("checks") or ())
            self.kind = str(problem.get("type") or "").rpartition(":")[2]
            self.detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
            reasons = [f"{field}: {message}" for field, message in self.errors[:5]]
            text = "; ".join([self.detail, *(reason for reason in reasons if reason not in self.detail)])
            self.problem = problem
        except (ValueError, AttributeError, KeyError):
            self.detail = text = response.text[:300] or response.reason_phrase
        super().__init__(f"{response.status_code}: {text}")
