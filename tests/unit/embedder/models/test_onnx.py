"""Export to ONNX Runtime, and the files that are kept of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from service.embedder.models.kept_files import KeptFiles
from service.embedder.models.onnx_export import EightBit, export
from service.embedder.models.onnx_network import OnnxNetwork, seconds_of

EXAMPLE = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        self.bert = BertModel(BertConfig(vocab_size=50, max_position_embeddings=100, **sizes)).eval()

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.bert(**inputs).last_hidden_state
        return output


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Network()


@pytest.mark.parametrize(("eight_bit", "tolerance"), [(None, 1e-4), ("blocks", 0.2), ("rows", 0.2)])
@pytest.mark.slow
def test_an_exported_network_computes_the_same_for_other_shapes(
    network: nn.Module, tmp_path: Path, eight_bit: EightBit | None, tolerance: float
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export(network, EXAMPLE, tmp_path / "network.onnx", eight_bit=eight_bit)
    exported = OnnxNetwork(tmp_path / "network.onnx", threads=2)
    for texts, tokens, padding in [(1, 1, 0), (1, 7, 0), (3, 9, 4), (5, 60, 11)]:
        ids, mask = torch.randint(1, 50, (texts, tokens)), torch.ones((texts, tokens), dtype=torch.int64)
        mask[-1, tokens - padding :] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            expected = (network(**inputs) * mask[:, :, None]).numpy()
        found = exported({name: value.numpy() for name, value in inputs.items()}) * mask.numpy()[:, :, None]
        assert np.abs(found - expected).max() < tolerance
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def written(text: str, calls: list[str]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        calls.append(text)
        path.write_text(text)

    return make


def test_a_kept_file_is_made_once_and_anew_if_it_is_damaged(tmp_path: Path) -> None:
    calls: list[str] = []
    kept = KeptFiles(tmp_path, "model")
    with kept.locked():
        first = kept.file("network", written("a", calls))
        assert KeptFiles(tmp_path, "model").file("network", written("b", calls)) == first
        assert calls == ["a"]
        first.write_text("damaged")
        assert kept.file("network", written("c", calls)).read_text() == "c"
        assert not first.exists()
    with KeptFiles(tmp_path, "other").locked():
        assert KeptFiles(tmp_path, "other").file("network", written("e", calls)).read_text() == "e"


def test_a_file_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    kept = KeptFiles(tmp_path, "model")
    with kept.locked(), pytest.raises(RuntimeError):
        kept.file("network", fail)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


@pytest.mark.parametrize("damage", [None, "", "{", "nonsense"])
def test_a_kept_value_is_made_anew_only_if_it_cannot_be_read(tmp_path: Path, damage: str | None) -> None:
    kept = KeptFiles(tmp_path, "model")
    with kept.locked():
        assert kept.value("choice", lambda: {"query": "torch"}) == {"query": "torch"}
        if damage is not None:
            (file,) = tmp_path.rglob("choice.json")
            file.write_text(damage)
        assert kept.value("choice", lambda: "anew") == ({"query": "torch"} if damage is None else "anew")


def test_the_fastest_is_found_whatever_the_order() -> None:
    def work(rounds: int) -> Callable[[], object]:
        return lambda: sum(range(rounds))

    for rounds in ([100_000, 100], [100, 100_000]):
        rivals = {str(count): work(count) for count in rounds}
        taken = seconds_of(rivals, seconds=0.0)
        assert min(taken, key=taken.__getitem__) == "100"
