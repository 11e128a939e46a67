"""Digests of everything that determines a text's vector: the parts of an `EmbedderIdentity`.

A changed byte in the weights, the tokenizer or the configuration of a module changes its part and so the fingerprint.
Precision and device are not parts: in bfloat16 the same embedder gives the same space to a cosine of 0.999, which the
canary checks.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
_TOKENIZER |= {"vocab.txt", "vocab.json", "merges.txt"}
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""How pictures are prepared for a model that reads them; models of texts have neither file."""
_NO_EFFECT = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Keys of config.json that only say where the model came from and how it was saved."""


@dataclass(frozen=True, slots=True)
class Content:
    """What in a model folder can move a vector. Equal contents give equal embedders.

    `parts` belong to every fingerprint. `prompts` (JSON), the model's own, belong to it only for roles for which the
    collection names no prompt.
    """

    parts: Mapping[str, str]
    prompts: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([dict(self.parts), self.prompts], sort_keys=True).encode()).hexdigest()[:32]


def content(folder: Path) -> Content:
    """The present content. OSError, ValueError, KeyError or TypeError if files are missing or malformed."""
    configuration = folder / "config_sentence_transformers.json"
    prompts = json.loads(configuration.read_text("utf-8")).get("prompts", {}) if configuration.is_file() else {}
    return Content(parts(folder), json.dumps(prompts, sort_keys=True))


def parts(folder: Path) -> Mapping[str, str]:
    """Digests of the folder's weights, tokenizer and modules. Blocks: reads every byte of the weights once."""
    # Names relative to the folder are part of a digest: swapping the weights of two modules is a change.
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    tokenizer = (path for path in files if path.name in _TOKENIZER or path.suffix in (".model", ".tiktoken"))
    return {
        "weights": _digest(folder, (path for path in files if path.suffix == ".safetensors")),
        "tokenizer": _digest(folder, tokenizer),
        "modules": _modules_digest(folder),
    }


def _digest(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {_file_digest(path)}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    """sha256 of a file, cached until the file is written.

    Copies can keep the modification time of their original, but the times of an inode cannot be set.
    """
    state = path.stat()
    return _digest_once(path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@cache
def _digest_once(path: Path, *state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _modules_digest(folder: Path) -> str:
    """Digest of the chain of modules and their configurations, without keys that have no effect on vectors."""
    chain = []
    modules = folder / "modules.json"
    for module in json.loads(modules.read_text("utf-8")) if modules.is_file() else [{"type": "plain", "path": ""}]:
        location = folder / str(module["path"])
        configurations = {
            path.name: _without_noise(json.loads(path.read_text("utf-8")))
            for path in sorted(location.glob("*.json"))
            if _is_configuration(path, own_folder=location != folder)
        }
        chain.append({"type": module["type"], "path": module["path"], "configuration": configurations})
    return hashlib.sha256(json.dumps(chain, sort_keys=True).encode()).hexdigest()


def _is_configuration(path: Path, *, own_folder: bool) -> bool:
    """Whether this JSON file configures its module. `own_folder`: the folder belongs to the module alone.

    At the top of a repository, beside the transformer, lie many files without effect (of training, of generation).
    """
    if path.name in _TOKENIZER:
        return False
    sentence = path.name.startswith("sentence_") and path.name.endswith("_config.json")
    return own_folder or sentence or path.name in ("config.json", "adapter_config.json", *IMAGE_PROCESSORS)


def _without_noise(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_noise(inner) for key, inner in value.items() if key not in _NO_EFFECT}
    return value
