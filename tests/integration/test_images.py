"""Images and texts in one space, through the service: a tiny CLIP model, whose weights alone are not real."""

import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from service.core.collections import EmbedderSpec
from service.core.images import read_image
from service.embedder.models.loader import ModelLoader
from tests.browser import browser
from tests.clip import COLOURS, SHAPES, data_uri, drawn, opened, tiny_clip
from tests.integration.conftest import Running, written
from tests.running import wait_for

pytestmark = [pytest.mark.model, pytest.mark.slow]

_FOLDER = TemporaryDirectory(prefix="azimuth-clip-")
MODEL = Path(_FOLDER.name) / "model"
SETTINGS = {"AZIMUTH_MODELS": str(MODEL), "AZIMUTH_MAX_IMAGE_BYTES": "200000", "AZIMUTH_API_KEYS": "root"}
NAMES = [f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)]
PICTURES = {name: drawn(*name.split(), side=64) for name in NAMES}


@pytest.fixture(scope="module", autouse=True)
def model() -> Iterator[Path]:
    with _FOLDER:
        yield tiny_clip(Path(_FOLDER.name))


@pytest.fixture(scope="module")
def shapes(service: Running, model: Path) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{service.url}/v1/collections/shapes/", trust_env=False, timeout=240, headers={"api-key": "root"}
    ) as client:
        client.put(f"{service.url}/v1/collections/shapes", json={"embedder": {"model": str(model)}}).raise_for_status()
        documents = [
            {"id": f"of/{name}", "image": data_uri(PICTURES[name]), "metadata": {"colour": name.split()[0]}}
            for name in NAMES
        ]
        documents[0]["title"] = "a picture"
        documents += [
            {"id": "text", "text": "a blue triangle"},
            {"id": "both", "text": "a", "image": data_uri(drawn("red", "square"))},
        ]
        assert client.post("documents", json={"documents": documents}).json()["created"] == len(documents)
        wait_for(
            lambda: client.post("documents?wait=true", json={"documents": documents}).json()["searchable"], "found"
        )
        yield client


def test_vectors_are_those_of_the_library(model: Path) -> None:
    encoder = ModelLoader(device="cpu", precision="float32", threads=1)(EmbedderSpec(model=str(model)))
    previews = [read_image(one, 10**6).preview for one in PICTURES.values()]
    mixed = encoder.encode([part for pair in zip(NAMES, previews, strict=True) for part in pair], "document")
    library = SentenceTransformer(str(model), device="cpu")
    for vectors, inputs in ((mixed[::2], NAMES), (mixed[1::2], list(map(opened, previews)))):
        assert (vectors * library.encode(inputs, normalize_embeddings=True)).sum(axis=1).min() > 0.99999
    assert np.argmax(mixed[::2] @ mixed[1::2].T, axis=1).tolist() == list(range(len(NAMES)))
    assert encoder.identity.takes_images


def test_the_layout_of_the_hub_is_read_and_another_image_processor_is_noticed(model: Path, tmp_path: Path) -> None:
    """As clip-ViT-B-32 lies there: made by an early version of the library."""
    module = tmp_path / "0_CLIPModel"
    shutil.copytree(model.parent / "parts", module)
    (module / "tokenizer.json").unlink()
    processor = json.loads((module / "processor_config.json").read_text())["image_processor"]
    (module / "processor_config.json").unlink()
    (module / "preprocessor_config.json").write_text(json.dumps(processor))
    chain = [{"idx": 0, "name": "0", "path": module.name, "type": "sentence_transformers.models.CLIPModel"}]
    (tmp_path / "modules.json").write_text(json.dumps(chain))
    load = ModelLoader(device="cpu", precision="float32", threads=1)
    former, present = (load(EmbedderSpec(model=str(folder))) for folder in (tmp_path, model))
    read = [NAMES[0], read_image(PICTURES[NAMES[0]], 10**6).preview]
    np.testing.assert_allclose(former.encode(read, "query"), present.encode(read, "query"), atol=1e-5)
    (module / "preprocessor_config.json").write_text(json.dumps({**processor, "image_mean": [0.1, 0.1, 0.1]}))
    assert not former.unchanged()


def found(shapes: httpx.Client, **search: Any) -> list[dict[str, Any]]:
    answer = shapes.post("search", json={"k": 3, **search})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def test_texts_and_images_find_images(shapes: httpx.Client) -> None:
    for name in NAMES:
        assert f"of/{name}" in [hit["id"] for hit in found(shapes, query=name, mode="dense")]
    for name in NAMES[::4]:
        best, *_ = found(shapes, image=data_uri(drawn(*name.split(), side=90, format="JPEG"), "image/jpeg"))
        assert best["id"] in {f"of/{name}", "both"}
        assert best["image"] == "images/" + quote(best["id"], safe="")
    assert "text" in [hit["id"] for hit in found(shapes, query="triangle", mode="lexical")]
    assert {hit["metadata"]["colour"] for hit in found(shapes, query="red circle", filter={"colour": "blue"})} == {
        "blue"
    }
    labels = shapes.post("classify", json={"labels": NAMES, "filter": {"colour": {"$in": list(COLOURS)}}}).json()
    right = sum(one["id"] == f"of/{one['label']}" for one in labels["results"])
    assert right >= len(NAMES) - 1


