"""The clients of OpenAI: its own for Python and Node.js, LangChain's and LlamaIndex's, litellm's."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import litellm
import numpy as np
import openai
import pytest
from conftest import BEST, DIMENSIONS, KEY, MODELS, QUESTION, TEXTS
from haystack.components.embedders import OpenAITextEmbedder
from haystack.utils import Secret
from langchain_openai import OpenAIEmbeddings
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

MODEL = "text-embedding-3-small"
HERE = Path(__file__).parent


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def nearest(vectors: list[list[float]], query: list[float]) -> int:
    return int(np.argmax(np.array(vectors) @ np.array(query)))


def test_openai_encodes(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model=MODEL, input=TEXTS)  # base64, which it asks for by default
    plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    np.testing.assert_allclose([one.embedding for one in packed.data], [one.embedding for one in plain.data], atol=1e-7)
    assert len(plain.data[0].embedding) == DIMENSIONS
    assert packed.usage.total_tokens > 0
    few = client.embeddings.create(model=MODEL, input=TEXTS, dimensions=64).data[0].embedding
    assert len(few) == 64
    assert np.linalg.norm(few) == pytest.approx(1, abs=1e-5)


async def _encoded(url: str) -> int:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        return len((await client.embeddings.create(model=MODEL, input=TEXTS)).data)


def test_openai_encodes_asynchronously(url: str) -> None:
    import asyncio

    assert asyncio.run(_encoded(url)) == len(TEXTS)


def test_openai_sends_2048_texts_and_long_ones(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model=MODEL, input=["a"] * 2_048).data) == 2_048
    answer = client.embeddings.with_raw_response.create(model=MODEL, input=["a dog barks. " * 500])
    assert answer.headers["x-azimuth-long-texts"] == "chunk-mean;texts=1"


def test_openai_sends_tokens(client: openai.OpenAI) -> None:
    texts = client.embeddings.create(model=MODEL, input=["Hello world"]).data[0].embedding
    tokens = client.embeddings.create(model=MODEL, input=[[9906, 1917]]).data[0].embedding
    assert tokens == texts


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert set(MODELS) <= {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_openai_reads_errors(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as unknown:
        client.embeddings.create(model="gpt-5", input="x")
    assert unknown.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()


def test_langchain(url: str) -> None:
    """It sends tokens, and makes the means of parts of what is longer than OpenAI's models take."""
    embeddings = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY)
    vectors = embeddings.embed_documents(TEXTS)
    assert nearest(vectors, embeddings.embed_query(QUESTION)) == BEST
    untokenized = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False)
    np.testing.assert_allclose(vectors, untokenized.embed_documents(TEXTS), atol=1e-6)
    assert len(embeddings.embed_documents(["a dog barks. " * 3_000])[0]) == DIMENSIONS


@pytest.mark.parametrize("kind", [OpenAILikeEmbedding, OpenAIEmbedding])
def test_llama_index(url: str, kind: type[OpenAIEmbedding]) -> None:
    model = kind(model_name=MODEL, api_base=f"{url}/v1", api_key=KEY)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=model)
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == TEXTS[BEST]


def test_haystack(url: str) -> None:
    embedder = OpenAITextEmbedder(api_key=Secret.from_token(KEY), api_base_url=f"{url}/v1", model=MODEL)
    assert len(embedder.run(QUESTION)["embedding"]) == DIMENSIONS


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "jina_ai"])
def test_litellm(url: str, provider: str) -> None:
    answer = litellm.embedding(model=f"{provider}/{MODEL}", input=TEXTS, api_base=f"{url}/v1", api_key=KEY)
    assert [len(one["embedding"]) for one in answer.data] == [DIMENSIONS] * len(TEXTS)


def test_openai_for_node(url: str, client: openai.OpenAI) -> None:
    node, folder = shutil.which("node"), Path(os.environ.get("AZIMUTH_NODE_MODULES", HERE / "node_modules"))
    if node is None or not (folder / "openai").is_dir():
        pytest.skip("needs node and npm")
    program = folder.parent / "openai.mjs"
    shutil.copy(HERE / "openai.mjs", program)
    settings = os.environ | {"AZIMUTH_URL": url, "AZIMUTH_KEY": KEY}
    done = subprocess.run([node, str(program)], env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = client.embeddings.create(model=MODEL, input=[TEXTS[1], TEXTS[2]])
    np.testing.assert_allclose(found["packed"], [one.embedding for one in expected.data], atol=1e-6)
    np.testing.assert_allclose(found["plain"], found["packed"], atol=1e-6)
    assert [len(vector) for vector in found["few"]] == [64, 64]
    assert found["model"] == MODEL
    assert set(MODELS) <= set(found["models"])
    assert (found["unknown"]["api"], found["unknown"]["param"]) == (True, "model")
    assert found["refused"]["auth"]
