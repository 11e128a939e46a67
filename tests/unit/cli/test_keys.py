"""`azimuth keys` as far as it needs no database; the rest is in `tests/integration/test_keys.py`."""

import pytest

from tests.commands import azimuth


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "x", "--role", "root"), "root"),
        (("create", "x", "--rate", "fast"), "50/s"),
        (("create", "x", "--rate", "0/s"), "50/s"),
        (("create", "x", "--collections", "No Such"), "collections"),
        (("create", "x", "--collections", ""), "collections"),
        (("create", "x", "--filter", "{}"), "empty filter"),
        (("create", "x", "--filter", '{"$nor": []}'), "$nor"),
        (("create", "x", "--filter", "[]"), "expected an object"),
        (("create", "x", "--filter", "tenant=a"), "not JSON"),
        (("create", "x", "--expires", "soon"), "30s"),
        (("create", "../x"), "letters"),
        (("rotate", "x", "--overlap", "-1h"), "30s"),
        (("revoke",), "Missing argument"),
    ],
)
def test_a_wrong_argument_is_told_at_once(arguments: tuple[str, ...], reason: str) -> None:
    done = azimuth("keys", *arguments)
    assert done.exit_code == 2
    assert reason in done.output
