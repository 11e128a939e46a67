"""`azimuth keys`: who may use the service.

It works on the database, which every API process reads once a second, so that a first key can be made, and another one
where all are lost. Over HTTP administrators do the same (`api/routes/keys.py`).
"""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from service.cli import shell
from service.cli.shell import Answer
from service.core.access import KeyRole, new_key, new_secret, parse_duration
from service.core.errors import Invalid
from service.core.periodic import utc_now
from service.core.ports.api_keys import ApiKeys
from service.runtime.settings import Settings

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate and revoke them.")

T = TypeVar("T")
Name = Annotated[str, typer.Argument(help="Name of the key.")]
_ACTOR = f"command by {getpass.getuser()}"
_HIDDEN = {"digest", "created_at", "requests"}


@app.command()
@shell.answering
def create(
    name: Annotated[str | None, typer.Argument(help="For logs and audit trails; default: one is made up.")] = None,
    role: Annotated[KeyRole, typer.Option(help="What it may do.")] = "read",
    collections: Annotated[str, typer.Option(help="Comma-separated names; `*` stands for any characters.")] = "*",
    rate: Annotated[str | None, typer.Option(help="Most requests: 50/s, 600/m or 1000/h.")] = None,
    where: Annotated[
        str | None, typer.Option("--filter", help="JSON; only documents that pass exist for this key.")
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="After 12h, 90d ...; default: never.")] = None,
) -> Answer:
    """Create a key and print its secret, which is shown this once. From the first key on, every request needs one."""
    try:
        key, secret = new_key(
            utc_now(),
            name=name,
            role=role,
            collections=[one.strip() for one in collections.split(",")],
            filter=None if where is None else shell.parse_json(where, "--filter"),
            rate=rate,
            expires=expires,
        )
    except Invalid as error:
        shell.fail(error.detail)
    _run(lambda keys: keys.create(key, _ACTOR))
    shell.print_err(f"The key {key.name}, which is shown this once:", style="")
    return Answer({"name": key.name, "secret": secret, "role": role, "expires_at": key.expires_at}, secret)


@app.command()
@shell.answering
def rotate(
    name: Name,
    overlap: Annotated[str, typer.Option(metavar="TIME", help="How long the former secret goes on working.")] = "1h",
) -> Answer:
    """Give a key another secret and print it. If the former one leaked, use `--overlap 0`."""
    try:
        remaining = parse_duration(overlap, "--overlap")
    except Invalid as error:
        shell.fail(error.detail)
    secret, digest = new_secret()
    _run(lambda keys: keys.end(name, utc_now(), _ACTOR, successor=digest, overlap=remaining))
    shell.print_err(
        f"The new secret of {name}, which is shown this once; the former one ends in {remaining}:", style=""
    )
    return Answer({"name": name, "secret": secret}, secret)


@app.command()
@shell.answering
def revoke(name: Name) -> Answer:
    """End a key, with all its secrets, within seconds."""
    _run(lambda keys: keys.end(name, utc_now(), _ACTOR))
    shell.print_err(f"{name} is revoked.", style="")
    return Answer({"name": name, "revoked": True})


@app.command("list")
@shell.answering
def list_keys() -> Answer:
    """List the keys, without their secrets."""
    rows = [{**asdict(key), "active": key.living(utc_now())} for key in _run(lambda keys: keys.all())]
    return _listed([{name: value for name, value in row.items() if name not in _HIDDEN} for row in rows])


@app.command()
@shell.answering
def audit() -> Answer:
    """List who created, rotated and revoked which key, newest first."""
    return _listed(_run(lambda keys: keys.changes()))


def _listed(rows: Sequence[Mapping[str, Any]]) -> Answer:
    table = shell.plain_table(*next(iter(rows), ()), rows=[map(_cell, row.values()) for row in rows])
    return Answer(list(rows), table if rows else "[]")


def _cell(value: Any) -> str:
    if isinstance(value, tuple | datetime):
        return ",".join(value) if isinstance(value, tuple) else f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else str(value)


def _run(work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    from service.runtime import processes

    async def run() -> T:
        async with processes.open_database(Settings()) as store:
            return await work(store.api_keys)

    return asyncio.run(run())
