"""What decides where a text lands, as named digests: the parts of an `EmbedderIdentity`.

A changed byte in the weights, the tokenizer or the configuration of a module changes its part, and with it the
fingerprint. Precision and device are not parts: the same embedder in bfloat16 gives the same space to cosine 0.999,
which the canary checks.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_WEIGHTS = frozenset((".safetensors",))
_TOKENIZER = frozenset(
    (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    )
)
_TOKENIZER_ENDINGS = frozenset((".model", ".tiktoken"))
_NO_EFFECT = frozenset(("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"))
"""Keys of config.json that say where the model was and how it was saved."""

_MODEL_CONFIGURATION = "config_sentence_transformers.json"

_digests: dict[tuple[str, int, int, int, int], str] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Content:
    """What a folder holds that can move a vector. Equal contents give equal embedders.

    `parts` are of the fingerprint whatever the collection asks for. `prompts` (JSON) are the model's own: of the
    fingerprint only for a role for which the collection names no other.
    """

    parts: Mapping[str, str]
    prompts: str


def content(folder: Path) -> Content:
    """As it is now. OSError, ValueError, KeyError or TypeError where files are missing or cannot be read as theirs."""
    own = folder / _MODEL_CONFIGURATION
    prompts = json.loads(own.read_text("utf-8")).get("prompts", {}) if own.is_file() else {}
    return Content(parts(folder), json.dumps(prompts, sort_keys=True))


def parts(folder: Path) -> Mapping[str, str]:
    """Digests of the folder's weights, tokenizer and modules. Blocks: reads every byte of the weights once."""
    # Names relative to the folder are part of a digest: swapping two modules' weights is a change.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    return {
        "weights": _digest(folder, (path for path in files if path.suffix in _WEIGHTS)),
        "tokenizer": _digest(
            folder, (path for path in files if path.name in _TOKENIZER or path.suffix in _TOKENIZER_ENDINGS)
        ),
        "modules": _modules(folder),
    }


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _digest(folder: Path, files: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(folder).as_posix()} {_file(path)}\n".encode())
    return whole.hexdigest()


def _file(path: Path) -> str:
    """sha256 of a file, remembered for as long as nothing was written.

    Copies may keep the time of modification of what they were copied from; the times of the inode cannot be set.
    """
    state = path.stat()
    key = (str(path.resolve()), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    with _lock:
        known = _digests.get(key)
    if known is None:
        with path.open("rb") as stream:
            known = hashlib.file_digest(stream, "sha256").hexdigest()
        with _lock:
            _digests[key] = known
    return known


def _modules(folder: Path) -> str:
    """The chain of modules and each one's configuration, without what has no effect on vectors."""
    chain = []
    modules = folder / "modules.json"
    for module in json.loads(modules.read_text("utf-8")) if modules.is_file() else [{"type": "plain", "path": ""}]:
        place = folder / str(module["path"])
        configurations = {
            path.name: _relevant(json.loads(path.read_text("utf-8")))
            for path in sorted(place.glob("*.json"))
            if _configures(path, alone=place != folder)
        }
        chain.append({"type": module["type"], "path": module["path"], "configuration": configurations})
    return hashlib.sha256(json.dumps(chain, sort_keys=True).encode()).hexdigest()


def _configures(path: Path, *, alone: bool) -> bool:
    """Does this JSON file say how its module works? `alone`: the module has the folder for itself.

    Beside a transformer at the top of a repository lies much that has no effect (how it was trained, how it generates).
    """
    if path.name in _TOKENIZER:
        return False
    sentence = path.name.startswith("sentence_") and path.name.endswith("_config.json")
    return alone or sentence or path.name in ("config.json", "adapter_config.json")


def _relevant(value: object) -> object:
    if isinstance(value, dict):
        return {key: _relevant(inner) for key, inner in value.items() if key not in _NO_EFFECT}
    return value
