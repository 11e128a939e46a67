"""What a measure of a space means: the limits of its verdicts, and the advice. Pure.

The limits come from measurements with a sound model and with models broken on purpose, on the same collections
(docs/geometry.md); docs/decisions/0029 and 0065 say why these. A value is bad only where its 95 % interval lies beyond
the limit: guarded rejection (JCGM 106:2012, "The role of measurement uncertainty in conformity assessment"), because a
sound space that is blamed by chance costs an operator more than a broken one that is found a look later.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from service.core.verdict import VERDICTS, Verdict

GeometryMeasureName = Literal[
    "meaning", "words", "mean_cosine", "first_direction", "ten_directions", "effective_rank", "participation_ratio",
    "intrinsic_dimension", "hubness", "antihubs", "centring", "duplicates", "near_duplicates", "norms",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """`message` has a place for the value; `problem` and `advice` are added where it is bad.

    `limits`: of "watch" and "broken". Where they fall, small values are bad. None: the value is for information.
    """

    message: str
    problem: str = ""
    advice: str = ""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryMeasure:
    """A measure of a space, with its standard error and its meaning. `value` None: it could not be measured."""

    name: GeometryMeasureName
    value: float | None = None
    error: float | None = None
    verdict: Verdict | None = None
    watch: float | None
    broken: float | None
    message: str
    advice: str = ""


GUARD = 1.96
"""Standard errors between a bad value and its limit: what is sound is then called bad in at most 2.5 % of all looks."""
_MODEL = (
    "Compare with a model that is known to be sound (`azimuth reindex --embedder default`): check weights, pooling, "
    "prompts and tokenizer of this one."
)
THRESHOLDS: dict[GeometryMeasureName, Threshold] = {
    "meaning": Threshold(
        message="a few words of a text lie {value:.1f} deviations nearer to it than to other texts",
        problem="questions hardly lie nearer to what answers them than to anything else",
        advice=f"{_MODEL} Does it know the language of the documents?",
        limits=(3.7, 3.6),
    ),
    "words": Threshold(
        message="{value:.0%} of a text's nearest are near by their words too, beyond chance",
        problem="what is near has little to do with what the texts say",
        advice=f"{_MODEL} Does it know the language of the documents?",
        limits=(0.04, 0.02),
    ),
    "mean_cosine": Threshold(
        message="two random texts have a cosine of {value:.2f}",
        problem="all texts lie in a narrow cone: cosines tell little, and what all have in common decides",
        advice="Some models are trained into a cone (E5) and order well within it, as `meaning` and `centring` then "
        "show. If they do not, the pooling is not the one that the model was trained with.",
        limits=(0.6, 0.95),
    ),
    "first_direction": Threshold(
        message="the strongest direction holds {value:.0%} of the variance",
        problem="one direction decides what is near: a dimension out of scale, or two kinds of text that lie apart",
        advice="Look at the map: two clouds are two languages or sources, which need collections or a model of their "
        "own; one long cloud is a dimension out of scale, by weights that were damaged or converted badly.",
        limits=(0.35, 0.75),
    ),
    "ten_directions": Threshold(
        message="the ten strongest directions hold {value:.0%} of the variance",
        problem="few directions decide what is near",
        advice="Keep more dimensions, or take a model with more.",
        limits=(0.75, 0.97),
    ),
    "effective_rank": Threshold(
        message="the vectors use as many directions as if {value:.0f} were equally strong",
        problem="there are too few directions to tell texts apart",
        advice="Keep more dimensions (`dimensions` of the embedder), or take a model with more.",
        limits=(40.0, 12.0),
    ),
    "participation_ratio": Threshold(
        message="the variance is shared by {value:.0f} directions",
        problem="a few strong directions drown the others",
        advice="Look at `first_direction`: a dimension out of scale is damage; many texts of few kinds are not.",
        limits=(8.0, 2.5),
    ),
    "intrinsic_dimension": Threshold(
        message="near a text the space has {value:.0f} dimensions",
        problem="as in noise, where every text is equally far from every other",
        advice="Look at `meaning`: noise has none. A hashed or quantised space is rough, and may still do.",
        limits=(55.0, 70.0),
    ),
    "hubness": Threshold(
        message="how often texts are among the ten nearest of others is skewed by {value:.1f}",
        problem="a few texts are near everything, and will turn up in answers to all kinds of questions",
        advice="Look at the hubs: empty, very short or boilerplate documents should go; if they are ordinary texts, "
        "the model is at fault.",
        limits=(4.0, 12.0),
    ),
    "antihubs": Threshold(
        message="{value:.0%} of the texts are among the ten nearest of no other",
        problem="the dense leg hardly ever brings these up",
        advice="Search hybrid: the lexical leg finds them. See `hubness` for the other side of it.",
        limits=(0.25, 0.5),
    ),
    "centring": Threshold(
        message="{value:.0%} of the nearest stay when what all vectors have in common is taken away",
        problem="what all texts have in common, such as frequent words and length, decides what is near",
        advice="The pooling is not the one that the model was trained with, or it was never trained to compare texts.",
        limits=(0.65, 0.3),
    ),
    "duplicates": Threshold(
        message="{value:.1%} of the texts share their vector with a different text",
        problem="different texts are one to the model: it reads only their beginning, or does not know their letters",
        advice="Look whether the texts begin alike, and whether the tokenizer knows their script; cut shorter chunks.",
        limits=(0.05, 0.5),
    ),
    "near_duplicates": Threshold(
        message="{value:.1%} of the texts have a cosine above 0.99 with a different text",
        problem="the model hardly tells them apart: templates, or vectors that collapsed",
        advice="If they are templates, put what differs first or leave out what does not; `diversity` thins them out.",
        limits=(0.2, 0.6),
    ),
    "norms": Threshold(message="lengths before normalisation vary by {value:.0%}"),
}


def assess_measure(
    name: GeometryMeasureName, value: float, error: float | None, scale: float = 1.0, *, harmless: bool = False
) -> GeometryMeasure:
    """The measure in words. `scale` shrinks the limits, where a sample is too small for the value to become larger.

    `error` None or NaN: not known, and taken for 0. `harmless`: other measures show that what would be "watch" does no
    harm.
    """
    threshold = THRESHOLDS[name]
    message, verdict = threshold.message.format(value=value), VERDICTS[0]
    watch, broken = (None, None) if threshold.limits is None else (limit * scale for limit in threshold.limits)
    if watch is not None and broken is not None:
        sign = 1.0 if broken > watch else -1.0
        guard = GUARD * (error if error is not None and error == error else 0.0)
        verdict = VERDICTS[sum(sign * value - guard > sign * limit for limit in (watch, broken))]
        verdict = VERDICTS[0] if harmless and verdict == "watch" else verdict
    measure = partial(GeometryMeasure, name=name, value=value, error=error, verdict=verdict, watch=watch, broken=broken)
    if verdict == "healthy":
        return measure(message=message)
    return measure(message=f"{message}: {threshold.problem}", advice=threshold.advice)


def not_measured(name: GeometryMeasureName, reason: str) -> GeometryMeasure:
    watch, broken = THRESHOLDS[name].limits or (None, None)
    return GeometryMeasure(name=name, watch=watch, broken=broken, message=f"not measured: {reason}")
