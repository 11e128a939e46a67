"""The schema as text: what all migrations make of an empty database.

python -m tests.schema     writes migrations/schema.sql anew; run it after adding a migration
"""

import re
import subprocess
import tempfile
from pathlib import Path

from service.store.embedded.server import EmbeddedServer, programs
from service.store.postgres.schema import migrations
from tests.conftest import run_apart

FILE = Path(__file__).parents[1] / "migrations" / "schema.sql"

HEADER = """\
-- What all migrations make of an empty database, as pg_dump tells it. Written by `python -m tests.schema`; to read,
-- not to run: databases are made and changed by the numbered files alone.

"""

# Settings of the dump's own session, random keys, and remarks with versions and owners.
_NOISE = re.compile(r"^(--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict )")


def dump(url: str) -> str:
    """The schema of that database in a form that depends on nothing but the schema."""
    command = [str(programs() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", "--no-comments", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if not _NOISE.match(line)]
    return HEADER + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "pg") as server:
        run_apart(migrations.apply(server.url))
        FILE.write_text(dump(server.url))


if __name__ == "__main__":
    main()
