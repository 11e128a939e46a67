"""Texts as tokens of a model: read as far as the model reads them, counted, or located."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import FixedLength

CHARACTERS_PER_TOKEN = 8
"""Twice of what prose has, so that the first cut of a text nearly always leaves enough tokens."""
UNSETTLED = 512
"""Characters before a cut whose tokens may depend on what was cut: more than any tokenizer's longest word."""

_GROWTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A text, or a pair of texts, as a model reads it. `cut`: its end is missing. In compact form, since many wait."""

    ids: npt.NDArray[np.int32]
    type_ids: npt.NDArray[np.int8]
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Private copies of a tokenizer, one of which truncates. Safe to use from several threads at once.

    transformers changes the settings of its own tokenizer in every call, which two threads cannot do at once. The
    copies share their vocabulary: one of 250,000 pieces takes 280 MB.
    """

    def __init__(self, original: str | Tokenizer, max_tokens: int, *, special: bool = True, **truncation: str) -> None:
        """`original`: may be serialized. `special`: whether the model reads special tokens. `truncation`: see
        `Tokenizer.enable_truncation`."""
        self._whole = _copy(original if isinstance(original, Tokenizer) else Tokenizer.from_str(original))
        self._cutting = _copy(self._whole)
        _cut_long_words(self._cutting)
        self._truncating = _copy(self._whole)
        self._truncating.enable_truncation(max_tokens, **truncation)
        self._special = special
        self._unread = _without_effect(self._whole)
        # A model that reads the end of a text needs all of it: no other cut is certain to give the same tokens.
        reads_end = truncation.get("direction") == "left"
        self._first_cut = 2**62 if reads_end else CHARACTERS_PER_TOKEN * max_tokens + UNSETTLED
        self.pair_overhead = self._whole.num_special_tokens_to_add(is_pair=True)

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """The tokens of each text as [n, 2] offsets, without special tokens and without truncation.

        A word that is too long for the model has offsets within, so that it can be split (`break_long_words`).
        """
        encodings = self._cutting.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without truncation, special ones included."""
        encodings = self._whole.encode_batch_fast(list(texts), add_special_tokens=self._special)
        return [len(encoding) for encoding in encodings]

    def count(self, text: str, most: int) -> int:
        """The tokens that `offsets` would give, at most `most` of them. Reads no more of the text than it needs."""
        end = self._first_cut
        while True:
            (offsets,) = self.offsets([text[:end]])
            settled = len(offsets) if len(text) <= end else int(np.sum(offsets[:, 1] <= end - UNSETTLED))
            if settled >= most or len(text) <= end:
                return min(settled, most)
            end *= _GROWTH

    def read(self, texts: Sequence[str | tuple[str, str]]) -> list[Tokens]:
        """The tokens of each text, or pair of texts, as the model reads them.

        They are those that the tokenizer truncates the whole text to, but of a long text, or second text of a pair, it
        gets only as much of the beginning as is needed: a cut cannot change tokens that end well before it.
        """
        short = [at for at, text in enumerate(texts) if len(_last(text)) <= self._first_cut]
        encodings = self._truncating.encode_batch_fast([texts[at] for at in short], add_special_tokens=self._special)
        read = {at: _tokens(one, bool(one.overflowing)) for at, one in zip(short, encodings, strict=True)}
        return [read[at] if at in read else self._read_long(text) for at, text in enumerate(texts)]

    def _read_long(self, text: str | tuple[str, str]) -> Tokens:
        end = self._first_cut
        while True:
            whole = len(_last(text)) <= end
            (encoding,) = self._truncating.encode_batch([_cut(text, end)], add_special_tokens=self._special)
            if whole or (encoding.overflowing and _last_offset(encoding, text) <= end - UNSETTLED):
                return _tokens(encoding, bool(encoding.overflowing))
            if end == self._first_cut and self._unread is not None:
                shorter = self._unread.sub(r"\1\2", _last(text))
                text = shorter if isinstance(text, str) else (text[0], shorter)
            end *= _GROWTH


def _last(text: str | tuple[str, str]) -> str:
    return text if isinstance(text, str) else text[1]


def _cut(text: str | tuple[str, str], end: int) -> str | tuple[str, str]:
    return text[:end] if isinstance(text, str) else (text[0], text[1][:end])


def _last_offset(encoding: Encoding, text: str | tuple[str, str]) -> int:
    """Where the tokens of the text, or of the second text of a pair, end."""
    sequence = 0 if isinstance(text, str) else 1
    places = zip(encoding.offsets, encoding.sequence_ids, strict=True)
    return max((end for (_, end), place in places if place == sequence), default=0)


def _tokens(encoding: Encoding, cut: bool) -> Tokens:
    return Tokens(np.array(encoding.ids, dtype=np.int32), np.array(encoding.type_ids, dtype=np.int8), cut)


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """It has the vocabulary of the original, and neither truncates nor pads."""
    copy = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (found := getattr(tokenizer, part)) is not None:
            setattr(copy, part, found)
    added = tokenizer.get_added_tokens_decoder()
    copy.add_tokens([added[number] for number in sorted(added)])
    if copy.get_added_tokens_decoder().keys() != added.keys():  # their numbers have gaps, which adding them cannot give
        copy = Tokenizer.from_str(tokenizer.to_str())
        copy.no_truncation()
        copy.no_padding()
    return copy


def _cut_long_words(tokenizer: Tokenizer) -> None:
    """Let WordPiece cut runs without spaces: it takes a word of over 100 characters for one unknown token."""
    if isinstance(tokenizer.model, WordPiece):
        longest: int = tokenizer.model.max_input_chars_per_word
        cut = [one for one in (tokenizer.pre_tokenizer, FixedLength(longest)) if one is not None]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)


def _without_effect(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """What BERT's tokenizer does not read: more of a word that is unknown for its length, and blanks after a blank.

    Megabytes of either would otherwise be tokenized for nothing. The groups are what has to stay.
    """
    bert = isinstance(tokenizer.normalizer, normalizers.BertNormalizer) and isinstance(tokenizer.model, WordPiece)
    if not bert or not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer):
        return None
    unknown = tokenizer.model.max_input_chars_per_word + 1
    return re.compile(rf"([A-Za-z0-9]{{{unknown}}})[A-Za-z0-9]+|([ \t\r\n])[ \t\r\n]+")
