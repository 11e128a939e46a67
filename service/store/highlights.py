"""Where a passage says what the query asked: the fragment with the most and rarest of its terms, as safe HTML."""

import html

import tantivy

from service.store.analyzer import normalised

FRAGMENT_LENGTH = 200
"""Longest fragment, in characters."""


class Highlighter:
    """Fragments of any passage for one query; the analyzer is the one of the index field."""

    def __init__(self, searcher: tantivy.Searcher, query: tantivy.Query, schema: tantivy.Schema, field: str) -> None:
        self._field = field
        self._snippets = tantivy.SnippetGenerator.create(searcher, query, schema, field)
        self._snippets.set_max_num_chars(FRAGMENT_LENGTH)

    def fragments(self, passage: str) -> tuple[str, ...]:
        """The best fragment, its matches in <mark> and all else escaped; nothing where nothing matches."""
        document = tantivy.Document()
        document.add_text(self._field, normalised(passage))
        snippet = self._snippets.snippet_from_doc(document)
        spans = [(span.start, span.end) for span in snippet.highlighted()]
        return (marked(snippet.fragment(), spans),) if spans else ()


def marked(fragment: str, spans: list[tuple[int, int]]) -> str:
    """HTML of a fragment. `spans` are offsets into its UTF-8 bytes; n-grams make them overlap."""
    raw = fragment.encode()
    parts: list[str] = []
    done = 0
    for start, end in _joined(spans):
        parts += [_escaped(raw[done:start]), "<mark>", _escaped(raw[start:end]), "</mark>"]
        done = end
    return "".join([*parts, _escaped(raw[done:])])


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _escaped(raw: bytes) -> str:
    return html.escape(raw.decode())
