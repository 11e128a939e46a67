"""docs/settings.md says of every setting what the code says."""

from service.runtime.settings import Settings
from tests.docs import settings_table


def test_the_table_is_the_settings() -> None:
    assert settings_table.written() == settings_table.table(), "python -m tests.docs.settings_table"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
