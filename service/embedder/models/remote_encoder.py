"""`Encoder` over another Azimuth (`AZIMUTH_ENCODER_URL`): models run there, and torch is not needed here.

The protocol is that of `api/routes/embeddings.py` and `api/routes/models.py`. A model has the same fingerprint here and
there, so a collection can move between a local and a remote model without being encoded again. Every answer names the
fingerprint of its embedder, and an answer of another embedder is refused, so no vector of it gets into the space.
"""

import base64
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from service.core.collections import EmbedderSpec
from service.core.errors import FieldError, Invalid, Misconfigured, ModelUnavailable, SpaceRefused, raised_as
from service.core.ids import Role, Vectors
from service.core.portions import portions
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderIdentity
from service.embedder.models import hashing_encoder
from service.embedder.models.text_input import TextInput

log = logging.getLogger(__name__)

FINGERPRINT_HEADER = "X-Azimuth-Fingerprint"

CONNECT_SECONDS = 3.0
QUERY_SECONDS = 15.0
BULK_SECONDS = 120.0
IDENTIFY_SECONDS = 30.0
"""The service keeps loading after this time and may have the model at the next request."""

PAUSES = (0.1, 0.4)
"""Seconds before the retries of a request that met no or a busy service. Every request is safe to repeat."""
DOWN_SECONDS = 1.0
"""How long an unreachable service is not tried again: otherwise each half of a bisected batch would wait for it."""

_BUSY = frozenset({429, 502, 503, 504})
_MAX_REQUEST_BYTES, _MAX_ANSWER_BYTES = 8 * 2**20, 256 * 2**20


