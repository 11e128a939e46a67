"""All measures of one sample of a space, and what pictures of it need. Pure, and slow: seconds.

Time grows with the square of the rows. Spectra and the map use at most `SPECTRUM_ROWS` of them, so that neither
thousands of rows nor thousands of dimensions make a matrix whose eigenvalues take minutes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.core.vector_math import unit_rows
from service.core.verdict import VERDICTS, Verdict, worst_verdict
from service.diagnostics import geometry, lexical_similarity, neighbours
from service.diagnostics.neighbours import Counts, Floats, Indices, NearestNeighbours
from service.diagnostics.thresholds import GeometryMeasure, GeometryMeasureName, assess_measure, not_measured

SPECTRUM_ROWS = 1_000
PAIRS = 200_000
"""Pairs of texts in the histogram of cosines."""
COSINE_EDGES = tuple(round(-1 + 0.05 * at, 2) for at in range(41))
HUBS = 10
LEXICAL_ROWS = 300
"""Texts whose neighbours by words are compared. Always about as many, because fewer share more of theirs by chance."""
MIN_TEXTS = 50
"""Fewer texts, or excerpts of texts, say nothing."""
NEAR_DUPLICATE, DUPLICATE = 0.99, 1.0 - 1e-6
"""Cosines from which on two texts lie at nearly, or exactly, the same place."""
_RESAMPLES = 50
_FULL_RANK_ROWS = 150
"""With fewer rows their number keeps the effective rank below its limit, which is therefore lowered."""
_SPECTRUM_MEASURES: dict[GeometryMeasureName, Callable[[Floats], float]] = {
    "first_direction": partial(geometry.leading_variance_share, directions=1),
    "ten_directions": partial(geometry.leading_variance_share, directions=10),
    "effective_rank": geometry.effective_rank,
    "participation_ratio": geometry.participation_ratio,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometrySample:
    """What is measured. `rows`: [n, dimensions], of length 1; `documents[i]`: a number for the document of row i.

    `texts`: of the first rows, as far as they are known, with the numbers of their rows. `excerpts`: the vectors of a
    few words of some rows' texts, [m, dimensions], and the rows that they are from; `no_excerpts`: why there are none.
    `different`: the `near_duplicate_pairs` whose texts are not the same. `norms`: of vectors before normalisation.
    """

    rows: Vectors
    documents: Indices
    texts: Sequence[str]
    text_rows: Indices
    excerpts: Vectors
    excerpt_rows: Indices
    different: Sequence[tuple[int, int]]
    norms: Floats | None = None
    no_excerpts: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryPicture:
    """`cosines`: counts between `COSINE_EDGES`. `occurrences`: edges, and how many texts are between them as often near
    to others. `hubs`: the rows that most others are near to, with how often. `plane`: of the first rows."""

    cosines: npt.NDArray[np.int64]
    occurrences: tuple[tuple[int, ...], tuple[int, ...]]
    hubs: tuple[tuple[int, int], ...]
    antihubs: float
    plane: geometry.PlaneProjection


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryMeasurements:
    """What was measured of one sample."""

    measures: tuple[GeometryMeasure, ...]
    picture: GeometryPicture

    @property
    def verdict(self) -> Verdict | None:
        """On all of them together; None where nothing was measured."""
        return worst_verdict(one.verdict for one in self.measures)


def document_neighbours(rows: Vectors, documents: Indices) -> NearestNeighbours:
    """The nearest rows of other documents (chunks of one document overlap, and are near for that alone), or of any
    document where there are too few."""
    groups = documents if len(np.unique(documents)) >= MIN_TEXTS else None
    return neighbours.nearest_neighbours(rows, groups=groups)


def near_duplicate_pairs(near: NearestNeighbours) -> list[tuple[int, int]]:
    """Pairs of rows that lie at nearly the same place, so that their texts should be compared."""
    return neighbours.pairs_above(near, NEAR_DUPLICATE)


def measure_sample(sample: GeometrySample, near: NearestNeighbours) -> GeometryMeasurements:
    """`near`: of its rows, as `document_neighbours` gives them. At least `geometry.MIN_ROWS` rows."""
    rows = unit_rows(sample.rows.astype(np.float64))
    counts = neighbours.occurrences(near)
    meaning, of_neighbours = _query_separation(sample), tuple(_neighbour_measures(sample, near, counts))
    # A cone does no harm where texts are in order within it, and what they have in common decides nothing.
    ordered = all(
        one.verdict == VERDICTS[0] for one in (meaning, *of_neighbours) if one.name in ("meaning", "centring")
    )
    measures = (
        meaning,
        _lexical_agreement(sample),
        assess_measure("mean_cosine", geometry.mean_cosine(rows), geometry.mean_cosine_error(rows), harmless=ordered),
        *_spectrum_measures(rows),
        *of_neighbours,
        *_duplicate_measures(sample),
        _norm_spread(sample),
    )
    cosines = geometry.random_pair_cosines(rows, PAIRS, np.random.default_rng(0))
    picture = GeometryPicture(
        cosines=np.histogram(np.clip(cosines, -1.0, 1.0), COSINE_EDGES)[0],
        occurrences=_occurrence_histogram(counts),
        hubs=tuple((int(row), int(counts[row])) for row in np.argsort(-counts, kind="stable")[:HUBS]),
        antihubs=neighbours.antihubs(counts),
        plane=geometry.project_on_plane(rows[:SPECTRUM_ROWS]),
    )
    return GeometryMeasurements(measures=measures, picture=picture)


def _query_separation(sample: GeometrySample) -> GeometryMeasure:
    """Whether excerpts, as queries, lie nearer to their own text than to texts of other documents."""
    if len(sample.excerpts) < MIN_TEXTS:
        return not_measured("meaning", sample.no_excerpts or "too few texts have enough words to take an excerpt of")
    cosines = sample.excerpts @ sample.rows.T
    own = cosines[np.arange(len(cosines)), sample.excerpt_rows]
    others = sample.documents[None, :] != sample.documents[sample.excerpt_rows][:, None]
    kept = [(one, line[other]) for one, line, other in zip(own, cosines, others, strict=True) if other.any()]

    def separation(chosen: Indices) -> float:
        own_cosines, other_cosines = zip(*(kept[at] for at in chosen), strict=True)
        return neighbours.sensitivity_index(np.array(own_cosines), np.concatenate(other_cosines))

    random = np.random.default_rng(0)
    resampled = [separation(random.integers(len(kept), size=len(kept))) for _ in range(_RESAMPLES)]
    return assess_measure("meaning", separation(np.arange(len(kept))), float(np.std(resampled, ddof=1)))


def _lexical_agreement(sample: GeometrySample) -> GeometryMeasure:
    """The share of each text's neighbours that are neighbours by their words too, beyond chance."""
    chosen = sample.text_rows[:LEXICAL_ROWS]
    if len(chosen) < MIN_TEXTS:
        return not_measured("words", "too few texts could be read")
    documents = sample.documents[chosen]
    by_words = document_neighbours(lexical_similarity.tfidf_vectors(sample.texts[: len(chosen)]), documents)
    by_vector = document_neighbours(np.ascontiguousarray(sample.rows[chosen]), documents)
    by_chance = by_words.ids.shape[1] / (len(chosen) - 1)
    shares = (neighbours.neighbour_overlap(by_words, by_vector) - by_chance) / max(1e-9, 1 - by_chance)
    return _mean_measure("words", shares)


