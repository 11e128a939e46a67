"""An encoder for tests of what surrounds encoders: its passes can be held back, fail, or give NaN."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from service.core.collections import EmbedderSpec
from service.core.ids import Role, Vectors
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.text_input import TextInput


class ScriptedEncoder(HashingEncoder):
    """Records every batch. The gate holds passes back while it is closed; `fault` may raise, `spoil` gives NaN."""

    def __init__(self, dimensions: int = 64) -> None:
        super().__init__(EmbedderSpec(model=f"hashing:{dimensions}"))
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Callable[[Sequence[str]], None] = lambda texts: None
        self.spoil: Callable[[str], bool] = lambda text: False

    def fail_on(self, word: str, error: Exception) -> None:
        """Raise the error for every batch in which a text contains the word."""

        def fault(texts: Sequence[str]) -> None:
            if any(word in text for text in texts):
                raise error

        self.fault = fault

    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        texts = [one.text for one in inputs]
        self.batches.append(texts)
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.gate.wait(10)
        self.fault(texts)
        vectors = super().forward(inputs, role)
        vectors[[self.spoil(text) for text in texts]] = np.nan
        return vectors
