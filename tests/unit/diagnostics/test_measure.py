"""Embedders broken on purpose are found, a sound one is not: spaces made of what little texts are about."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from service.core.ids import Vectors
from service.diagnostics import lexical_similarity, neighbours
from service.diagnostics.measure import (
    COSINE_EDGES,
    LEXICAL_ROWS,
    GeometryMeasurements,
    GeometrySample,
    document_neighbours,
    measure_sample,
    near_duplicate_pairs,
)
from service.diagnostics.thresholds import GeometryMeasure
from tests.unit_vectors import unit

pytestmark = pytest.mark.slow

SUBJECTS, EACH, DIMENSIONS = 60, 5, 128
CHANCE = np.random.default_rng(11)
WORDS = [[f"w{subject}x{number}" for number in range(80)] for subject in range(SUBJECTS)]
COMMON = [f"common{number}" for number in range(40)]


def written(subjects: int, each: int, words: int, common: int = 8) -> list[str]:
    """Texts of some words of their subject and some that all have, in random order."""
    return [
        " ".join(CHANCE.permutation([*CHANCE.choice(own, words, replace=False), *CHANCE.choice(COMMON, common)]))
        for own in WORDS[:subjects]
        for _ in range(each)
    ]


TEXTS = written(SUBJECTS, EACH, 14)
PIECES = lexical_similarity.sample_excerpts(TEXTS, 200)
ROOTS = CHANCE.normal(size=(24, DIMENSIONS))
PLACES: dict[str, np.ndarray] = {
    word: root + CHANCE.normal(size=DIMENSIONS)
    for own in WORDS
    for root in [1.2 * CHANCE.normal(size=24) @ ROOTS / np.sqrt(24) + 0.8 * CHANCE.normal(size=DIMENSIONS)]
    for word in own
}

Embedder = Callable[[Sequence[str]], np.ndarray]


def sound(texts: Sequence[str]) -> np.ndarray:
    """The mean of the places of the words that say something."""
    return np.stack([np.mean([PLACES[word] for word in text.split() if word in PLACES], axis=0) for text in texts])


def noise(length: float) -> Embedder:
    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).normal(size=DIMENSIONS) for text in texts]
        moved: np.ndarray = np.eye(DIMENSIONS)[0] + length * unit(np.stack(rows))
        return moved

    return embed


def sample(rows: Vectors, texts: Sequence[str] = TEXTS, **fields: Any) -> GeometrySample:
    """Without excerpts and near duplicates, unless they are given."""
    known: dict[str, Any] = {
        "documents": np.arange(len(rows)),
        "texts": texts[:LEXICAL_ROWS],
        "text_rows": np.arange(min(len(texts), LEXICAL_ROWS)),
        "excerpts": np.zeros((0, DIMENSIONS), np.float32),
        "excerpt_rows": np.zeros(0, np.intp),
        "different": [],
    }
    return GeometrySample(rows=rows, **{**known, **fields})


def excerpts(embed: Embedder, pieces: Sequence[lexical_similarity.Excerpt] = PIECES) -> dict[str, Any]:
    return {
        "excerpts": unit(embed([piece.text for piece in pieces])),
        "excerpt_rows": np.array([piece.source for piece in pieces]),
    }


def found(embed: Embedder, texts: Sequence[str] = TEXTS) -> GeometryMeasurements:
    rows = unit(embed(texts))
    near = neighbours.nearest_neighbours(rows)
    different = [(a, b) for a, b in near_duplicate_pairs(near) if texts[a] != texts[b]]
    pieces = PIECES if texts is TEXTS else lexical_similarity.sample_excerpts(texts, 200)
    return measure_sample(sample(rows, texts, different=different, **excerpts(embed, pieces)), near)


def measures(findings: GeometryMeasurements) -> dict[str, GeometryMeasure]:
    return {one.name: one for one in findings.measures}


CHANCE_PLANE = np.random.default_rng(3).normal(size=(DIMENSIONS, 3)) @ np.eye(3, DIMENSIONS)
BROKEN: dict[str, tuple[Embedder, str]] = {
    "a constant and a little noise": (noise(0.1), "mean_cosine"),
    "a constant and noise": (noise(0.5), "meaning"),
    "noise alone": (noise(100.0), "meaning"),
    "eight dimensions": (lambda texts: sound(texts)[:, :8], "effective_rank"),
    "one dimension out of scale": (lambda texts: sound(texts) * np.where(np.arange(DIMENSIONS), 1, 60), "meaning"),
    "questions and texts in spaces of their own": (
        lambda texts: sound(texts) if len(texts) == len(TEXTS) else np.roll(sound(texts), 1, axis=1),
        "meaning",
    ),
    "the order of texts lost": (lambda texts: np.roll(sound(texts), len(texts) // 3, axis=0), "meaning"),
    "mostly what all texts share": (lambda texts: 0.1 * unit(sound(texts)) + noise(0.3)(texts), "meaning"),
    "three directions": (lambda texts: sound(texts) @ CHANCE_PLANE, "effective_rank"),
    "a few points": (lambda texts: sound([TEXTS[len(text) % 5] for text in texts]), "duplicates"),
}


def test_a_sound_space_is_healthy() -> None:
    findings = found(sound)
    trouble = [(one.name, one.value, one.verdict) for one in findings.measures if one.verdict not in ("healthy", None)]
    assert trouble == []
    assert findings.verdict == "healthy"


SOUND = {  # subjects, texts of each, words of the subject and of all in each text
    "few texts": (30, 2, 14, 8),
    "many subjects": (60, 2, 14, 8),
    "few subjects": (40, 4, 12, 8),
    "short passages": (60, 5, 8, 3),
    "long passages": (60, 4, 20, 12),
    "little in common": (60, 5, 14, 0),
    "much in common": (60, 5, 16, 20),
    "a large collection": (60, 10, 14, 8),
}


@pytest.mark.parametrize("size", SOUND.values(), ids=SOUND)
def test_sound_collections_of_many_kinds_are_healthy(size: tuple[int, int, int, int]) -> None:
    findings = found(sound, written(*size))
    assert [(one.name, one.value, one.error) for one in findings.measures if one.verdict not in ("healthy", None)] == []


def test_a_cone_is_sound_where_texts_are_in_order_within_it() -> None:
    def cone(texts: Sequence[str]) -> np.ndarray:
        return unit(np.hstack([unit(sound(texts)), np.full((len(texts), 1), 2.0)]))

    rows = cone(TEXTS)
    near = neighbours.nearest_neighbours(rows)
    asked, unasked = (measure_sample(sample(rows, **given), near) for given in (excerpts(cone), {}))
    assert measures(asked)["mean_cosine"].value == pytest.approx(0.8, abs=0.01)
    assert asked.verdict == "healthy"
    assert measures(unasked)["mean_cosine"].verdict == "watch", "nothing shows that it does no harm"


@pytest.mark.parametrize(("embed", "name"), BROKEN.values(), ids=BROKEN)
def test_a_broken_space_is_detected(embed: Embedder, name: str) -> None:
    findings = found(embed)
    assert findings.verdict == "broken"
    assert measures(findings)[name].verdict == "broken", {one.name: one.value for one in findings.measures}


def test_every_measure_has_its_error() -> None:
    for one in found(sound).measures:
        if one.value is not None:
            assert one.error is not None
            assert 0 <= one.error < 0.2 * abs(one.value) + 0.1, one


def test_errors_match_the_difference_of_two_halves() -> None:
    """Two halves of the texts differ by about what is told."""
    first, second = (measures(found_without_excerpts(half)) for half in (TEXTS[::2], TEXTS[1::2]))
    for name in ("mean_cosine", "words", "centring", "antihubs"):
        values, errors = np.array([(half[name].value, half[name].error) for half in (first, second)], np.float64).T
        assert abs(values[0] - values[1]) < 5 * np.hypot(*errors) + 1e-3, name


def found_without_excerpts(texts: Sequence[str]) -> GeometryMeasurements:
    rows = unit(sound(texts))
    missing = {"no_excerpts": "the client makes the vectors", "norms": np.array([1.0, 3.0])}
    return measure_sample(sample(rows, texts, **missing), neighbours.nearest_neighbours(rows))


def test_missing_inputs_are_named_and_the_rest_is_judged() -> None:
    known = measures(found_without_excerpts(TEXTS))
    assert known["meaning"].message == "not measured: the client makes the vectors"
    assert known["norms"].value == pytest.approx(np.sqrt(2) / 2)
    assert known["words"].verdict == "healthy"


def test_a_text_is_not_compared_with_chunks_of_its_own_document() -> None:
    """Neighbouring chunks of one document overlap: that they are as near as the text itself is no fault."""
    rows = unit(sound(TEXTS))
    twice = np.concatenate([rows, rows])
    near = neighbours.nearest_neighbours(twice)

    def meaning(documents: np.ndarray) -> float:
        findings = measure_sample(sample(twice, documents=documents, **excerpts(sound)), near)
        return measures(findings)["meaning"].value or 0.0

    known = np.tile(np.arange(len(TEXTS)), 2)
    assert meaning(known) == pytest.approx(measures(found(sound))["meaning"].value or 0.0, rel=1e-3)
    assert meaning(np.arange(2 * len(TEXTS))) < meaning(known)


def test_chunks_of_one_document_are_not_neighbours() -> None:
    """They overlap: a space of pairs that touch would seem to have no dimension, and every second one a double."""
    rows = np.repeat(unit(sound(TEXTS)), 2, axis=0)
    touching = unit(rows + 0.05 * np.random.default_rng(1).normal(size=rows.shape) / 11)
    near = document_neighbours(touching, np.arange(len(touching)) // 2)
    assert near_duplicate_pairs(near) == []
    assert (near.ids // 2 != np.arange(len(touching))[:, None] // 2).all()
    ratios, of_any = map(neighbours.distance_ratios, (near, neighbours.nearest_neighbours(touching)))
    assert neighbours.intrinsic_dimension(of_any) < 5 < 10 < neighbours.intrinsic_dimension(ratios)


def test_chunks_of_few_documents_are_all_compared() -> None:
    rows = unit(sound(TEXTS[:60]))
    near = document_neighbours(rows, np.arange(60) // 20)
    np.testing.assert_array_equal(near.ids, neighbours.nearest_neighbours(rows).ids)


def test_the_picture_agrees_with_the_measures() -> None:
    findings = found(sound)
    picture = findings.picture
    assert picture.cosines.sum() == 200_000
    middles = (np.array(COSINE_EDGES[1:]) + np.array(COSINE_EDGES[:-1])) / 2
    mean = measures(findings)["mean_cosine"].value
    assert float(picture.cosines @ middles / picture.cosines.sum()) == pytest.approx(mean, abs=0.01)
    edges, counts = picture.occurrences
    assert sum(counts) == len(TEXTS)
    assert len(edges) == len(counts) + 1
    hubs = [count for _, count in picture.hubs]
    assert hubs == sorted(hubs, reverse=True)
    assert hubs[0] < edges[-1]
    assert picture.plane.coordinates.shape == (len(TEXTS), 2)
    assert 0 < picture.plane.variance_shares[1] <= picture.plane.variance_shares[0] < 1
