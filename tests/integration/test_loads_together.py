"""Models that are loaded at the same time, in different precisions."""

from concurrent.futures import ThreadPoolExecutor

from service.embedder.models import source
from service.embedder.models.transformer import TransformerModel
from service.embedder.reranker.cross_encoder import PackedCrossEncoder


def test_neither_takes_the_precision_of_the_other() -> None:
    folder = source.folder("all-MiniLM-L6-v2", None)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            loads = (
                threads.submit(TransformerModel, folder, device="cpu", precision="bfloat16", threads=0),
                threads.submit(PackedCrossEncoder, "azimuth-minilm-l6", device="cpu", precision="float32", threads=0),
            )
            assert all(load.result() for load in loads)
