"""Spaces as SVG, side by side: how near texts and questions are, how often texts are near others, a map. By hand, as
`diagram`: a library for plots would be a dependency for two pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, GAP, TOP, LABELS = 250, 120, 34, 58, 56
COLOURS = {"healthy": "#3a7d44", "watch": "#b8860b", "broken": "#c8553d"}


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """`cosines`: counts in bins from -1 to 1; so are `own` and `others`, of questions to their texts and to others.

    `occurrences`: edges, counts; `places`: [n, 2]; `shown`: of the variance.
    """

    name: str
    verdict: str
    cosines: npt.NDArray[np.int64]
    own: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]
    occurrences: tuple[Sequence[int], Sequence[int]]
    places: npt.NDArray[np.float64]
    shown: tuple[float, float]


def histograms(portraits: Sequence[Portrait]) -> str:
    """Cosines of random pairs; of questions, those to other texts in grey; how many texts are near how many others."""
    parts: list[str] = []
    for at, one in enumerate(portraits):
        left = GAP + at * (WIDTH + GAP)
        colour = COLOURS.get(one.verdict, "#4a4e69")
        parts += _title(one, left, colour)
        parts += _bars(one.cosines.tolist(), left, TOP, colour)
        parts += _labels(left, TOP, ["-1", "0", "1"], "cosine of two random texts")
        middle = TOP + HEIGHT + LABELS
        parts += _bars(one.others.tolist(), left, middle, "#bbb")
        parts += _bars(one.own.tolist(), left, middle, colour, opacity=0.7)
        parts += _labels(left, middle, ["-1", "0", "1"], "ten words to their text (grey: to others)")
        edges, counts = one.occurrences
        lower = middle + HEIGHT + LABELS
        parts += _bars(list(counts), left, lower, colour)
        marks = [str(edge) for edge in edges[:-1]]
        parts += _labels(
            left, lower, [marks[0], marks[len(marks) // 2], marks[-1]], "texts that have it among 10 nearest"
        )
    return _svg(len(portraits), TOP + 3 * (HEIGHT + LABELS), parts)


def maps(portraits: Sequence[Portrait]) -> str:
    """The two strongest principal directions of each space, each on a scale of its own."""
    parts: list[str] = []
    for at, one in enumerate(portraits):
        left = GAP + at * (WIDTH + GAP)
        colour = COLOURS.get(one.verdict, "#4a4e69")
        parts += _title(one, left, colour)
        parts.append(f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{WIDTH}" fill="none" stroke="#999"/>')
        low, high = one.places.min(axis=0), one.places.max(axis=0)
        scaled = (one.places - low) / np.where(high > low, high - low, 1.0)
        for x, y in scaled.tolist():
            place = f'cx="{left + 6 + x * (WIDTH - 12):.1f}" cy="{TOP + 6 + (1 - y) * (WIDTH - 12):.1f}"'
            parts.append(f'<circle {place} r="1.8" fill="{colour}" fill-opacity="0.55"/>')
        told = f"{sum(one.shown):.0%} of the variance"
        parts.append(f'<text x="{left + WIDTH / 2}" y="{TOP + WIDTH + 20}" text-anchor="middle">{told}</text>')
    return _svg(len(portraits), TOP + WIDTH + 40, parts)


def _svg(columns: int, height: int, parts: Iterable[str]) -> str:
    width = GAP + columns * (WIDTH + GAP)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _title(one: Portrait, left: float, colour: str) -> list[str]:
    return [
        f'<text x="{left}" y="26" font-size="14">{escape(one.name)}</text>',
        f'<text x="{left}" y="44" fill="{colour}">{escape(one.verdict)}</text>',
    ]


def _bars(counts: Sequence[int], left: float, top: float, colour: str, opacity: float = 1.0) -> list[str]:
    most, width = max(1, *counts), WIDTH / max(1, len(counts))
    bars = [
        f'<rect x="{left + at * width:.1f}" y="{top + HEIGHT * (1 - count / most):.1f}" width="{0.9 * width:.1f}" '
        f'height="{HEIGHT * count / most:.1f}" fill="{colour}" fill-opacity="{opacity}"><title>{count}</title></rect>'
        for at, count in enumerate(counts)
        if count
    ]
    return [*bars, f'<line x1="{left}" y1="{top + HEIGHT}" x2="{left + WIDTH}" y2="{top + HEIGHT}" stroke="#999"/>']


def _labels(left: float, top: float, marks: Sequence[str], name: str) -> list[str]:
    below = top + HEIGHT + 15
    first, middle, last = marks
    return [
        f'<text x="{left}" y="{below}">{first}</text>',
        f'<text x="{left + WIDTH / 2}" y="{below}" text-anchor="middle">{middle}</text>',
        f'<text x="{left + WIDTH}" y="{below}" text-anchor="end">{last}</text>',
        f'<text x="{left + WIDTH / 2}" y="{below + 16}" text-anchor="middle">{escape(name)}</text>',
    ]
