"""Add names of a collection that the tokenizer does not know: code names, part numbers, names of substances.

As a token of its own such a word has a trainable row. The row starts as the mean of the rows of its pieces (Gee et al.,
"Fast Vocabulary Transfer for Language Model Compression", EMNLP 2022 industry track), so about where the model already
placed the word.
"""

import re
from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from service.embedder.training.trainable_model import TrainableModel

MIN_DOCUMENTS = 3
"""A word of fewer documents cannot be learned from them."""
MIN_EXTRA_PIECES = 2
"""Pieces of a split word beyond one for each of its parts: `well-known` has three parts and is not split."""
MAX_LOWERCASE_SHARE = 0.2
"""Share of its documents in which a name may be written in lower case."""
_MAX_LENGTH = 40
_WORD = re.compile(r"\w+(?:[-./_]\w+)*")
_PART = re.compile(r"\w+|[^\w\s]")


def unknown_names(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, most: int) -> list[str]:
    """At most `most` names that the tokenizer splits, those first that cost the most tokens in all documents together.

    A name contains a digit or is rarely written in lower case. Other words, however the tokenizer splits them, are
    language that the model has learned and would have to learn again. Names are normalized as by the tokenizer, so one
    that ignores case has one name for `Quillfeather` and `quillfeather`.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    normal: dict[str, str] = {}
    documents: Counter[str] = Counter()
    lowercase: Counter[str] = Counter()
    for text in texts:
        words = set(_WORD.findall(text))
        for word in words - normal.keys():
            normal[word] = normalizer.normalize_str(word) if normalizer else word
        documents.update({normal[word] for word in words})
        lowercase.update({normal[word] for word in words if word.islower()})
    names = [
        word
        for word, count in documents.items()
        if count >= MIN_DOCUMENTS
        and len(word) <= _MAX_LENGTH
        and any(map(str.isalpha, word))
        and (any(map(str.isdigit, word)) or lowercase[word] <= MAX_LOWERCASE_SHARE * count)
    ]
    if not names or most < 1:
        return []
    pieces = tokenizer(names, add_special_tokens=False)["input_ids"]
    saved = {
        word: (len(ids) - 1) * documents[word]
        for word, ids in zip(names, pieces, strict=True)
        if len(ids) - len(_PART.findall(word)) >= MIN_EXTRA_PIECES
    }
    return sorted(saved, key=lambda word: (-saved[word], word))[:most]


@torch.no_grad()
def add_tokens(chain: TrainableModel, words: list[str]) -> int:
    """Make each word a token with the mean of its pieces' rows, in place. Existing tokens are skipped.

    The number of new rows at the end of the embedding table.
    """
    tokenizer = chain.tokenizer
    new = [word for word in words if word not in tokenizer.get_vocab()]
    if not new:
        return 0
    pieces = tokenizer(new, add_special_tokens=False)["input_ids"]
    rows = chain.transformer.get_input_embeddings().weight  # type: ignore[operator]
    means = torch.stack([rows[ids].mean(dim=0) for ids in pieces])
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in new])
    ids = tokenizer.convert_tokens_to_ids(new)
    size: int = max(len(rows), max(ids) + 1)
    chain.transformer.resize_token_embeddings(size, mean_resizing=False)  # type: ignore[operator]
    chain.transformer.get_input_embeddings().weight[ids] = means  # type: ignore[operator]
    return size - int(min(ids))
