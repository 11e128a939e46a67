"""What the encoder makes of the machine: `python -m loadtests.encode [--corpus corpus.jsonl] [--gpu]`.

On CPU: passages per second of the bare loop for each backend, precision and budget, and one short query, from text to
vector, against `SentenceTransformer.encode` and against PyTorch here. `ATEN_CPU_CAPABILITY=avx2
ONEDNN_MAX_CPU_ISA=AVX2` has PyTorch compute as on a machine without AVX-512; nothing limits ONNX Runtime likewise.
 `--one-core` counts the processor time of one thread, which other work on the machine
hardly touches. With --gpu: passages of about 128 tokens, the forward pass alone against the path from text to vector
and against the worker, which encodes and stores them in PostgreSQL.

All figures of one run are comparable with each other; those of two runs on a shared machine are not, so ratios are
printed beside them.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from loadtests.sandbox import sandbox
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.ids import CollectionName, DocumentId
from service.embedder.models import fingerprint, onnx_prepare, source
from service.embedder.models.batch_packing import pack
from service.embedder.models.encoder import SentenceTransformerEncoder
from service.embedder.models.kept_files import missing
from service.embedder.models.onnx_choice import NETWORKS, OnnxOptions
from service.embedder.models.onnx_model import DESCRIPTION, OnnxModel
from service.embedder.models.onnx_network import OnnxNetwork
from service.embedder.models.text_tokenizer import TextTokenizer
from service.embedder.models.transformer import TransformerModel
from service.runtime.container import components
from service.runtime.container.worker import run_worker
from service.runtime.settings import Settings
from service.versions.collection_setup import CollectionService

QUERY = "how to cancel a task after a timeout"
ROUNDS = 5


def passages(corpus: Path | None, count: int) -> list[str]:
    """Texts of a BEIR corpus; without one, random words of the model's vocabulary, 30 to 220 a text."""
    if corpus is not None:
        with corpus.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, count)]
        return [f"{row.get('title', '')}\n{row['text']}" for row in rows]
    generator = random.Random(7)
    return [" ".join(words(generator, generator.randint(30, 220))) for _ in range(count)]


def words(generator: random.Random, count: int) -> list[str]:
    vocabulary = (source.folder(source.BUNDLED, None) / "vocab.txt").read_text("utf-8").split("\n")
    whole = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]
    return generator.choices(whole, k=count)


clock: Callable[[], float] = time.perf_counter


