"""Haystack's filters as those of the service, which evaluates them."""

from datetime import datetime
from typing import Any

from haystack.errors import FilterError

_COMPARISONS = {
    "==": "$eq",
    "!=": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
    "in": "$in",
    "not in": "$nin",
}
_LOGIC = {"AND": "$and", "OR": "$or", "NOT": "$and"}
NOTHING = {"$id": {"$in": []}}


def to_azimuth(filters: dict[str, Any] | None) -> dict[str, Any]:
    """Empty: all documents. FilterError where it is none of Haystack's."""
    if not filters:
        return {}
    operator = filters.get("operator")
    if "field" in filters:
        return _comparison(filters)
    if operator not in _LOGIC or "conditions" not in filters:
        raise FilterError(f"a filter needs an operator (AND, OR, NOT) and conditions, or a field: {filters}")
    parts = {_LOGIC[operator]: [to_azimuth(one) for one in filters["conditions"]]}
    return {"$not": parts} if operator == "NOT" else parts


def _comparison(condition: dict[str, Any]) -> dict[str, Any]:
    operator, field = condition.get("operator"), condition["field"]
    if operator not in _COMPARISONS or "value" not in condition:
        raise FilterError(f"a comparison needs an operator ({', '.join(_COMPARISONS)}) and a value: {condition}")
    value = condition["value"]
    field = "$id" if field == "id" else field.removeprefix("meta.")
    if operator in ("in", "not in") and not isinstance(value, list):
        raise FilterError(f"{operator} needs a list: {condition}")
    if operator in (">", ">=", "<", "<="):
        if value is None:
            return NOTHING
        if isinstance(value, list) or (isinstance(value, str) and not _is_time(value)):
            raise FilterError(f"{operator} needs a number or a time: {condition}")
    return {field: {_COMPARISONS[operator]: value}}


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
