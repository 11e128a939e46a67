"""Which GPUs a machine has."""

import pytest
import torch

from service.core.errors import Misconfigured
from service.embedder.models.gpus import gpus

pytestmark = pytest.mark.slow


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
async def test_a_machine_without_any_is_told_so() -> None:
    with pytest.raises(Misconfigured, match="no GPU"):
        await gpus()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
async def test_each_is_named() -> None:
    assert await gpus() == [f"cuda:{number}" for number in range(torch.cuda.device_count())]