def test_an_image_is_kept_as_the_text_is(shapes: httpx.Client) -> None:
    sent = PICTURES[NAMES[3]]
    path = f"images/{quote(f'of/{NAMES[3]}', safe='')}"
    answer = shapes.get(path)
    assert (answer.content, answer.headers["content-type"]) == (sent, "image/png")
    assert shapes.get(path, params={"preview": "true"}).headers["content-type"] == "image/webp"
    lines = shapes.get("export").text.splitlines()
    assert {"id": f"of/{NAMES[3]}", "image": data_uri(sent)}.items() <= next(
        one for one in map(json.loads, lines) if one["id"] == f"of/{NAMES[3]}"
    ).items()
    again = shapes.post("documents", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}).json()
    assert (again["unchanged"], again["errors"]) == (len(lines), [])
    assert shapes.post("copy", json={"name": "copied"}).status_code < 300
    copied = httpx.URL(str(shapes.base_url).replace("/shapes/", "/copied/"))
    assert shapes.get(copied.join(path)).content == sent
    # Sent back as it was read, changed in its other parts, and without the image.
    read = shapes.get("documents/both").json()
    assert shapes.post("documents", json={"documents": [read]}).json()["unchanged"] == 1
    revised = shapes.patch("documents/both", json={"title": "new"}).json()
    assert (revised["status"], shapes.get("images/both").status_code) == ("updated", 200)
    assert shapes.post("documents", json={"documents": [{**read, "title": "new"}]}).json()["unchanged"] == 1
    assert shapes.put("images/both", content=sent).json()["revision"] == revised["revision"] + 1
    assert shapes.get("images/both").content == sent
    assert shapes.patch("documents/both", json={"image": None}).json()["status"] == "updated"
    assert shapes.get("images/both").status_code == 404
    assert "image" not in shapes.get("documents/both").json()


def test_a_bound_key_reaches_the_images_of_its_documents_alone(shapes: httpx.Client) -> None:
    root = httpx.URL(str(shapes.base_url)).join("/v1/keys")
    made = shapes.post(root, json={"name": "reds", "role": "write", "filter": {"colour": "red"}})
    headers = {"api-key": made.json()["secret"]}
    for name, status in (("red square", 200), ("blue square", 404)):
        assert shapes.get(f"images/{quote(f'of/{name}', safe='')}", headers=headers).status_code == status
    assert (
        shapes.put(
            f"images/{quote('of/blue square', safe='')}", headers=headers, content=PICTURES[NAMES[0]]
        ).status_code
        == 404
    )


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("cat.png", "expected data:image/png;base64"),
        ("data:image/png;base64,%%%", "no base64"),
        (data_uri(b"GIF89a no picture"), "no whole image of these formats"),
        (data_uri(drawn("red", "circle")[:90]), "no whole image of these formats"),
        (data_uri(b"x" * 200_001), "larger than 200000 bytes"),
        ("http://169.254.169.254/latest", "not allowed here"),
        ("images/absent", "the document has none"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(shapes: httpx.Client, image: str, reason: str) -> None:
    answer = shapes.post("documents", json={"documents": [{"id": "absent", "image": image}]})
    assert (answer.status_code, reason in answer.json()["detail"]) == (422, True), answer.text
    line = shapes.post(
        "documents", json={"id": "absent", "image": image}, headers={"Content-Type": "application/x-ndjson"}
    )
    assert reason in line.json()["errors"][0]["error"]
    if not image.startswith("images/"):
        answer = shapes.post("search", json={"image": image})
        assert (answer.status_code, reason in answer.json()["detail"]) == (422, True), answer.text


def test_an_embedder_of_texts_refuses_images(shapes: httpx.Client, client: httpx.Client) -> None:
    client.headers["api-key"] = "root"
    written(client, "texts", {"id": "d", "text": "a red circle"})
    image = data_uri(PICTURES[NAMES[0]])
    for path, body in (("documents", {"documents": [{"id": "d", "image": image}]}), ("search", {"image": image})):
        answer = client.post(f"/v1/collections/texts/{path}", json=body)
        assert (answer.status_code, "hashing:64, takes no images" in answer.json()["detail"]) == (422, True)


def test_the_console_shows_thumbnails(shapes: httpx.Client, service: Running, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.open(f"{service.url}/?collection=shapes&q=red+circle")
        page.until("!document.querySelector('#key').hidden")
        page.click("#api-key")
        page.type("root")
        page.press("Enter", 13)
        page.until(
            "[...document.querySelectorAll('.hit .thumbnail')].some((one) => one.naturalWidth === 64)", "an image"
        )
