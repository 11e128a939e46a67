"""What a figure of a space means: from where on it is to be watched, from where on it is broken, and what to do.

Pure. The limits come from measurements with a sound model and with models broken on purpose, on the same collections
(docs/geometry.md); docs/decisions/0029 says why these. A verdict is taken on the figure itself: its error stands
beside, for a reader who sees it near a limit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from service.core.verdict import VERDICTS, Verdict

Name = Literal[
    "meaning",
    "words",
    "mean_cosine",
    "first_direction",
    "ten_directions",
    "effective_rank",
    "participation_ratio",
    "intrinsic_dimension",
    "hubness",
    "antihubs",
    "centring",
    "duplicates",
    "near_duplicates",
    "norms",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """`lower`: small figures are the bad ones. `says` has a place for the figure; `trouble` follows it where it is bad.

    A limit of None is never reached: the figure is for information, or no sound model is on the other side of it.
    """

    says: str
    trouble: str
    do: str
    watch: float | None
    broken: float | None
    lower: bool = False

    def verdict(self, value: float, share: float = 1.0) -> Verdict:
        """`share` shrinks the limits, where a sample is too small for the figure to become larger."""
        for limit, found in ((self.broken, VERDICTS[2]), (self.watch, VERDICTS[1])):
            if limit is not None and (value < limit * share if self.lower else value > limit * share):
                return found
        return VERDICTS[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryMeasure:
    """One figure of a space, with its standard error and what it means. `value` None: it could not be measured."""

    name: Name
    value: float | None
    error: float | None
    verdict: Verdict | None
    watch: float | None
    broken: float | None
    says: str
    do: str


_MODEL = (
    "Compare with a model that is known to be sound (`azimuth reindex --embedder default`): check weights, pooling, "
    "prompts and tokenizer of this one."
)
THRESHOLDS: dict[Name, Threshold] = {
    "meaning": Threshold(
        says="a few words of a text lie {value:.1f} deviations nearer to it than to other texts",
        trouble="questions hardly lie nearer to what answers them than to anything else",
        do=f"{_MODEL} Does it know the language of the documents?",
        watch=3.8,
        broken=3.3,
        lower=True,
    ),
    "words": Threshold(
        says="{value:.0%} of a text's nearest are near by their words too, beyond chance",
        trouble="what is near has little to do with what the texts say",
        do=f"{_MODEL} Does it know the language of the documents?",
        watch=0.12,
        broken=0.05,
        lower=True,
    ),
    "mean_cosine": Threshold(
        says="two random texts have a cosine of {value:.2f}",
        trouble="all texts lie in a narrow cone: cosines tell little, and what all have in common decides",
        do="Some models are trained into a cone (E5) and order well within it: look at `meaning` and `hubness`. If "
        "those are bad too, the pooling is not the one that the model was trained with.",
        watch=0.6,
        broken=0.95,
    ),
    "first_direction": Threshold(
        says="the strongest direction holds {value:.0%} of the variance",
        trouble="one direction decides what is near: a dimension out of scale, or two kinds of text that lie apart",
        do="Look at the map: two clouds are two languages or sources, which want collections or a model of their own; "
        "one long cloud is a dimension out of scale, by weights that were damaged or converted badly.",
        watch=0.35,
        broken=0.75,
    ),
    "ten_directions": Threshold(
        says="the ten strongest directions hold {value:.0%} of the variance",
        trouble="few directions decide what is near",
        do="Keep more dimensions, or take a model with more.",
        watch=0.75,
        broken=0.97,
    ),
    "effective_rank": Threshold(
        says="the vectors use as many directions as if {value:.0f} were equally strong",
        trouble="there are too few directions to tell texts apart",
        do="Keep more dimensions (`dimensions` of the embedder), or take a model with more.",
        watch=40.0,
        broken=12.0,
        lower=True,
    ),
    "participation_ratio": Threshold(
        says="the variance is shared by {value:.0f} directions",
        trouble="a few strong directions drown the others",
        do="Look at `first_direction`: a dimension out of scale is damage; many texts of few kinds are not.",
        watch=8.0,
        broken=2.5,
        lower=True,
    ),
    "intrinsic_dimension": Threshold(
        says="near a text the space has {value:.0f} dimensions",
        trouble="as in noise, where every text is equally far from every other",
        do="Look at `meaning`: noise has none. A hashed or quantised space is rough, and may still do.",
        watch=45.0,
        broken=70.0,
    ),
    "hubness": Threshold(
        says="how often texts are among the ten nearest of others is skewed by {value:.1f}",
        trouble="a few texts are near everything, and will turn up in answers to all kinds of questions",
        do="Look at the hubs: empty, very short or boilerplate documents should go; if they are ordinary texts, the "
        "model is at fault.",
        watch=4.0,
        broken=12.0,
    ),
    "antihubs": Threshold(
        says="{value:.0%} of the texts are among the ten nearest of no other",
        trouble="the dense leg hardly ever brings these up",
        do="Search hybrid: the lexical leg finds them. See `hubness` for the other side of it.",
        watch=0.25,
        broken=0.5,
    ),
    "centring": Threshold(
        says="{value:.0%} of the nearest stay when what all vectors have in common is taken away",
        trouble="what all texts have in common, such as frequent words and length, decides what is near",
        do="The pooling is not the one that the model was trained with, or it was never trained to compare texts.",
        watch=0.65,
        broken=0.3,
        lower=True,
    ),
    "duplicates": Threshold(
        says="{value:.1%} of the texts share their vector with a different text",
        trouble="different texts are one to the model: it reads only their beginning, or does not know their letters",
        do="Look whether the texts begin alike, and whether the tokenizer knows their script; cut shorter chunks.",
        watch=0.05,
        broken=0.5,
    ),
    "near_duplicates": Threshold(
        says="{value:.1%} of the texts have a cosine above 0.99 with a different text",
        trouble="the model hardly tells them apart: templates, or vectors that collapsed",
        do="If they are templates, put what differs first or leave out what does not; `diversity` thins them out.",
        watch=0.2,
        broken=0.6,
    ),
    "norms": Threshold(
        says="lengths before normalisation vary by {value:.0%}",
        trouble="",
        do="",
        watch=None,
        broken=None,
    ),
}


def assess(name: Name, value: float, error: float | None, share: float = 1.0) -> GeometryMeasure:
    """In words. `share`: as `Threshold.verdict`."""
    symptom = THRESHOLDS[name]
    verdict = symptom.verdict(value, share)
    said = symptom.says.format(value=value)
    return GeometryMeasure(
        name=name,
        value=value,
        error=error,
        verdict=verdict,
        watch=None if symptom.watch is None else symptom.watch * share,
        broken=None if symptom.broken is None else symptom.broken * share,
        says=said if verdict == "healthy" else f"{said}: {symptom.trouble}",
        do="" if verdict == "healthy" else symptom.do,
    )


def unknown(name: Name, reason: str) -> GeometryMeasure:
    """Something that could not be measured, and why."""
    symptom = THRESHOLDS[name]
    return GeometryMeasure(
        name=name,
        value=None,
        error=None,
        verdict=None,
        watch=symptom.watch,
        broken=symptom.broken,
        says=f"not measured: {reason}",
        do="",
    )


def worst(measures: Iterable[GeometryMeasure]) -> Verdict | None:
    """The verdict on all of them together; None where nothing was measured."""
    found: Sequence[Verdict] = [one.verdict for one in measures if one.verdict is not None]
    return max(found, key=VERDICTS.index, default=None)
