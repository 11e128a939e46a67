"""The values of one field, by the different lists of them that documents have. Pure: no I/O."""

from array import array

import numpy as np
import numpy.typing as npt
import orjson

from service.core.facets import Facet, FacetNumbers, FacetRequest, FacetValue

Counts = npt.NDArray[np.int64]
NOTHING = "[]"
"""The list of a document without a value."""

_KINDS = {bool: 0, int: 1, float: 1, str: 2}


class ValueLists:
    """Numbers the lists in the order in which they are met; each says which values it has."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._value_numbers: dict[tuple[int, object], int] = {}
        self._values: list[str | int | float | bool] = []
        self._decimals = array("d")  # the values that are numbers; NaN for others
        self._lists, self._members = array("i"), array("i")  # pairs: a list, and a value in it
        self._filled, self._numeric = bytearray(), bytearray()  # by list: whether it has a value, and a number
        self._ranks: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, text: str) -> int:
        """Of a list, given as a JSON array. Only its texts, numbers and booleans are values."""
        if (known := self._numbers.get(text)) is not None:
            return known
        number = self._numbers[text] = len(self._numbers)
        values = {(_KINDS[type(one)], one): one for one in orjson.loads(text) if type(one) in _KINDS}
        for key, one in values.items():
            at = self._value_numbers.setdefault(key, len(self._values))
            if at == len(self._values):
                self._values.append(one)
                self._decimals.append(float(one) if key[0] == 1 else np.nan)
            self._lists.append(number)
            self._members.append(at)
        self._filled.append(bool(values))
        self._numeric.append(any(kind == 1 for kind, _ in values))
        return number

    def facet(self, request: FacetRequest, counts: Counts) -> Facet:
        """`counts`: of the documents with each list, by its number."""
        lists, members = np.frombuffer(self._lists, np.int32), np.frombuffer(self._members, np.int32)
        filled, numeric = np.frombuffer(self._filled, np.bool_), np.frombuffer(self._numeric, np.bool_)
        by_value = np.bincount(members, weights=counts[lists], minlength=len(self._values)).astype(np.int64)
        present = np.flatnonzero(by_value)
        first = self._most_frequent(present, by_value[present], request.limit)
        documents = int(counts[filled].sum())
        return Facet(
            field=request.field,
            values=tuple(FacetValue(value=self._values[at], count=int(by_value[at])) for at in first.tolist()),
            distinct=len(present),
            documents=documents,
            missing=int(counts.sum()) - documents,
            numbers=self._numbers_of(present, int(counts[numeric].sum())),
        )

    def _most_frequent(self, present: npt.NDArray[np.intp], counts: Counts, limit: int) -> npt.NDArray[np.intp]:
        if len(self._ranks) < len(self._values):
            order = sorted(self._value_numbers.items())
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[[at for _, at in order]] = np.arange(len(order))
        keys = self._ranks[present] - counts * len(self._ranks)  # by count, then by value, as one number
        if len(present) > limit:
            first = np.argpartition(keys, limit - 1)[:limit]  # only these are sorted
            present, keys = present[first], keys[first]
        return present[np.argsort(keys)]

    def _numbers_of(self, present: npt.NDArray[np.intp], count: int) -> FacetNumbers | None:
        if not count:
            return None
        numbers = np.frombuffer(self._decimals, np.float64)[present]
        least, most = int(present[np.nanargmin(numbers)]), int(present[np.nanargmax(numbers)])
        return FacetNumbers(min=self._values[least], max=self._values[most], count=count)  # type: ignore[arg-type]
