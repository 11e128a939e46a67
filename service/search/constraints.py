"""What a query requires and excludes: read as its author meant it, applied to what every leg found, and reported."""

from contextlib import suppress
from dataclasses import replace

from service.core.errors import Unavailable
from service.core.ports.lexicon import Lexicon
from service.search.candidates import CandidateSet
from service.search.context import SearchContext


async def keep_hyphens(lexicon: Lexicon, context: SearchContext) -> None:
    """Read as words what looks like an exclusion but is written so in documents, too (`java -jar`)."""
    if context.request.parsed_query.excluded:
        text = " ; ".join(query.text for query in context.request.effective_queries)
        with suppress(Unavailable):  # then nothing can be excluded, and `apply_constraints` says so
            as_words = await lexicon.options(context.space.collection, text)
            context.request = replace(context.request, as_words=as_words)


async def apply_constraints(lexicon: Lexicon, context: SearchContext, candidates: CandidateSet) -> CandidateSet:
    """Without the documents that violate the constraints of the query, whichever leg found them."""
    query = context.request.parsed_query
    if not query.has_constraints:
        return candidates

    async def apply() -> CandidateSet:
        collection = context.space.collection
        context.unmatched_terms = await lexicon.unmatched_terms(collection, query)
        kept = await lexicon.matching_constraints(collection, query, candidates.documents)
        return candidates.within(kept, all_required=bool(query.required))

    hybrid = context.request.mode == "hybrid"
    return await context.run_stage("wishes", apply(), optional=hybrid, in_budget=False) or candidates


async def give_up_constraints(
    lexicon: Lexicon, context: SearchContext, candidates: CandidateSet, *, found: bool
) -> bool:
    """Read what is excluded or quoted as words, where it left no document; False where it did not.

    What is required with a plus sign stays required.
    """
    query = context.request.parsed_query
    dropped = (*(f"-{words}" for words in query.excluded), *query.quoted)
    if not dropped or (found and not await _excludes_every_match(lexicon, context, candidates)):
        return False
    context.request = replace(context.request, as_words=context.request.as_words.union(dropped))
    context.given_up = dropped
    return True


async def _excludes_every_match(lexicon: Lexicon, context: SearchContext, candidates: CandidateSet) -> bool:
    """Whether documents have words of the query, and each of them is excluded: what is left has none.

    A filter may be the reason, too: then this is False.
    """
    query = context.request.parsed_query
    ran = [one.lexical for one in candidates.queries if one.lexical is not None]
    if not query.excluded or context.request.where is not None or not ran or any(leg.candidates for leg in ran):
        return False
    return any(await lexicon.document_frequencies(context.space.collection, query))


def report_constraints(context: SearchContext, *, found: bool) -> None:
    """Say in the answer that constraints left no document or contradict each other, and what became of them."""
    query = context.request.parsed_query
    both = [sign for sign in query.as_words if sign[0] == "+" and f"-{sign[1:]}" in query.as_words]
    if both:
        context.degrade("wishes", "contradictory", f"both required and excluded, and read as words: {', '.join(both)}")
    if found and context.given_up:
        read = ", ".join(context.given_up)
        context.degrade("wishes", "given_up", f"no document was left, so these were read as words: {read}")
    elif query.required and not found:
        missing = ", ".join(query.required)
        context.degrade("wishes", "not_found", f"no document has all that is required: {missing}")
