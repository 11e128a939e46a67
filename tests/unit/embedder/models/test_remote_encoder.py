"""An encoder of another service: what it asks for and how it fails. The promises of encoders are in `contract/`."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.compatible import encoding
from service.api.dependencies import RequestLimits
from service.api.routes import models
from service.core.collections import EmbedderSpec
from service.core.errors import Invalid, ModelUnavailable, SpaceRefused
from service.embedder.models import remote_encoder
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.models.remote_encoder import EncoderService, RemoteEncoder
from tests.models import encoders, serving
from tests.programs import unused_port

pytestmark = pytest.mark.slow

SPEC = EmbedderSpec(model="hashing:64", query_prompt="find ", document_prompt="read ")
TEXTS = ["a tall tower", "a deep river", "a long bridge", "a small house", "an old road"]


def connected(url: str, key: str | None = None) -> closing[EncoderService]:
    return closing(EncoderService(url, key))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_encoder, "PAUSES", (0.0, 0.0))


def test_prompts_dimensions_and_identity_are_those_of_the_model_there() -> None:
    with encoders(ModelRegistry(default="hashing:64")) as running, connected(running.url) as there:
        for spec in (SPEC, EmbedderSpec(model="hashing:64", dimensions=16)):
            here, encoder = HashingEncoder(spec), RemoteEncoder(there, spec)
            assert encoder.identity == here.identity
            for role in ("query", "document"):
                np.testing.assert_array_equal(encoder.encode(TEXTS, role), here.encode(TEXTS, role))
                assert encoder.lengths(TEXTS, role) == here.lengths(TEXTS, role)
                assert encoder.overhead(role) == here.overhead(role)
            assert encoder.batch_tokens == here.batch_tokens
            assert encoder.unchanged()


def test_requests_keep_to_the_limits_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_TEXTS", 2)
    small = RequestLimits(body_bytes=1_500)
    with encoders(ModelRegistry(default="hashing:64"), limits=small) as running, connected(running.url) as there:
        encoder, here = RemoteEncoder(there, SPEC), HashingEncoder(SPEC)
        texts = [*TEXTS, "many words " * 60, *TEXTS, "ж" * 400]
        np.testing.assert_array_equal(encoder.encode(texts, "document"), here.encode(texts, "document"))
        for given, expected in zip(encoder.offsets(texts), here.offsets(texts), strict=True):
            np.testing.assert_array_equal(given, expected)
        with pytest.raises(Invalid, match="1500 bytes"):
            encoder.encode(["x" * 3_000], "document")


def test_the_key_is_sent_and_a_wrong_one_is_told() -> None:
    with encoders(ModelRegistry(default="hashing:64"), keys=["secret"]) as running:
        with connected(running.url, "secret") as there:
            assert RemoteEncoder(there, SPEC).encode(TEXTS, "query").shape == (5, 64)
        for key in (None, "wrong"):
            with connected(running.url, key) as there, pytest.raises(ModelUnavailable, match="AZIMUTH_ENCODER_KEY"):
                RemoteEncoder(there, SPEC)


def test_a_model_that_is_not_served_there_is_unavailable_here() -> None:
    with encoders(ModelRegistry(default="hashing:64")) as running, connected(running.url) as there:
        with pytest.raises(ModelUnavailable, match="not one of the models allowed"):
            RemoteEncoder(there, EmbedderSpec(model="BAAI/bge-small-en-v1.5"))
        with pytest.raises(Invalid, match="64") as refused:
            RemoteEncoder(there, EmbedderSpec(model="hashing:64", dimensions=65))
        assert refused.value.errors[0].field == "embedder.dimensions"


def test_nobody_there_is_said_quickly_and_not_tried_for_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_encoder, "DOWN_SECONDS", 60.0)
    with connected(f"http://127.0.0.1:{unused_port()}") as there:
        exchange = Mock(wraps=there._exchange)
        monkeypatch.setattr(there, "_exchange", exchange)
        for _ in range(5):
            with pytest.raises(ModelUnavailable, match="does not answer"):
                RemoteEncoder(there, SPEC)
    assert exchange.call_count == 3


Answer = tuple[int, dict[str, str], Any]
"""Status, headers and body."""


@contextmanager
def answering(
    *answers: Answer, hold: threading.Event | None = None
) -> Iterator[tuple[EncoderService, list[tuple[str, Any]]]]:
    """A service that gives these answers in turn, the last one for ever, and the requests that it gets."""
    asked: list[tuple[str, Any]] = []

    async def respond(request: Request) -> Response:
        status, headers, answer = answers[min(len(asked), len(answers) - 1)]
        asked.append((request.url.path, await request.json()))
        if hold is not None:
            await asyncio.to_thread(hold.wait, 10)
        return Response(answer if isinstance(answer, bytes) else json.dumps(answer), status, headers)

    app = Starlette(routes=[Route("/{path:path}", respond, methods=["POST"])])
    with serving(app) as url, connected(url) as there:
        yield there, asked
        if hold is not None:
            hold.set()


def description(**changes: Any) -> dict[str, Any]:
    identity = HashingEncoder(SPEC).identity
    azimuth = {
        "fingerprint": identity.fingerprint,
        "parts": dict(identity.parts),
        "dimensions": identity.dimensions,
        "max_tokens": identity.max_tokens,
        "batch_tokens": 8192,
        "overhead": {"query": 1, "document": 1},
        "limits": {"texts": 100, "length": 1000, "body_bytes": 100_000},
    }
    return {"azimuth": azimuth | changes}


GOOD: Answer = (200, {}, description())
BUSY: Answer = (503, {"Retry-After": "7"}, {"detail": "loading"})


def test_a_busy_service_is_asked_again() -> None:
    with answering(BUSY, (429, {}, {"detail": "too much"}), GOOD) as (there, asked):
        assert RemoteEncoder(there, SPEC).identity == HashingEncoder(SPEC).identity
    assert [path for path, _ in asked] == ["/v1/models/identify"] * 3


def test_a_service_that_stays_busy_says_when_to_come_back() -> None:
    with answering(BUSY) as (there, _), pytest.raises(ModelUnavailable, match="loading") as refused:
        RemoteEncoder(there, SPEC)
    assert refused.value.retry_after == 7


def test_a_service_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_encoder, "IDENTIFY_SECONDS", 0.05)
    started = time.monotonic()
    with answering(GOOD, hold=threading.Event()) as (there, _):
        with pytest.raises(ModelUnavailable, match="in time"):
            RemoteEncoder(there, SPEC)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>a proxy's page</html>"),
        (200, {}, []),
        (200, {}, {"azimuth": None}),
        (200, {}, description(fingerprint="another way to make it")),
        (200, {}, description(parts=None)),
        (200, {}, description(limits={})),
        (500, {}, {"detail": "no idea"}),
        (404, {}, {"detail": "no such route"}),
        (302, {"Location": "http://127.0.0.1:9/"}, {}),
    ],
    ids=range(9),
)
def test_whoever_does_not_speak_the_protocol_is_no_encoder(answer: Answer) -> None:
    with answering(answer) as (there, _), pytest.raises(ModelUnavailable):
        RemoteEncoder(there, SPEC)


SIGNED = {encoding.FINGERPRINT_HEADER: HashingEncoder(SPEC).identity.fingerprint}


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, {"data": []}),  # of whom?
        (200, SIGNED, {"data": []}),
        (200, SIGNED, {"data": [{"embedding": "AAAA"}, {"embedding": "AAAA"}]}),
        (200, SIGNED, {"data": [{"embedding": "AAAAAA=="}]}),
        (200, SIGNED, []),
    ],
    ids=range(5),
)
def test_vectors_that_cannot_be_what_was_asked_for_are_none(answer: Answer) -> None:
    with answering(GOOD, answer) as (there, _):
        encoder = RemoteEncoder(there, SPEC)
        with pytest.raises(ModelUnavailable):
            encoder.encode(["one", "two"], "document")


def test_vectors_of_another_embedder_are_refused_by_what_differs() -> None:
    other = HashingEncoder(EmbedderSpec(model="hashing:64", document_prompt="other ")).identity
    changed = description(fingerprint=other.fingerprint, parts=dict(other.parts))
    vectors = {"data": [{"embedding": "AAAAAA=="}]}
    signed: dict[str, str] = {encoding.FINGERPRINT_HEADER: other.fingerprint}
    with answering(GOOD, (200, signed, vectors), (200, {}, changed)) as (there, _):
        encoder = RemoteEncoder(there, SPEC)
        with pytest.raises(SpaceRefused, match="document_prompt, query_prompt differ"):
            encoder.encode(["one"], "document")
        assert not encoder.unchanged()


def test_the_encoder_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    with answering(GOOD) as (there, _):
        assert RemoteEncoder(there, SPEC).overhead("query") == 1
