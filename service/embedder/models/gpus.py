"""The GPUs of this machine, asked by another process: PyTorch needs hundreds of megabytes in the one that asks."""

from service.core.child_process import ChildProcess
from service.core.errors import Misconfigured


async def gpus() -> list[str]:
    """Their names as devices of PyTorch. Misconfigured where there is none."""
    async with ChildProcess() as process:
        if found := await process.run(_cuda_devices):
            return found
    raise Misconfigured("This machine has no GPU that PyTorch can use.")


def _cuda_devices() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
