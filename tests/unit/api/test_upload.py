"""Files that are uploaded: as a form or as the body, read in part, refused, and uploaded again."""

import json
from typing import Any

import pytest

from tests.edge import LIMITS, Edge, api_fixture, assert_problem
from tests.files import pdf, zipped

api = api_fixture()
PATH = "/v1/collections/papers/documents/upload"


async def upload(api: Edge, **files: bytes | str) -> dict[str, Any]:
    form = [("file", (name.replace("_", "."), content)) for name, content in files.items()]
    answer = await api.client.post(PATH, files=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_files_of_a_form_become_documents(api: Edge) -> None:
    pages = pdf("The harbour is deep", "The lighthouse is tall")
    first = await upload(
        api, a_md="# Glaciers\n\nIce.", b_pdf=pages, c_txt=b"\0\1", d_zip=zipped({"x/e.csv": "id,n\n7,1\n"})
    )
    assert (first["files"], first["created"], first["skipped"]) == (3, 4, [])
    assert first["errors"] == [{"file": "c.txt", "error": "is not text, whatever its name says"}]
    listed = {one["id"]: one for one in (await api.get("/v1/collections/papers/documents"))["documents"]}
    assert set(listed) == {"7", "a.md", "b.pdf#page=1", "b.pdf#page=2"}
    assert listed["b.pdf#page=2"]["metadata"]["page"] == 2
    again = await upload(api, a_md="# Glaciers\n\nIce.", b_pdf=pdf("The harbour is deep"))
    assert (again["created"], again["updated"], again["deleted"]) == (0, 1, 1)


async def test_a_file_as_the_body(api: Edge) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = await api.client.post(
            PATH,
            params={"name": "notes/a.txt", "metadata": json.dumps({"team": "sales"})},
            content=b"some words",
            headers={"Content-Type": kind},
        )
        assert answer.status_code == 200, answer.text
    stored = await api.get("/v1/collections/papers/documents/notes/a.txt")
    assert (stored["text"], stored["metadata"]["team"]) == ("some words", "sales")
    assert stored["revision"] == 1


@pytest.mark.parametrize(
    ("params", "content", "status"),
    [
        ({"name": "a.png"}, b"\x89PNG", 415),
        ({"name": "a.txt"}, b"", 422),
        ({"name": "a.pdf"}, b"%PDF no", 422),
        ({"name": "../a.txt"}, b"x", 422),
        ({"name": "/etc/a.txt"}, b"x", 422),
        ({"metadata": "[]"}, b"x", 422),
        ({"metadata": "no"}, b"x", 422),
        ({"nmae": "a.txt"}, b"x", 422),
    ],
)
async def test_what_cannot_be_taken_is_a_problem(
    api: Edge, params: dict[str, str], content: bytes, status: int
) -> None:
    answer = await api.client.post(PATH, params=params, content=content, headers={"Content-Type": "text/plain"})
    assert_problem(answer, status)
    assert (await api.get("/v1/collections/papers/documents"))["documents"] == []


async def test_broken_and_empty_forms(api: Edge) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(await api.client.post(PATH, content=b"--x\r\nno", headers=kind), 422)
    assert_problem(await api.client.post(PATH, content=b"no", headers={"Content-Type": "multipart/form-data"}), 400)
    assert_problem(await api.client.post(PATH, files=[("a", (None, b"a field"))]), 422)
    assert_problem(await api.client.post(PATH.replace("papers", "none"), files=[("f", ("a.txt", b"a"))]), 404)
    too_large = bytes(LIMITS.upload_bytes + 1)
    assert_problem(await api.client.post(PATH, files=[("f", ("a.txt", too_large))]), 413)


async def test_forms_of_pages_are_taken_from_this_origin_alone(api: Edge) -> None:
    form = [("file", ("a.txt", b"a"))]
    browser = {"User-Agent": "Mozilla/5.0"}
    for told, status in (({}, 415), ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 200)):
        answer = await api.client.post(PATH, files=form, headers=browser | told)
        assert answer.status_code == status, answer.text
