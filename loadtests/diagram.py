"""A reliability diagram as SVG, by hand: a library for plots would be a dependency for one picture."""

from collections.abc import Mapping, Sequence
from html import escape

from service.confidence.fit import Bin

SIZE, MARGIN, LEGEND = 360, 56, 300
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94", "#b8860b", "#4a4e69")
"""Told apart also without seeing red and green as different: by lightness, and by the legend's order."""
_SMALLEST, _LARGEST = 2.0, 6.0


def reliability_diagram(curves: Mapping[str, Sequence[Bin]], errors: Mapping[str, float]) -> str:
    """One line a collection: what was predicted against what came; the diagonal is perfect. Areas of bins are sizes."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE + 2 * MARGIN + LEGEND} {SIZE + 2 * MARGIN}" '
        'font-family="sans-serif" font-size="13" fill="#222">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_axes(),
    ]
    for at, (name, bins) in enumerate(curves.items()):
        colour = COLOURS[at % len(COLOURS)]
        points = " ".join(f"{_x(one.predicted):.1f},{_y(one.observed):.1f}" for one in bins)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        most = max((one.count for one in bins), default=1)
        for one in bins:
            radius = max(_SMALLEST, _LARGEST * (one.count / most) ** 0.5)
            parts.append(
                f'<circle cx="{_x(one.predicted):.1f}" cy="{_y(one.observed):.1f}" r="{radius:.1f}" fill="{colour}" '
                f'fill-opacity="0.7"><title>{one.count} questions: said {one.predicted:.3f}, '
                f"came {one.observed:.3f}</title></circle>"
            )
        line = MARGIN + 18 + 22 * at
        parts.append(f'<rect x="{SIZE + MARGIN + 24}" y="{line - 10}" width="12" height="12" fill="{colour}"/>')
        label = escape(f"{name}: ECE {errors[name]:.3f}")
        parts.append(f'<text x="{SIZE + MARGIN + 44}" y="{line}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _axes() -> list[str]:
    frame = f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#999"/>'
    diagonal = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#999" stroke-dasharray="4 4"/>'
    ticks = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        ticks.append(f'<text x="{_x(tick)}" y="{_y(0) + 18}" text-anchor="middle">{tick:g}</text>')
        ticks.append(f'<text x="{MARGIN - 8}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    middle = MARGIN + SIZE / 2
    names = [
        f'<text x="{middle}" y="{SIZE + 2 * MARGIN - 14}" text-anchor="middle">confidence.in_domain</text>',
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        "share of questions for the collection</text>",
    ]
    return [frame, diagonal, *ticks, *names]


def _x(value: float) -> float:
    return MARGIN + SIZE * value


def _y(value: float) -> float:
    return MARGIN + SIZE * (1 - value)
