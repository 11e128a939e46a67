"""Documents in the order of declared fields, by the table of their values (`indexed_fields.py`).

The values of the first field are walked in the order of their key, so that the first page of a large collection costs
little; documents without a value follow. A document with several values stands where the first of them does.
"""

from collections.abc import Sequence

from psycopg import sql

from service.core.collections import FieldState
from service.core.errors import Conflict, Invalid
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId
from service.core.result_options import SortKey
from service.core.search import Candidate
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool
from service.store.postgres.filters import indexed_fields
from service.store.postgres.filters.filter_sql import predicate

SQL = sql_files.load("sorting")

_COLUMNS = ("kind", "number", "text")
_WITHIN = sql.SQL(" AND {}.document_id = ANY (%(within)s::text[])")


async def in_order(
    pool: Pool,
    collection_id: CollectionId,
    order: Sequence[SortKey],
    where: Filter | None,
    offset: int,
    limit: int,
    within: Sequence[DocumentId] | None,
) -> tuple[Candidate, ...]:
    """As `Documents.in_order`."""
    condition = predicate(where)
    async with pool.filtering(condition.lookups) as connection:
        declared = {one.name: (number, one) for number, one in await indexed_fields.declared(connection, collection_id)}
        fields = {}
        for at, key in enumerate(order):
            if key.field not in declared:
                raise Invalid.at(f"sort.{at}", f"{key.field} is not declared")
            number, field = declared[key.field]
            if field.state is not FieldState.READY:
                raise Conflict(f"the field {key.field} is not filled yet: see `fields` of the collection")
            fields[f"field_{at}"] = number
        values = {
            **condition.values,
            **fields,
            "collection_id": collection_id,
            "within": None if within is None else list(within),
            "last": offset + limit,
            "offset": offset,
            "limit": limit,
        }
        rows = await connection.fetch_all(_query(order, condition.expression, within), values, prepare=False)
    return tuple(Candidate(id_, content_revision, 0.0) for id_, content_revision in rows)


def _query(order: Sequence[SortKey], where: sql.Composable, within: Sequence[DocumentId] | None) -> sql.Composed:
    keys = [_order(at, key.descending) for at, key in enumerate(order)]
    joins = sql.SQL("").join(
        sql.SQL(SQL.joined).format(
            field=sql.Placeholder(f"field_{at}"), alias=sql.Identifier(f"s{at}"), order=_by("v", key.descending)
        )
        for at, key in enumerate(order)
        if at
    )

    def restricted(alias: str) -> sql.Composable:
        return sql.SQL("") if within is None else _WITHIN.format(sql.SQL(alias))

    with_value = sql.SQL(SQL.with_value).format(
        where=where,
        joins=joins,
        within=restricted("s0"),
        before=sql.SQL(">" if order[0].descending else "<"),
        order=sql.SQL(", ").join([*keys, sql.SQL("s0.document_id")]),
    )
    without_value = sql.SQL(SQL.without_value).format(
        where=where,
        joins=joins,
        within=restricted("d"),
        order=sql.SQL(", ").join([*keys[1:], sql.SQL("d.document_id")]),
    )
    return sql.SQL(SQL.one_after_the_other).format(first=with_value, second=without_value)


def _order(at: int, descending: bool) -> sql.Composable:
    """The first field has a value in every row; in its order the key of the table can be walked from either end."""
    return _by(f"s{at}", descending, nulls_last=at > 0)


def _by(alias: str, descending: bool, nulls_last: bool = False) -> sql.Composable:
    direction = sql.SQL((" DESC" if descending else "") + (" NULLS LAST" if nulls_last else ""))
    return sql.SQL(", ").join(
        sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(one)) + direction for one in _COLUMNS
    )
