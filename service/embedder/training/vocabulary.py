"""Words of a collection that the tokenizer does not know: codenames, part numbers, names of substances.

A word that is broken into five pieces, each shared with a hundred other words, is told apart only by their order. As a
token of its own it has a row of its own that can be learnt. The row starts as the mean of the rows of its pieces (Gee
et al., "Fast Vocabulary Transfer for Language Model Compression", EMNLP 2022 industry track), so it starts about where
the model already saw the word.
"""

import re
from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedTokenizerFast

from service.embedder.training.trainable_model import TrainableModel

LEAST_DOCUMENTS = 3
"""A word of fewer documents is not learnt from them."""
LEAST_BROKEN = 2
"""Pieces beyond one for each part of a word: `well-known` is of three parts, and not broken."""
SELDOM = 0.2
"""Share of its documents in which a name may be written in small letters."""
_LONGEST = 40
_WORD = re.compile(r"\w+(?:[-./_]\w+)*")
_PART = re.compile(r"\w+|[^\w\s]")


def unknown(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, most: int) -> list[str]:
    """At most so many names that are broken up, those first that cost the most tokens in all documents together.

    A name is what has a digit or is seldom written in small letters: other words, however the tokenizer breaks them up,
    are language that the model was taught, and would have to be learnt anew. As the tokenizer normalises them: where it
    does not tell `Quillfeather` from `quillfeather`, there is one of them.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    normal: dict[str, str] = {}
    documents: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for text in texts:
        words = set(_WORD.findall(text))
        for word in words - normal.keys():
            normal[word] = normalizer.normalize_str(word) if normalizer else word
        documents.update({normal[word] for word in words})
        small.update({normal[word] for word in words if word.islower()})
    names = [
        word
        for word, count in documents.items()
        if count >= LEAST_DOCUMENTS
        and len(word) <= _LONGEST
        and any(map(str.isalpha, word))
        and (any(map(str.isdigit, word)) or small[word] <= SELDOM * count)
    ]
    if not names or most < 1:
        return []
    pieces = [len(ids) for ids in tokenizer(names, add_special_tokens=False)["input_ids"]]
    saved = {
        word: (count - 1) * documents[word]
        for word, count in zip(names, pieces, strict=True)
        if count - len(_PART.findall(word)) >= LEAST_BROKEN
    }
    return sorted(saved, key=lambda word: (-saved[word], word))[:most]


@torch.no_grad()
def extend(chain: TrainableModel, words: list[str]) -> int:
    """Make each word a token, with the mean of its pieces' rows as its own. In place.

    How many rows at the end of the table are new: words that are tokens already change nothing.
    """
    tokenizer = chain.tokenizer
    new = [word for word in words if word not in tokenizer.get_vocab()]
    if not new:
        return 0
    pieces = tokenizer(new, add_special_tokens=False)["input_ids"]
    rows = chain.transformer.get_input_embeddings().weight  # type: ignore[operator]
    means = torch.stack([rows[ids].mean(dim=0) for ids in pieces])
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in new])
    places = tokenizer.convert_tokens_to_ids(new)
    size: int = max(len(rows), max(places) + 1)
    chain.transformer.resize_token_embeddings(size, mean_resizing=False)  # type: ignore[operator]
    chain.transformer.get_input_embeddings().weight[places] = means  # type: ignore[operator]
    return size - int(min(places))


class Rows(nn.Module):
    """An embedding of which only the rows from `first` on are learnt.

    Stands in for the whole table during training: its gradient is as large as what is learnt, not as the vocabulary.
    """

    def __init__(self, table: nn.Embedding, first: int, dtype: torch.dtype) -> None:
        """`dtype`: of the rows that are not learnt."""
        super().__init__()
        weight = table.weight.detach()
        self.first = first
        self.known: torch.Tensor
        self.register_buffer("known", weight[:first].to(dtype, copy=True))
        self.added = nn.Parameter(weight[first:].clone())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        known = nn.functional.embedding(ids.clamp(max=self.first - 1), self.known)
        added = nn.functional.embedding((ids - self.first).clamp(min=0), self.added)
        return torch.where((ids >= self.first).unsqueeze(-1), added.to(known.dtype), known)
