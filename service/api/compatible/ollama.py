"""Ollama's embeddings, and its list of models."""

import time
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from service.api.bodies import large_answer
from service.api.compatible.encoding import TextsBody, TextsField, encode_texts
from service.api.dependencies import ServiceDep
from service.api.routing import other_api_router
from service.core.collections import EmbedderSpec

router = other_api_router()


class OllamaEmbedBody(TextsBody):
    """`truncate` is true, unless the request or the operator says otherwise. `options`, `keep_alive`: no effect."""

    input: TextsField
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None

    def spec(self) -> EmbedderSpec:
        return replace(super().spec(), model=self.model.removesuffix(":latest"))  # clients add it to bare names


@router.post("/api/embed", summary="Encode texts, in the shape of Ollama", response_model=dict[str, Any])
async def ollama_embed(service: ServiceDep, body: OllamaEmbedBody) -> Response:
    """Vectors of length 1, in the order of the texts. Durations are in nanoseconds."""
    started = time.perf_counter_ns()
    encoded = await encode_texts(service, body, body.input, "truncate", field="input")
    times = {"total_duration": time.perf_counter_ns() - started, "load_duration": 0}
    answer = {"model": body.model, "embeddings": await encoded.rows(), "prompt_eval_count": encoded.tokens}
    return await large_answer(answer | times, encoded.headers)


@router.get("/api/tags", summary="List models, in the shape of Ollama")
async def ollama_models(service: ServiceDep) -> dict[str, Any]:
    """The models that requests may name."""
    of_all = {"modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": "", "details": {}}
    return {"models": [{"name": name, "model": name, **of_all} for name in service.embedders.models()]}
