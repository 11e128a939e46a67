"""The facets of a search: the values of fields in all documents that pass its filter, whatever the query finds."""

from service.core.facets import Facet
from service.core.ports.documents import Documents
from service.search.context import SearchContext


async def count_facets(documents: Documents, context: SearchContext) -> tuple[Facet, ...]:
    """TimedOut, as for the filter, where counting goes on long after the budget."""
    request = context.request
    with context.timings.stage("facets"):
        async with context.filter_deadline():
            return await documents.facets(context.space.collection, request.facets, request.where)
