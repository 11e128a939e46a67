"""What all commands share: printing, common options, exit codes, and the client of the service."""

import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from service.client.http_client import Client
from service.runtime.settings import Settings

EXIT_PARTIAL, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130

out = Console()
err = Console(stderr=True)

Collection = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="AZIMUTH_URL", help="Address of the service; default: AZIMUTH_HOST and AZIMUTH_PORT."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
Note = Annotated[str, typer.Option("--note", help="The reason; it is kept in the audit trail.")]
Force = Annotated[bool, typer.Option("--force", help="Promote even where checks failed; the audit trail records it.")]


def connect(url: str | None) -> Client:
    settings = Settings()
    return Client(url or settings.address(), key_of(settings), settings.tls_certificate)


def key_of(settings: Settings) -> str | None:
    return os.environ.get("AZIMUTH_KEY") or (settings.api_keys[0].get_secret_value() if settings.api_keys else None)


def print_err(message: str, style: str = "red") -> None:
    """Print to standard error; a line is not wrapped at the width of the terminal."""
    err.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def print_out(message: str) -> None:
    """Print to standard output; brackets are not read as markup."""
    out.print(message, highlight=False, markup=False, soft_wrap=True)


def parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"{where} is not JSON: {error}")


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    print_err(message)
    raise typer.Exit(code)


def plain_table(*heads: str, right: tuple[int, ...] = (), show_header: bool = True) -> Table:
    """A table without borders; the columns with the numbers `right` are aligned to the right."""
    table = Table(*heads, box=None, show_header=show_header, padding=(0, 2, 0, 0))
    for column in right:
        table.columns[column].justify = "right"
    return table


def command_line(words: str, collection: str, url: str | None) -> str:
    """A command that the user can copy, for the same collection of the same service."""
    elsewhere = f" --url {url}" if url and url != os.environ.get("AZIMUTH_URL") else ""
    return f"azimuth {words} -c {collection}{elsewhere}"


def interactive() -> bool:
    """Is there a user who can answer a question?"""
    return sys.stdin.isatty() and sys.stdout.isatty()
