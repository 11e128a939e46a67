"""Everything that is measured of one sample of a space, and what a picture of it needs. Pure, and slow: seconds.

Time grows with the square of the rows; spectra and the map look at `SPECTRUM_ROWS` of them, so that neither thousands
of rows nor thousands of dimensions make a matrix whose eigenvalues take minutes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.diagnostics import geometry, lexical_similarity, neighbours
from service.diagnostics.neighbours import Counts, Floats, Indices, NearestNeighbours
from service.diagnostics.thresholds import GeometryMeasure, Name, assess, unknown

SPECTRUM_ROWS = 1_000
PAIRS = 200_000
"""Pairs of texts in the histogram of cosines."""
EDGES = tuple(round(-1 + 0.05 * at, 2) for at in range(41))
HUBS = 10
WORDS_ROWS = 300
"""Texts whose neighbours by words are looked at. Always about as many, for by chance fewer share more of theirs."""
LEAST_TEXTS = 50
"""Texts, or pieces of texts, that say something."""
NEAR = 0.99
"""Cosine of near duplicates."""
SAME = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometrySample:
    """What is examined. `rows`: [n, dimensions], of length 1; `documents[i]`: a number for the document of row i.

    `texts`: of the first rows, as far as they are known, with the numbers of their rows. `pieces`: the vectors of a few
    words of some rows' texts, [m, dimensions], and the rows that they are from. `lengths`: of vectors before they were
    brought to length 1. Reasons say why something is missing.
    """

    rows: Vectors
    documents: Indices
    texts: Sequence[str]
    text_rows: Indices
    pieces: Vectors
    piece_rows: Indices
    different: Sequence[tuple[int, int]]
    """Pairs of rows that lie within `NEAR` and whose texts are not the same; see `suspicious`."""
    lengths: Floats | None = None
    no_texts: str = "too few texts could be read"
    no_pieces: str = "too few texts have words enough to take some of"
    no_lengths: str = "what encodes does not tell them"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryPicture:
    """`hubs`: rows that most others are near to, with how often. `places`: of the first rows on a plane, [p, 2], which
    shows `shown` of the variance along each side."""

    cosines: npt.NDArray[np.int64]
    occurrences: tuple[tuple[int, ...], tuple[int, ...]]
    """Edges, and how many texts are between them as often near to others."""
    hubs: tuple[tuple[int, int], ...]
    antihubs: float
    places: Floats
    shown: tuple[float, float]
    middle: Floats
    directions: Floats
    """[d] and [2, d]: a vector less the middle, times the directions, is its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryMeasurements:
    measures: tuple[GeometryMeasure, ...]
    picture: GeometryPicture


def around(rows: Vectors, documents: Indices) -> NearestNeighbours:
    """The nearest rows of other documents: chunks of one document overlap, and are near for that alone.

    Of chunks of any document where there are too few to compare with.
    """
    return neighbours.neighbours(rows, groups=_apart(documents))


def _apart(documents: Indices) -> Indices | None:
    return documents if len(np.unique(documents)) >= LEAST_TEXTS else None


def suspicious(near: NearestNeighbours) -> list[tuple[int, int]]:
    """Pairs of rows whose texts should be compared: they lie at nearly the same place."""
    return neighbours.doubles(near, NEAR)


def measure_sample(subject: GeometrySample, near: NearestNeighbours) -> GeometryMeasurements:
    """`near`: of its rows, as `around` gives them. At least `geometry.LEAST_ROWS` rows."""
    rows = geometry.unit(subject.rows)
    counts = neighbours.occurrences(near)
    measures = (
        *_meaning(subject, near),
        *_cloud(rows),
        *_neighbours(subject, near, counts),
        *_doubles(subject),
        *_lengths(subject),
    )
    places, shown = geometry.plane(rows[:SPECTRUM_ROWS])
    middle, directions = geometry.directions(rows[:SPECTRUM_ROWS], places)
    chance = np.random.default_rng(0)
    picture = GeometryPicture(
        cosines=np.histogram(np.clip(geometry.cosines(rows, PAIRS, chance), -1.0, 1.0), EDGES)[0],
        occurrences=_histogram(counts),
        hubs=tuple((int(row), int(counts[row])) for row in np.argsort(-counts, kind="stable")[:HUBS]),
        antihubs=neighbours.antihubs(counts),
        places=places,
        shown=shown,
        middle=middle,
        directions=directions,
    )
    return GeometryMeasurements(measures=measures, picture=picture)


# ---------------------------------------------------------------- the measures


