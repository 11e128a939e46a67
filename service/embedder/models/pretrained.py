"""Weights in memory of our own.

Libraries map the files of a model rather than read them. A file that is written over in place then changes the weights
of a running model under its feet, at once and before anybody has looked; one that is truncated ends the process.
"""

import torch


def own_weights(module: torch.nn.Module) -> None:
    """Copy what lies in main memory; what was moved to another device is a copy already."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
