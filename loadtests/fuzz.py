"""Requests that schemathesis makes up, with keys of each role: `python -m loadtests.fuzz --minutes 60`.

`azimuth up` with the fast hashing encoder, every route of its OpenAPI document, valid and invalid requests in turn, new
ones in each round. A table tells the answers by role. Ends with 1 where an answer was a 5xx, or none came.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from loadtests.figures import heading, table
from tests.faults.machine import COLLECTION, Machine, running

KEYS = {
    "none": None,
    "read": ["--role", "read"],
    "write": ["--role", "write"],
    "admin": ["--role", "admin"],
    "of one tenant": ["--role", "write", "--collections", "faults", "--filter", '{"tenant": "a"}'],
}
"""The arguments of `azimuth keys create`."""
EXAMPLES = 8
"""Of each operation, way and role in a round."""


@dataclass
class Outcome:
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(role, class of the status) -> how often."""
    wrong: list[str] = field(default_factory=list)

    def add(self, role: str, case: "schemathesis.Case[Any]", address: str, secret: str | None) -> None:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        try:
            answer = case.call(base_url=address, headers=headers, timeout=60)
            told = "503" if answer.status_code == 503 else f"{answer.status_code // 100}xx"
            text = answer.text[:300]
        except requests.RequestException as error:
            told, text = "none", repr(error)[:300]
        self.answers[role, told] += 1
        if told in {"5xx", "503", "none"}:
            self.wrong.append(f"{role}: {case.method} {case.formatted_path}: {told} {text}")


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def create_key(machine: Machine, arguments: list[str] | None) -> str | None:
    """The secret."""
    if arguments is None:
        return None
    command = [sys.executable, "-m", "service", "keys", "create", *arguments]
    return subprocess.run(
        command, env=machine.environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def run(folder: Path, minutes: float) -> Outcome:
    outcome = Outcome()
    with running(folder, {}, RERANKER="azimuth-minilm-l6") as machine:
        for tenant in "ab":
            documents = [
                {"id": f"{tenant}{at}", "text": "some text", "metadata": {"tenant": tenant}} for at in range(9)
            ]
            machine.send("POST", f"{COLLECTION}/documents?wait=true", json={"documents": documents})
        document = machine.http.get("/openapi.json").json()
        operations = [
            found.ok()
            for found in schemathesis.openapi.from_dict(document).get_all_operations()
            if isinstance(found, Ok)
        ]
        secrets = {role: create_key(machine, arguments) for role, arguments in KEYS.items()}
        address, end, rounds = f"http://127.0.0.1:{machine.port}", time.monotonic() + 60 * minutes, 0
        while time.monotonic() < end:
            rounds += 1
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    for role, secret in secrets.items():
                        if time.monotonic() < end:
                            ask(outcome, operation, mode, role, secret, address, rounds)
    return outcome


def ask(
    outcome: Outcome, operation: Any, mode: GenerationMode, role: str, secret: str | None, address: str, number: int
) -> None:
    """Some requests for one operation; NEGATIVE: invalid ones, where there are any."""
    if mode is GenerationMode.NEGATIVE and not (operation.path_parameters or operation.query or operation.body):
        return

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: "schemathesis.Case[Any]") -> None:
        if "{collection}/" in case.path:  # else nearly every answer would be that there is no such collection
            case.path_parameters["collection"] = COLLECTION.rpartition("/")[2]
        outcome.add(role, case, address, secret)

    with suppress(Unsatisfiable):  # nothing that is sent to this operation is invalid
        send()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="azf-", dir="/tmp") as folder:
        outcome = run(Path(folder) / "data", options.minutes)
    heading("Answers, by role")
    statuses = sorted({status for _, status in outcome.answers})
    table(["role", *statuses], [[role, *(outcome.answers[role, status] for status in statuses)] for role in KEYS])
    for wrong in outcome.wrong[:20]:
        print(f"  {wrong}")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
