"""How probable it is that the query of a search belongs to the collection: the version's calibration, applied.

No model runs for it: the best scores of the legs are the evidence.
"""

from dataclasses import replace

from service.core.search import Confidence
from service.search.candidates import CandidateSet
from service.search.context import SearchContext
from service.search.retrievers import best_score

MIN_CHUNKS = 50
"""Fewer chunks are no sample to calibrate with."""


def assess_confidence(context: SearchContext, candidates: CandidateSet) -> Confidence:
    """The highest confidence of all queries, None with a reason where it is unknown.

    `withheld` where the request demands more.
    """
    request, space = context.request, context.space
    required, calibration = request.min_confidence, space.version.calibration
    reason = _reason_unknown(context, candidates)
    if reason is None and calibration is not None:
        with context.timings.stage("confidence"):
            estimates = [
                calibration.estimate(cosine, found.coverage, found.vector)
                for found in candidates.queries
                if found.vector is not None and (cosine := best_score(found.dense_lists)) is not None
            ]
        if estimates:
            best = max(estimates, key=lambda estimate: estimate.in_domain or 0.0)
            if required is None or best.in_domain is None or best.in_domain >= required:
                return best
            below = f"in_domain is {best.in_domain:.3f}, below the min_confidence of {required:g}"
            return replace(best, withheld=True, reason=below)
        reason = "the dense leg found nothing"
    if required is not None:
        context.degrade("confidence", "untold", f"min_confidence was not applied: {reason}")
    return Confidence(in_domain=None, reason=reason)


def _reason_unknown(context: SearchContext, candidates: CandidateSet) -> str | None:
    request, space, version = context.request, context.space, context.space.version
    if version.spec.external:
        return "the client makes the vectors of this version: there is no model to calibrate with"
    if request.like is not None or request.image:
        return "a search by examples, or by an image, has no query in words"
    if request.mode == "lexical":
        return "lexical scores alone are no evidence: the dense leg is needed"
    if version.calibration is None:
        if space.status.rows < MIN_CHUNKS:
            return f"calibration needs {MIN_CHUNKS} chunks, and there are {space.status.rows}"
        return "not calibrated yet"
    if version.calibration.dense is None:
        return version.calibration.reason
    if all(one.dense is None for one in candidates.queries):
        return "the dense leg did not answer"
    return None
