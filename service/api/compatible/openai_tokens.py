"""Token arrays, which OpenAI's API takes in place of texts: its embedding models all read `cl100k_base`.

The table of that encoding comes with the extra `openai-tokens`. Ids are never taken for those of the model here.
"""

import base64
import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from service.api.compatible.encoding import MAX_LENGTH, MAX_TEXTS
from service.core.concurrency import off_loop
from service.core.errors import Invalid

NOT_READABLE = (
    "token ids cannot be read, for this service lacks the table of OpenAI's encoding "
    "(pip install 'azimuth-search[openai-tokens]'): send the texts "
    "(for OpenAIEmbeddings of LangChain set check_embedding_ctx_length=False)"
)


def token_arrays(value: Any) -> list[list[int]] | None:
    """The arrays, where the value is one or a list of them; None for anything else. ValueError without the table."""
    arrays = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if not all(isinstance(one, list) and one and all(type(token) is int for token in one) for one in arrays):
        return None
    if find_spec("bpe_openai") is None:
        raise ValueError(NOT_READABLE)
    if len(arrays) > MAX_TEXTS or max(map(len, arrays)) > MAX_LENGTH:
        raise ValueError(f"should be at most {MAX_TEXTS} arrays of at most {MAX_LENGTH} token ids")
    return arrays


async def decode(arrays: list[list[int]]) -> list[str]:
    """The texts. Invalid where an array has an id that the encoding does not have."""
    return await off_loop(8 * sum(map(len, arrays)), lambda: [_text(at, ids) for at, ids in enumerate(arrays)])


def _text(at: int, ids: list[int]) -> str:
    table = _table()
    try:
        return b"".join([table[one] for one in ids]).decode(errors="replace")
    except KeyError as error:
        raise Invalid.at(f"input.{at}", f"cl100k_base has no token {error}") from error


@cache
def _table() -> dict[int, bytes]:
    """The bytes of each token, without the special ones. The file alone is read: the library takes a second to load."""
    found = find_spec("bpe_openai")
    assert found is not None
    [folder] = found.submodule_search_locations or []
    with gzip.open(Path(folder) / "data" / "cl100k_base.tiktoken.gz") as lines:
        return {int(rank): base64.b64decode(token) for token, rank in map(bytes.split, lines)}
