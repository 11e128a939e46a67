import pytest

from tests.rivals import Rivals


@pytest.fixture
async def rivals() -> Rivals:
    rivals = Rivals()
    await rivals.create()
    return rivals
