"""What changes a fingerprint, and what must not. Works on made-up files: no model is loaded."""

import json
import os
from pathlib import Path

import pytest

from service.core.errors import ModelUnavailable
from service.embedder.models import source
from service.embedder.models.fingerprint import content, parts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    write(tmp_path / "modules.json", [module("", "Transformer"), module("1_Pooling", "Pooling")])
    write(tmp_path / "config.json", {"hidden_size": 8, "transformers_version": "4.8", "_name_or_path": "somewhere"})
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 256})
    write(tmp_path / "tokenizer.json", {"model": {"vocab": {"a": 0}}})
    write(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    (tmp_path / "model.safetensors").write_bytes(bytes(64))
    (tmp_path / "README.md").write_text("words")
    return tmp_path


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def module(path: str, kind: str) -> dict[str, str]:
    return {"path": path, "type": f"sentence_transformers.models.{kind}"}


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("model.safetensors", bytes(63) + b"\x01", "weights"),
        ("extra.safetensors", b"", "weights"),
        ("tokenizer.json", b'{"model": {"vocab": {"b": 0}}}', "tokenizer"),
        ("1_Pooling/config.json", b'{"pooling_mode": "cls"}', "modules"),
        ("sentence_bert_config.json", b'{"max_seq_length": 128}', "modules"),
        ("config.json", b'{"hidden_size": 16}', "modules"),
        ("adapter_config.json", b'{"lora_alpha": 8}', "modules"),
        ("1_Pooling/special_config.json", b"{}", "modules"),
        ("modules.json", json.dumps([module("", "Transformer")]).encode(), "modules"),
    ],
)
def test_a_change_that_moves_vectors_changes_its_part_alone(folder: Path, file: str, content: bytes, part: str) -> None:
    before = parts(folder)
    (folder / file).write_bytes(content)
    after = parts(folder)
    assert {name for name in before if before[name] != after[name]} == {part}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.md", b"other words"),
        ("config.json", b'{"hidden_size": 8, "transformers_version": "5.0", "_name_or_path": "elsewhere"}'),
        (".gitattributes", b"*.safetensors filter=lfs"),
    ],
)
def test_a_change_without_effect_changes_nothing(folder: Path, file: str, content: bytes) -> None:
    before = parts(folder)
    (folder / file).write_bytes(content)
    assert parts(folder) == before


def test_a_prompt_of_the_model_is_a_change_but_no_part(folder: Path) -> None:
    before = content(folder)
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}, "similarity_fn_name": "cosine"})
    after = content(folder)
    assert after.parts == before.parts
    assert after != before
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}, "similarity_fn_name": "dot"})
    assert content(folder) == after


def test_a_file_that_pretends_to_be_as_old_as_before_is_read_again(folder: Path) -> None:
    weights = folder / "model.safetensors"
    before, times = parts(folder), weights.stat()
    weights.write_bytes(bytes(63) + b"\x01")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_mtime_ns == times.st_mtime_ns
    assert parts(folder)["weights"] != before["weights"]


def test_the_folder_itself_does_not_matter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model"
    before = parts(folder)
    folder.rename(elsewhere)
    assert parts(elsewhere) == before


def test_weights_in_unsafe_formats_are_refused(folder: Path) -> None:
    source.check(folder, "model")
    (folder / "1_Pooling" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match=r"1_Pooling/pytorch_model\.bin"):
        source.check(folder, "model")
    (folder / "1_Pooling" / "pytorch_model.bin").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="no weights in safetensors"):
        source.check(folder, "model")


def test_foreign_code_is_refused(folder: Path) -> None:
    write(folder / "modules.json", [{"path": "", "type": "modeling_evil.Transformer"}])
    with pytest.raises(ModelUnavailable, match="foreign code"):
        source.check(folder, "model")


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"neither config\.json"):
        source.folder(str(tmp_path), None)
    with pytest.raises(ModelUnavailable, match="no folder"):
        source.folder(str(tmp_path / "missing"), None)
