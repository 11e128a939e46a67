"""Keys over HTTP: made, shown once, rotated and revoked, and nobody locked out without being told."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.edge import Edge, assert_problem, edge

KEYS = "/v1/keys"


@pytest.fixture(params=["a key of the settings", "a stored key"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Edge]:
    """With the administrator `root`."""
    configured = request.param == "a key of the settings"
    async with edge(api_keys=["root"] if configured else []) as running:
        secret = "root" if configured else (await _create(running, name="root", role="admin"))["secret"]
        running.client.headers["api-key"] = secret
        yield running


async def _create(api: Edge, **body: Any) -> Any:
    answer = await api.client.post(KEYS, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _status(api: Edge, secret: str, path: str = "/v1/collections") -> int:
    return (await api.client.get(path, headers={"api-key": secret})).status_code


async def test_a_key_is_made_used_rotated_and_revoked(api: Edge) -> None:
    bound = {"role": "write", "collections": ["logs-*"], "filter": {"tenant": "a"}, "rate": "50/s", "expires": "90d"}
    made = await _create(api, name="ci", **bound)
    assert {name: made[name] for name in bound if name != "expires"} == {
        name: value for name, value in bound.items() if name != "expires"
    }
    assert (made["id"], made["active"], made["notice"], made["secret"][:4]) == ("ci", True, None, "azk_")
    assert await _status(api, made["secret"]) == 200
    assert_problem(await api.client.post(KEYS, json={"name": "ci"}), 409)

    rotated = await api.post(f"{KEYS}/ci/rotate", {"overlap": "0"})
    assert {name: rotated[name] for name in ("role", "filter", "rate")} == {
        name: made[name] for name in ("role", "filter", "rate")
    }
    assert [await _status(api, one["secret"]) for one in (made, rotated)] == [401, 200]
    again = await api.post(f"{KEYS}/ci/rotate")
    assert [await _status(api, one["secret"]) for one in (rotated, again)] == [200, 200]

    listed = [one for one in (await api.get(KEYS))["keys"] if one["id"] == "ci"]
    assert [one["active"] for one in listed] == [True, True, False]
    assert all("secret" not in one and "digest" not in one for one in listed)
    assert (await api.client.delete(f"{KEYS}/ci")).status_code == 204
    assert await _status(api, again["secret"]) == 401
    for answer in (await api.client.delete(f"{KEYS}/ci"), await api.client.post(f"{KEYS}/ci/rotate")):
        assert_problem(answer, 404)
    assert (await _create(api, name="ci"))["role"] == "read"
    assert (await _create(api))["name"].startswith("key-")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"role": "root"}, "role"),
        ({"collections": []}, "collections"),
        ({"collections": ["No Such"]}, "collections"),
        ({"collections": "papers"}, "collections"),
        ({"filter": {}}, "filter"),
        ({"filter": {"$nor": []}}, "filter.$nor"),
        ({"filter": {"tenant": "a\0"}}, "filter.tenant"),
        ({"rate": "fast"}, "rate"),
        ({"expires": "soon"}, "expires"),
        ({"expires": "0"}, "expires"),
        ({"expires": "٣d"}, "expires"),
        ({"secret": "mine"}, "secret"),
    ],
    ids=str,
)
async def test_what_no_key_can_be_is_told(api: Edge, body: Any, field: str) -> None:
    assert_problem(await api.client.post(KEYS, json=body), 422, field)
    assert [one["name"] for one in (await api.get(KEYS))["keys"] if one["name"] != "root"] == []


@pytest.mark.parametrize("body", [{"overlap": "-1h"}, {"overlap": 60}])
async def test_an_overlap_is_a_duration(api: Edge, body: Any) -> None:
    await _create(api, name="ci")
    assert_problem(await api.client.post(f"{KEYS}/ci/rotate", json=body), 422, "overlap")


@pytest.mark.parametrize("name", ["%00", "a%0Ab", "x" * 64, "%F0%9F%98%80"])
async def test_a_name_that_no_key_can_have_is_told(api: Edge, name: str) -> None:
    assert_problem(await api.client.delete(f"{KEYS}/{name}"), 422, "id")


@pytest.mark.parametrize(
    "body", [{}, {"role": "write"}, {"role": "admin", "collections": ["a*"]}, {"role": "admin", "expires": "1h"}]
)
async def test_the_first_key_can_make_others(body: Any) -> None:
    """Or nobody could, from then on."""
    async with edge() as api:
        problem = assert_problem(await api.client.post(KEYS, json=body), 409)
        assert "admin" in problem["detail"]
        assert await api.get(KEYS) == {"required": False, "keys": []}
        first = await _create(api, role="admin")
        assert "every request needs a key" in first["notice"]
        assert await _status(api, "", KEYS) == 401
        api.client.headers["api-key"] = first["secret"]
        assert (await api.get(KEYS))["required"] is True
        assert (await _create(api, **body))["notice"] is None


async def test_the_last_key_that_manages_keys_stays(api: Edge) -> None:
    for more in ({"role": "admin", "collections": ["a*"]}, {"role": "admin", "filter": {"a": 1}}, {"role": "write"}):
        await _create(api, **more)
    root = [one for one in (await api.get(KEYS))["keys"] if one["id"] == "root"]
    if root:
        assert "last" in assert_problem(await api.client.delete(f"{KEYS}/root"), 409)["detail"]
    await _create(api, name="other", role="admin")
    assert (await api.client.delete(f"{KEYS}/{'root' if root else 'other'}")).status_code == 204


async def test_other_origins_make_no_key() -> None:
    async with edge() as api:
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer: httpx.Response = await api.client.post(KEYS, json={"role": "admin"}, headers=headers)
            assert_problem(answer, 403)
        assert (await api.get(KEYS))["required"] is False
