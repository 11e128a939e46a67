# mypy: disable-error-code="import-not-found, misc, no-any-return, valid-type"
"""One peer of `loadtests.peers`, in an environment of its own that knows nothing of the service.

    python peer.py NAME MODEL_FOLDER TASK.json ANSWERS.json

The task has `documents` ([id, text]) and `queries`; the answers have the seconds until the documents can be searched,
those of each query, the processor time of both and the ids found. Each peer runs as its documentation shows for hybrid
search, with its own defaults. The model is loaded, and some queries are asked, before the clocks run.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Documents = Sequence[tuple[str, str]]
Search = Callable[[str], list[str]]
Index = Callable[[Documents], Search]
K = 10
WARM_UP = 10


def lancedb(model: str, folder: str) -> Index:
    """A table with an embedding function and a full-text index, `query_type="hybrid"` and the default reranker (RRF).

    No vector index: its documentation advises one for larger tables, and scanning is exact.
    """
    import lancedb
    from lancedb.embeddings import get_registry
    from lancedb.index import FTS
    from lancedb.pydantic import LanceModel, Vector
    from lancedb.rerankers import RRFReranker

    embedder = get_registry().get("sentence-transformers").create(name=model, device="cpu")
    reranker = RRFReranker()

    class Row(LanceModel):
        id: str
        text: str = embedder.SourceField()
        vector: Vector(embedder.ndims()) = embedder.VectorField()

    database = lancedb.connect(folder)

    def index(documents: Documents) -> Search:
        table = database.create_table("documents", schema=Row, mode="overwrite")
        table.add([{"id": name, "text": text} for name, text in documents])
        table.create_index("text", config=FTS())

        def search(query: str) -> list[str]:
            return [row["id"] for row in table.search(query, query_type="hybrid").rerank(reranker).limit(K).to_list()]

        return search

    return index


def txtai(model: str, folder: str) -> Index:
    """`Embeddings(hybrid=True, content=True)`: Faiss and BM25, texts in SQLite, scores summed."""
    from txtai import Embeddings

    def index(documents: Documents) -> Search:
        embeddings.index([(name, text, None) for name, text in documents])
        return lambda query: [row["id"] for row in embeddings.search(query, K)]

    embeddings = Embeddings(path=model, hybrid=True, content=True)
    return index


def chroma(model: str, folder: str) -> Index:
    """A query by embedding under a `where_document` that asks for any of the query's longer words.

    Its search by sparse vectors and rank fusion runs in Chroma's cloud only; this is what it has on one's own machine.
    """
    import chromadb
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    client = chromadb.PersistentClient(folder)
    embedder = SentenceTransformerEmbeddingFunction(model_name=model, device="cpu")

    def index(documents: Documents) -> Search:
        names = [one.name for one in client.list_collections()]
        collection = client.create_collection(f"documents-{len(names)}", embedding_function=embedder)
        for at in range(0, len(documents), 1_000):
            batch = documents[at : at + 1_000]
            collection.add(ids=[name for name, _ in batch], documents=[text for _, text in batch])

        def search(query: str) -> list[str]:
            words = list(dict.fromkeys(word for word in re.findall(r"\w+", query) if len(word) > 3))
            terms = [{"$contains": word} for word in words]
            where = {"$or": terms} if len(terms) > 1 else next(iter(terms), None)
            return collection.query(query_texts=[query], n_results=K, where_document=where)["ids"][0]

        return search

    return index


PEERS = {"lancedb": lancedb, "txtai": txtai, "chroma": chroma}


def main() -> None:
    name, model, task, answers = sys.argv[1:]
    given = json.loads(Path(task).read_text(encoding="utf-8"))
    documents, queries = [tuple(one) for one in given["documents"]], given["queries"]
    with tempfile.TemporaryDirectory() as folder:
        index = PEERS[name](model, folder)
        warm = index(documents[:32])
        for query in queries[:WARM_UP]:
            warm(query)
        started, processor = time.perf_counter(), time.process_time()
        search = index(documents)
        search(queries[0])
        indexing, indexing_cpu = time.perf_counter() - started, time.process_time() - processor
        for query in queries[:WARM_UP]:
            search(query)
        seconds, found = [], []
        processor = time.process_time()
        for query in queries:
            started = time.perf_counter()
            found.append(search(query))
            seconds.append(time.perf_counter() - started)
        searching_cpu = time.process_time() - processor
    processor_time = {"indexing_cpu": indexing_cpu, "searching_cpu": searching_cpu}
    Path(answers).write_text(json.dumps({"indexing": indexing, "seconds": seconds, "found": found, **processor_time}))


if __name__ == "__main__":
    main()
