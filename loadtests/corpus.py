"""A large corpus from a small real one, seeded: texts, queries, and vectors in the space of the default model.

Encoding 100,000 passages takes a quarter of an hour without a GPU, so only some are encoded: documentation strings of
the standard library, the anchors. Each document is a variation of one anchor: half its words are the anchor's, the
others follow the frequencies of the whole (which are Zipf's, as in any language), and its vector is the anchor's, moved
by the difference of two others, so that it stays where the model puts texts. Queries are real sentences, held out,
which the service encodes itself.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.cli import demo_corpus
from service.core.documents import Document
from service.core.ids import DocumentId, Vectors
from service.core.ports.embedder import Encoder
from service.embedder.models.batch_packing import pack

ANCHORS = 1_500
ANCHOR_WORDS = 120
STRAY = 0.6
"""How far a vector is moved off its anchor; two variations of one anchor then have a cosine of about 0.7."""
OWN_WORDS = 0.5
MEAN_WORDS, LEAST_WORDS, MOST_WORDS = 110, 20, 180

_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"[^.\n]+")

SELECTIVE = {"lot": 7}
"""A filter that one document in a hundred passes."""
BROAD = {"shelf": {"$lt": 3}}
"""A filter that three documents in ten pass, whatever they are about."""


@dataclass(frozen=True)
class Corpus:
    anchors: Sequence[Sequence[str]]
    """The words of each."""
    vectors: Vectors
    queries: Sequence[str]
    words: Sequence[str]
    frequencies: Sequence[float]

    def documents(
        self, count: int, seed: int, length: tuple[int, int, int] = (MEAN_WORDS, LEAST_WORDS, MOST_WORDS)
    ) -> Iterator[tuple[list[Document], Vectors]]:
        """Batches of documents and their vectors, [n, dimensions]. `length`: mean, least and most words of a text."""
        mean, least, most = length
        generator = np.random.default_rng(seed)
        words, cumulated = np.array(self.words, dtype=object), np.cumsum(self.frequencies)
        for start in range(0, count, 1_000):
            size = min(1_000, count - start)
            near, rows = variations(self.vectors, size, generator)
            lengths = np.clip(generator.lognormal(np.log(mean), 0.4, size), least, most).astype(int)
            batch = []
            for offset, (anchor, words_of_it) in enumerate(zip(near, lengths, strict=True)):
                number, own = start + offset, np.array(self.anchors[anchor], dtype=object)
                text = words[np.searchsorted(cumulated, generator.random(words_of_it) * cumulated[-1])]
                mine = generator.random(words_of_it) < OWN_WORDS
                text[mine] = own[generator.integers(len(own), size=int(mine.sum()))]
                metadata = {"lot": number % 100, "shelf": int(generator.integers(10)), "source": f"part-{number % 7}"}
                batch.append(Document(id=DocumentId(f"doc-{number:07d}"), text=" ".join(text), metadata=metadata))
            yield batch, rows


def variations(anchors: Vectors, count: int, generator: np.random.Generator) -> tuple[npt.NDArray[np.intp], Vectors]:
    """The anchors of so many documents, and their vectors."""
    near, plus, minus = generator.integers(len(anchors), size=(3, count))
    rows = anchors[near] + STRAY * (anchors[plus] - anchors[minus])
    return near, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def build(encoder: Encoder, queries: int, seed: int) -> Corpus:
    """Encode the anchors (some ten seconds on two cores)."""
    real = demo_corpus.documents()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(real))
    anchors = [_WORD.findall(real[at].text)[:ANCHOR_WORDS] for at in order[:ANCHORS]]
    texts = [" ".join(words) for words in anchors]
    vectors = np.zeros((len(texts), encoder.identity.dimensions), np.float32)
    for batch in pack(encoder.lengths(texts, "document"), encoder.batch_tokens):
        vectors[batch] = encoder.encode([texts[at] for at in batch], "document")
    held_out = (_sentence(real[at]) for at in order[ANCHORS:])
    asked = list(dict.fromkeys(sentence for sentence in held_out if 4 <= len(sentence.split()) <= 16))[:queries]
    words, counts = np.unique([word for one in real for word in _WORD.findall(one.text)], return_counts=True)
    return Corpus(anchors=anchors, vectors=vectors, queries=asked, words=list(words), frequencies=list(counts))


def _sentence(document: Document) -> str:
    """The first of the description, without the signature above it."""
    return next(iter(_SENTENCE.findall(document.text.rsplit("\n\n", 1)[-1])), "").strip()