def seconds(*rivals: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median duration of each, run in turns so that they share whatever else the machine does."""
    for rival in rivals:
        rival()
    times: list[list[float]] = [[] for _ in rivals]
    for _ in range(rounds):
        for rival, own in zip(rivals, times, strict=True):
            started = clock()
            rival()
            own.append(clock() - started)
    return [statistics.median(own) for own in times]


def loop(encoder: SentenceTransformerEncoder, texts: Sequence[str], budget: int) -> None:
    """Nothing but packed batches through the encoder: what ingest is measured against."""
    most = encoder.identity.max_tokens
    lengths = [min(length, most) for length in encoder.lengths(texts, "document")]
    for batch in pack(lengths, budget):
        encoder.encode([texts[index] for index in batch], "document")


def load(device: str, precision: str) -> tuple[SentenceTransformerEncoder, TransformerModel]:
    """The bundled embedder, and the model under it."""
    folder = source.folder(source.BUNDLED, None)
    model = TransformerModel(folder, device=device, precision=precision, threads=0)
    spec = EmbedderSpec(model=source.BUNDLED)
    return SentenceTransformerEncoder(model, folder, fingerprint.content(folder), spec), model


def load_exported(kept: str, threads: int) -> dict[str, SentenceTransformerEncoder]:
    """The bundled embedder in ONNX Runtime, by the format of its weights. `kept`: a folder for the exports."""
    folder = source.folder(source.BUNDLED, None)
    content = fingerprint.content(folder)
    options = OnnxOptions(
        name=source.BUNDLED,
        folder=str(folder),
        root=kept,
        digest=content.digest,
        backend="auto",
        precision="auto",
        threads=threads,
    )
    with options.kept.locked():
        onnx_prepare.prepare(options)
    described = DESCRIPTION.validate_python(options.kept.value("description", missing))
    networks = {name: OnnxNetwork(options.kept.file(name, missing), threads) for name in NETWORKS}
    tokenizer = TextTokenizer(described.tokenizer, described.max_tokens)
    models = {name: OnnxModel(described, tokenizer, network, network) for name, network in networks.items()}
    spec = EmbedderSpec(model=source.BUNDLED)
    return {name: SentenceTransformerEncoder(model, folder, content, spec) for name, model in models.items()}


def on_cpu(corpus: Path | None, count: int, kept: str) -> None:
    texts = passages(corpus, count)
    library = SentenceTransformer(str(source.folder(source.BUNDLED, None)), device="cpu")
    encoders = {precision: load("cpu", precision)[0] for precision in ("float32", "bfloat16")}
    encoders |= load_exported(kept, torch.get_num_threads())
    print(f"{torch.get_num_threads()} threads, {len(texts)} passages, {torch.backends.cpu.get_cpu_capability()}")

    print("\none short query")
    rivals: list[Callable[[], object]] = [lambda: library.encode(QUERY, show_progress_bar=False)]
    rivals += [partial(encoder.encode, [QUERY], "query") for encoder in encoders.values()]
    reference, *ours = seconds(*rivals, rounds=40)
    print(f"  SentenceTransformer.encode     {reference * 1e3:7.2f} ms")
    for precision, own in zip(encoders, ours, strict=True):
        shares = f"{own / reference:.2f} of it, {own / ours[0]:.2f} and {own / ours[1]:.2f} of the first two"
        print(f"  this encoder, {precision:<12}     {own * 1e3:7.2f} ms   {shares}")

    print("\npassages, 4,096 tokens a pass")
    rivals = [lambda: library.encode(texts, batch_size=32, show_progress_bar=False)]
    rivals += [partial(loop, encoder, texts, 4096) for encoder in encoders.values()]
    reference, *ours = seconds(*rivals, rounds=3)
    print(f"  SentenceTransformer.encode     {len(texts) / reference:7.1f} /s")
    for precision, own in zip(encoders, ours, strict=True):
        print(f"  this encoder, {precision:<12}     {len(texts) / own:7.1f} /s   {reference / own:.2f} times it")

    print("\npassages by budget, bfloat16")
    budgets = [512, 1024, 2048, 4096, 8192, 16384]
    rates = seconds(*(lambda budget=budget: loop(encoders["bfloat16"], texts, budget) for budget in budgets), rounds=3)
    for budget, own in zip(budgets, rates, strict=True):
        print(f"  {budget:6d} tokens a pass         {len(texts) / own:7.1f} /s   {min(rates) / own:.2f} of the best")


def on_gpu(count: int, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here: nothing measured. Run this where torch.cuda.is_available().")
        return
    generator = random.Random(7)
    encoder, model = load(device, "auto")
    texts = [" ".join(words(generator, 126)) for _ in range(count)]
    lengths = encoder.lengths(texts, "document")
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{name}, {len(texts)} passages of {statistics.mean(lengths):.0f} tokens")
    network = model._transformer.model
    batch = max(1, encoder.batch_tokens // 128)
    passes = max(1, count // batch)
    ids = torch.randint(1000, 20000, (batch, 128), device=device)
    mask = torch.ones_like(ids)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(passes):
                network(input_ids=ids, attention_mask=mask)
        if device == "cuda":
            torch.cuda.synchronize()

    alone, whole = seconds(forward, lambda: loop(encoder, texts, encoder.batch_tokens), rounds=3)
    bare = passes * batch / alone
    with sandbox() as place:
        stored = asyncio.run(store(place.url, texts, device))
    print(f"  forward pass alone             {bare:9.0f} /s")
    print(f"  from text to vector            {count / whole:9.0f} /s   {count / whole / bare:.2f} of it")
    print(f"  encoded and stored             {count / stored:9.0f} /s   {count / stored / bare:.2f} of it")


async def store(url: str, texts: Sequence[str], device: str) -> float:
    """Seconds in which a worker of this process encodes and stores the texts, from first write to empty queue."""
    settings = Settings(database_url=url, device=device, claim=4096)
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, url, stop))
    async with components.open_store(settings, url, "bench") as opened:
        models = components.model_registry(settings)
        now = datetime.now(UTC)
        collection = await CollectionService(
            collections=opened.collections, embedders=models, verifier=components.model_verifier(opened, models)
        ).create(CollectionName("passages"), CollectionSettings(), now, actor="benchmark")

        async def write(prefix: str, texts: Sequence[str]) -> None:
            documents = [Document(id=DocumentId(f"{prefix}{at}"), text=text) for at, text in enumerate(texts)]
            for start in range(0, len(documents), 1000):
                await opened.documents.put(collection.id, documents[start : start + 1000], now)
            while (await opened.queue.status(collection.id, collection.active_version, now)).pending:
                await asyncio.sleep(0.02)

        await write("warm", texts[:256])
        started = time.perf_counter()
        await write("", texts)
        taken = time.perf_counter() - started
        await models.close()
    stop.set()
    await worker
    return taken


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--corpus", type=Path, help="corpus.jsonl of a BEIR folder; none: random words")
    arguments.add_argument("--count", type=int, default=0, help="passages; 0: 200 on CPU, 50,000 on GPU")
    arguments.add_argument("--gpu", action="store_true")
    arguments.add_argument("--device", default="cuda", help="with --gpu: another device, to try the measurement itself")
    arguments.add_argument("--one-core", action="store_true", help="one thread, by its processor time")
    chosen = arguments.parse_args()
    if chosen.one_core:
        global clock
        clock = time.thread_time
        torch.set_num_threads(1)
    if chosen.gpu:
        on_gpu(chosen.count or 50_000, chosen.device)
    else:
        with tempfile.TemporaryDirectory() as kept:
            on_cpu(chosen.corpus, chosen.count or 200, kept)


if __name__ == "__main__":
    main()