class EncoderService:
    """Connections to one service. Specification -> encoder. Call it in threads."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Misconfigured if `url` is no valid address."""
        self.url = url.rstrip("/")
        headers = {b"Authorization": f"Bearer {key}".encode()} if key else None
        verify = httpx.create_ssl_context()  # the usual authorities, and those of `SSL_CERT_FILE`
        with raised_as(Misconfigured, f"{url} is no address of an encoder", httpx.InvalidURL):
            self._http = httpx.Client(base_url=self.url, headers=headers, verify=verify, trust_env=False)
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise Misconfigured(f"{url} is no address of an encoder: it must start with http:// or https://")
        if self._http.base_url.userinfo:  # every message names the address
            raise Misconfigured("the address of an encoder holds a password; its key is AZIMUTH_ENCODER_KEY")
        self._down: tuple[float, str] = (0.0, "")

    def __call__(self, spec: EmbedderSpec) -> Encoder:
        """ModelUnavailable if the service lacks the model or does not answer; Invalid as for a local model."""
        if hashing_encoder.dimensions_of(spec.model) is not None:
            return hashing_encoder.HashingEncoder(spec)
        return RemoteEncoder(self, spec)

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """ModelUnavailable if an answer that is read in the block does not have the form of the protocol."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"The encoder at {self.url} does not use the protocol of this Azimuth version."
            raise ModelUnavailable(reason) from error

    def post(self, path: str, body: Mapping[str, Any], seconds: float) -> tuple[Any, str | None]:
        """The JSON of the answer and the fingerprint that it names.

        ModelUnavailable if the service does not answer in time or fails; Invalid if it rejects the request.
        """
        content = orjson.dumps(body)
        for pause in (*PAUSES, None):
            down_until, reason = self._down
            if time.monotonic() < down_until:
                raise ModelUnavailable(reason)
            try:
                status, headers, answer = self._exchange(path, content, seconds)
            except httpx.TimeoutException as error:
                raise self._unreachable(f"did not answer in time ({type(error).__name__})") from error
            except httpx.TransportError as error:
                if pause is None:
                    raise self._unreachable(f"does not answer ({error})") from error
            else:
                if status not in _BUSY or pause is None:
                    return self._json(status, headers, answer), headers.get(FINGERPRINT_HEADER)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _exchange(self, path: str, content: bytes, seconds: float) -> tuple[int, httpx.Headers, bytes]:
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        headers = {"Content-Type": "application/json"}
        with self._http.stream("POST", path, content=content, headers=headers, timeout=timeout) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > _MAX_ANSWER_BYTES:
                    raise ModelUnavailable(f"The answer of the encoder at {self.url} is too large.")
                parts.append(part)
            return response.status_code, response.headers, b"".join(parts)

    def _unreachable(self, what: str) -> ModelUnavailable:
        reason = f"The encoder at {self.url} {what}."
        self._down = (time.monotonic() + DOWN_SECONDS, reason)
        log.warning("encoder unreachable", extra={"reason": reason})
        return ModelUnavailable(reason)

    def _json(self, status: int, headers: httpx.Headers, content: bytes) -> Any:
        try:
            answer = orjson.loads(content)
        except ValueError as error:
            raise ModelUnavailable(f"The encoder at {self.url} answers {status}, and not in JSON.") from error
        if status == httpx.codes.OK:
            return answer
        problem = answer if isinstance(answer, dict) else {}
        detail = str(problem.get("detail") or problem.get("title") or status)
        if status in (400, 413, 422):
            errors = [
                FieldError(str(one.get("field", "")), str(one.get("message", "")))
                for one in problem.get("errors", [])
                if isinstance(one, dict)
            ]
            raise Invalid(f"the encoder at {self.url} refuses it: {detail}", errors)
        if status in (401, 403):
            detail = "it does not accept AZIMUTH_ENCODER_KEY"
        after = headers.get("Retry-After", "")
        raise ModelUnavailable(
            f"The encoder at {self.url}: {detail}", retry_after=float(after) if after.isdecimal() else 2.0
        )


class RemoteEncoder:
    """One embedder of another service, as it was when it was loaded. Blocks; safe to use from several threads."""

    streams = 2
    """One request is on its way while another one is computed."""

    def __init__(self, remote: EncoderService, spec: EmbedderSpec) -> None:
        self._remote = remote
        fields = ("model", "revision", "dimensions", "query_prompt", "document_prompt")
        values = {name: getattr(spec, name) for name in fields}
        self._spec = {name: value for name, value in values.items() if value is not None}
        described = self._describe()
        self.identity = self._identity_of(described)
        if self.identity.takes_images:
            refusal = f"{spec.model} also encodes images, which an encoder service ({remote.url}) does not"
            raise Invalid.at("embedder.model", refusal)
        with remote.reading():
            self.batch_tokens = int(described["batch_tokens"])
            overhead, limits = described["overhead"], described["limits"]
            self._overheads: dict[Role, int] = {"query": int(overhead["query"]), "document": int(overhead["document"])}
            self._max_texts = max(1, int(limits["texts"]))
            self._max_bytes = min(_MAX_REQUEST_BYTES, int(limits["body_bytes"]))
        log.info("model loaded", extra={"model": spec.model, "encoder": remote.url})

    def unchanged(self) -> bool:
        """ModelUnavailable if the service does not answer: then nothing is known, and nothing can be encoded."""
        return self._identity_of(self._describe()) == self.identity

    def overhead(self, role: Role) -> int:
        return self._overheads[role]

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        rows = self._rows("/tokenize", "inputs", texts, {"return": "offsets", "input_type": "document"}, BULK_SECONDS)
        with self._remote.reading():
            return [np.frombuffer(base64.b64decode(row), "<i4").reshape(-1, 2).astype(np.int64) for row in rows]

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        rows = self._rows("/tokenize", "inputs", texts, {"return": "lengths", "input_type": role}, BULK_SECONDS)
        return [int(length) for length in rows]

    def read(self, texts: Sequence[str], role: Role) -> list[TextInput]:
        most = self.identity.max_tokens
        # A token is at least one byte, so that most texts are known to fit without asking.
        lengths = [len(text.encode(errors="surrogatepass")) + self._overheads[role] for text in texts]
        unknown = [at for at, length in enumerate(lengths) if length > most]
        for at, length in zip(unknown, self.lengths([texts[at] for at in unknown], role), strict=True):
            lengths[at] = length
        return [TextInput(text, min(length, most), length > most) for text, length in zip(texts, lengths, strict=True)]

    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        return self.encode([one.text for one in inputs], role)

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        # Like a local encoder: long texts are truncated, and unusable vectors are left to the caller.
        options = {"input_type": role, "encoding_format": "base64", "truncate": True, "unusable": "return"}
        seconds = QUERY_SECONDS if role == "query" else BULK_SECONDS
        rows = self._rows("/v1/embeddings", "input", texts, options, seconds)
        with self._remote.reading():
            vectors = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
            return np.array(vectors, np.float32).reshape(len(texts), self.identity.dimensions)

    def _rows(
        self, path: str, field: str, texts: Sequence[str], options: Mapping[str, Any], seconds: float
    ) -> list[Any]:
        """What the service answers for each of the texts, which are sent as `field`, in portions that it accepts."""
        rows: list[Any] = []
        most = self._max_bytes // 2
        written = list(map(orjson.dumps, texts))
        for portion in portions(written, lambda one: max(len(one), -(-most // self._max_texts)), most) if texts else ():
            answer = self._ask(path, {**options, field: list(map(orjson.Fragment, portion))}, seconds)
            with self._remote.reading():
                found = answer["data"] if field == "input" else answer
                if not isinstance(found, list) or len(found) != len(portion):
                    raise ValueError("not one row for each text")
            rows += found
        return rows

    def _ask(self, path: str, request: Mapping[str, Any], seconds: float) -> Any:
        """The answer to a request about this embedder. SpaceRefused if another embedder answered."""
        answer, fingerprint = self._remote.post(path, {**self._spec, **request}, seconds)
        with self._remote.reading():
            if fingerprint is None:
                raise ValueError("the answer names no fingerprint")
        if fingerprint != self.identity.fingerprint:
            differing = self.identity.differing(self._identity_of(self._describe())) or ("the fingerprint",)
            raise SpaceRefused(
                f"the encoder at {self._remote.url} serves another {self._spec['model']} than before: "
                f"{', '.join(differing)} differ"
            )
        return answer

    def _describe(self) -> Mapping[str, Any]:
        """The service's present description of the model."""
        try:
            answer, _ = self._remote.post("/v1/models/identify", self._spec, IDENTIFY_SECONDS)
        except Invalid as error:
            if any(one.field == "dimensions" for one in error.errors):
                errors = [FieldError(f"embedder.{one.field}", one.message) for one in error.errors]
                raise Invalid(error.detail, errors) from error
            raise ModelUnavailable(error.detail) from error  # the two services do not allow the same models
        with self._remote.reading():
            described: Mapping[str, Any] = answer["azimuth"]
            return described

    def _identity_of(self, described: Mapping[str, Any]) -> EmbedderIdentity:
        with self._remote.reading():
            identity = EmbedderIdentity(
                parts={str(name): str(value) for name, value in described["parts"].items()},
                dimensions=int(described["dimensions"]),
                max_tokens=int(described["max_tokens"]),
            )
            if identity.fingerprint != described["fingerprint"]:
                raise ValueError("the fingerprint does not follow from the parts")
            return identity
