"""What all commands share: answers for people and for programs, common options, exit codes, and the client."""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from service.client.http_client import Client
from service.runtime.settings import Settings

EXIT_PARTIAL, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130
_PROBLEMS = {EXIT_PARTIAL: "done in part", EXIT_USAGE: "wrong usage", EXIT_UNREACHABLE: "unavailable"}

out = Console()
err = Console(stderr=True)

Collection = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Address of the service; default: the setting `url`, else `host` and `port`."),
]
Note = Annotated[str, typer.Option("--note", help="The reason; it is kept in the audit trail.")]
Force = Annotated[bool, typer.Option("--force", help="Promote even where checks failed; the audit trail records it.")]

wants_json: ContextVar[bool] = ContextVar("wants_json", default=False)
"""Whether the command that runs was given `--json`."""


class Answer:
    """What a command found. `data`: for programs, with the names of the API; `shown`: for people, part by part."""

    def __init__(self, data: Any, *shown: RenderableType, code: int = 0) -> None:
        self.data, self.shown, self.code = data, shown, code


def answering(function: Callable[..., Answer | None]) -> Callable[..., None]:
    """The command that shows the answer of a function, with the option `--json`, and exits with its code."""
    option = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]

    @functools.wraps(function)
    def command(as_json: bool = False, **options: Any) -> None:
        token = wants_json.set(as_json)
        try:
            if (answer := function(**options)) is not None:
                show(answer, as_json=as_json)
                raise typer.Exit(answer.code)
        finally:
            wants_json.reset(token)

    keyword = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    signature = inspect.signature(function)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # where typer reads the options
        parameters=[*signature.parameters.values(), keyword]
    )
    command.__annotations__ = {**function.__annotations__, "as_json": option}
    return command


def show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=answer.data, default=str)
        return
    for one in answer.shown:
        print_out(one) if isinstance(one, str) else out.print(one)


def connect(url: str | None) -> Client:
    settings = Settings()
    return Client(url or settings.service_url, settings.client_key, settings.tls_certificate)


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


def fail(message: str, code: int = EXIT_USAGE, problem: dict[str, Any] | None = None) -> NoReturn:
    """End the command. With `--json` the last line of standard error is a problem: the service's, or one of our own."""
    if wants_json.get():
        title = _PROBLEMS[code]
        own = {"type": f"urn:azimuth:error:{title.replace(' ', '-')}", "title": title, "detail": message}
        sys.stderr.write(json.dumps({**(problem or own), "exit_code": code}) + "\n")
    else:
        print_err(message)
    raise typer.Exit(code)


def plain_table(
    *heads: str, right: tuple[int, ...] = (), show_header: bool = True, rows: Iterable[Iterable[str]] = ()
) -> Table:
    """A table without borders and markup; the columns with the numbers `right` are aligned to the right."""
    table = Table(*heads, box=None, show_header=show_header, padding=(0, 2, 0, 0))
    for column in right:
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def command_line(words: str, collection: str, url: str | None) -> str:
    """A command that the user can copy, for the same collection of the same service."""
    elsewhere = f" --url {url}" if url else ""
    return f"azimuth {words} -c {collection}{elsewhere}"


def interactive() -> bool:
    """Is there a user who can answer a question?"""
    return sys.stdin.isatty() and sys.stdout.isatty()
