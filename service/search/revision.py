"""Reading one's own writes, whichever process wrote them: a search waits until its lexical index has a revision."""

import asyncio

from service.core.errors import NotFound, Unavailable
from service.core.ports.change_feed import ChangeFeed
from service.core.ports.lexicon import Lexicon
from service.search.context import SearchContext

WAIT_SECONDS, BUDGET_SHARE = 2.0, 0.5
"""The longest wait, and the share of what is left of the budget: the search itself needs the other half."""


async def wait_for_revision(changes: ChangeFeed, lexicon: Lexicon, context: SearchContext) -> None:
    """Return when the lexical index has all up to `min_revision`; where that takes too long, say so in the answer."""
    revision, collection = context.request.min_revision, context.space.collection
    if not revision or context.request.mode == "dense":
        return
    remaining = context.remaining_seconds()
    seconds = WAIT_SECONDS if remaining is None else min(WAIT_SECONDS, BUDGET_SHARE * remaining)
    reason = "the lexical index does not have the revision {} yet"
    try:
        with context.timings.stage("lexical"):
            async with asyncio.timeout(seconds):
                # After each wait it is asked again: transactions do not end in the order of their numbers.
                while missing := await changes.last_missing(collection.id, revision, *lexicon.included(collection)):
                    await lexicon.wait_until(collection, missing)
        return
    except TimeoutError:
        pass
    except NotFound:
        reason = "the database does not have the revision {}: an older state of it may have been restored"
    except Unavailable as error:
        reason = f"whether the lexical index has the revision {{}} is unknown: {error.detail}"
    context.degrade("lexical", "behind", reason.format(revision))