def _spectrum_measures(rows: Floats) -> Iterator[GeometryMeasure]:
    rows = rows[:SPECTRUM_ROWS]
    errors = geometry.jackknife_error(rows, _spectrum)
    for name, value, error in zip(_SPECTRUM_MEASURES, _spectrum(rows), errors, strict=True):
        scale = min(1.0, len(rows) / _FULL_RANK_ROWS) if name == "effective_rank" else 1.0
        yield assess_measure(name, float(value), float(error), scale)


def _spectrum(rows: Floats) -> Floats:
    variances = geometry.principal_variances(rows)
    return np.array([measure(variances) for measure in _SPECTRUM_MEASURES.values()])


def _neighbour_measures(sample: GeometrySample, near: NearestNeighbours, counts: Counts) -> Iterator[GeometryMeasure]:
    ratios, dimension, skewness = neighbours.distance_ratios(near), neighbours.intrinsic_dimension, neighbours.skewness
    if len(ratios) < MIN_TEXTS:
        yield not_measured("intrinsic_dimension", "too few vectors lie apart")
    else:
        yield assess_measure("intrinsic_dimension", dimension(ratios), neighbours.bootstrap_error(ratios, dimension))
    yield assess_measure("hubness", skewness(counts), neighbours.bootstrap_error(counts, skewness))
    yield _mean_measure("antihubs", counts == 0)
    centred = document_neighbours(neighbours.centred_directions(sample.rows), sample.documents)
    yield _mean_measure("centring", neighbours.neighbour_overlap(near, centred))


def _duplicate_measures(sample: GeometrySample) -> Iterator[GeometryMeasure]:
    pairs = np.array(sample.different, np.intp).reshape(-1, 2)
    equal = np.einsum("ij,ij->i", sample.rows[pairs[:, 0]], sample.rows[pairs[:, 1]]) > DUPLICATE
    rows = np.arange(len(sample.rows))
    yield _mean_measure("duplicates", np.isin(rows, pairs[equal]))
    yield _mean_measure("near_duplicates", np.isin(rows, pairs))


def _norm_spread(sample: GeometrySample) -> GeometryMeasure:
    if sample.norms is None or len(sample.norms) < 2:
        return not_measured("norms", "the encoder does not report them")
    spread = float(sample.norms.std(ddof=1) / sample.norms.mean())
    return assess_measure("norms", spread, spread / float(np.sqrt(2 * len(sample.norms))))


def _mean_measure(name: GeometryMeasureName, values: npt.NDArray[np.generic]) -> GeometryMeasure:
    """The mean over rows, with its standard error."""
    wide = values.astype(np.float64)
    error = float(wide.std(ddof=1) / np.sqrt(len(wide))) if len(wide) > 1 else 0.0
    return assess_measure(name, float(wide.mean()), error)


def _occurrence_histogram(counts: Counts) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Edges and counts. The steps grow as the Fibonacci numbers do, because hubs lie far out."""
    edges = [0, 1, 2]
    while edges[-1] <= counts.max(initial=0):
        edges.append(edges[-1] + edges[-2])
    return tuple(edges), tuple(int(one) for one in np.histogram(counts, edges)[0])