def _meaning(subject: GeometrySample, near: NearestNeighbours) -> Iterator[GeometryMeasure]:
    """Does a place have to do with what is said there?"""
    if len(subject.pieces) < LEAST_TEXTS:
        yield unknown("meaning", subject.no_pieces)
    else:
        cosines = subject.pieces @ subject.rows.T
        own = cosines[np.arange(len(cosines)), subject.piece_rows]
        others = subject.documents[None, :] != subject.documents[subject.piece_rows][:, None]
        kept = [(one, line[other]) for one, line, other in zip(own, cosines, others, strict=True) if other.any()]

        def of(chosen: npt.NDArray[np.intp]) -> float:
            return neighbours.separation(
                np.array([kept[at][0] for at in chosen]), np.concatenate([kept[at][1] for at in chosen])
            )

        everyone = np.arange(len(kept))
        chance = np.random.default_rng(0)
        drawn = [of(chance.integers(len(kept), size=len(kept))) for _ in range(_RESAMPLES)]
        yield assess("meaning", of(everyone), float(np.std(drawn, ddof=1)))
    chosen = subject.text_rows[:WORDS_ROWS]
    if len(chosen) < LEAST_TEXTS:
        yield unknown("words", subject.no_texts)
        return
    documents = subject.documents[chosen]
    by_words = around(lexical_similarity.rows_of(subject.texts[: len(chosen)]), documents)
    by_place = around(np.ascontiguousarray(subject.rows[chosen]), documents)
    by_chance = by_words.ids.shape[1] / (len(chosen) - 1)
    shares = (neighbours.overlap(by_words, by_place) - by_chance) / max(1e-9, 1 - by_chance)
    yield assess("words", float(shares.mean()), _standard_error(shares))


_RESAMPLES = 50


def _cloud(rows: Floats) -> Iterator[GeometryMeasure]:
    yield assess("mean_cosine", geometry.mean_cosine(rows), geometry.mean_cosine_error(rows))
    some = rows[:SPECTRUM_ROWS]
    values, errors = _spectrum(some), geometry.jackknife(some, _spectrum)
    names: tuple[Name, ...] = ("first_direction", "ten_directions", "effective_rank", "participation_ratio")
    for name, value, error in zip(names, values, errors, strict=True):
        share = min(1.0, len(some) / _ROOM) if name == "effective_rank" else 1.0
        yield assess(name, float(value), float(error), share)


_ROOM = 150
"""Rows from which on their number no longer keeps the effective rank down to where it would be watched."""


def _spectrum(rows: Floats) -> Floats:
    found = geometry.variances(rows)
    return np.array(
        [
            geometry.leading_share(found, 1),
            geometry.leading_share(found, 10),
            geometry.effective_rank(found),
            geometry.participation_ratio(found),
        ]
    )


def _neighbours(subject: GeometrySample, near: NearestNeighbours, counts: Counts) -> Iterator[GeometryMeasure]:
    ratios = neighbours.ratios(near)
    if len(ratios) < LEAST_TEXTS:
        yield unknown("intrinsic_dimension", "too few vectors lie apart")
    else:
        dimension = float(neighbours.intrinsic_dimension(ratios))
        error = neighbours.resampled(ratios, neighbours.intrinsic_dimension)
        yield assess("intrinsic_dimension", dimension, error)
    skewness = neighbours.skewness
    yield assess("hubness", float(skewness(counts)), neighbours.resampled(counts, skewness))
    yield assess("antihubs", neighbours.antihubs(counts), _standard_error((counts == 0).astype(np.float64)))
    moved = neighbours.overlap(near, around(neighbours.centred(subject.rows), subject.documents))
    yield assess("centring", float(moved.mean()), _standard_error(moved))


def _doubles(subject: GeometrySample) -> Iterator[GeometryMeasure]:
    for name, pairs in (
        ("duplicates", [pair for pair in subject.different if _cosine(subject, pair) > SAME]),
        ("near_duplicates", list(subject.different)),
    ):
        concerned = np.zeros(len(subject.rows))
        concerned[[row for pair in pairs for row in pair]] = 1.0
        chosen: Name = "duplicates" if name == "duplicates" else "near_duplicates"
        yield assess(chosen, float(concerned.mean()), _standard_error(concerned))


def _cosine(subject: GeometrySample, pair: tuple[int, int]) -> float:
    first, second = pair
    return float(subject.rows[first] @ subject.rows[second])


def _lengths(subject: GeometrySample) -> Iterator[GeometryMeasure]:
    if subject.lengths is None or len(subject.lengths) < 2:
        yield unknown("norms", subject.no_lengths)
        return
    spread = float(subject.lengths.std(ddof=1) / subject.lengths.mean())
    yield assess("norms", spread, spread / float(np.sqrt(2 * len(subject.lengths))))


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _histogram(counts: Counts) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of how often texts are near others, in steps that grow as Fibonacci's numbers do: hubs lie far out."""
    edges = [0, 1, 2]
    while edges[-1] <= counts.max(initial=0):
        edges.append(edges[-1] + edges[-2])
    return tuple(edges), tuple(int(one) for one in np.histogram(counts, edges)[0])
