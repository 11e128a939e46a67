"""`azimuth versions`: list the embedder versions of a collection and act on one of them."""

from typing import Annotated, Any

import typer

from azimuth_client import ApiError
from service.cli import shell, tables
from service.cli.shell import Answer
from service.client.http_client import Client

app = typer.Typer(
    no_args_is_help=False,
    help="List the embedder versions of a collection; the commands below act on one of them.",
    rich_markup_mode="markdown",
)

Number = Annotated[int, typer.Argument(min=1, help="Number of the version.", metavar="VERSION")]


@app.callback(invoke_without_command=True)
@shell.answering
def versions(
    context: typer.Context,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Name of the collection.")] = None,
    url: shell.Url = None,
) -> Answer | None:
    """List the embedder versions of a collection; the commands below act on one of them."""
    if context.invoked_subcommand is not None:
        # Options before the subcommand apply to it, too.
        given = {name: value for name, value in (("collection", collection), ("url", url)) if value is not None}
        context.default_map = {context.invoked_subcommand: given}
        return None
    if collection is None:
        shell.fail("name the collection: --collection NAME")
    with shell.connect(url) as client:
        found = client.versions(collection)
    details = ((one["number"], tables.status_detail(one)) for one in found["versions"])
    more = [f"version {number}: {detail}" for number, detail in details if detail]
    return Answer(found, tables.versions(found["versions"]), *more)


@app.command()
@shell.answering
def show(number: Number, collection: shell.Collection, url: shell.Url = None) -> Answer:
    """Show one version: its settings, its progress and the evidence for promoting it."""
    with shell.connect(url) as client:
        version = client.version(collection, number)
    evidence = ("", tables.evidence(version["checks"])) if version["checks"] else ()
    return Answer(version, tables.version_details(version), *evidence)


@app.command()
@shell.answering
def promote(
    number: Number,
    collection: shell.Collection,
    force: shell.Force = False,
    note: shell.Note = "",
    url: shell.Url = None,
) -> Answer:
    """Let a version answer from now on. Refused (exit code 1) where a check of its evidence failed."""
    with shell.connect(url) as client:
        return Answer(*promote_version(client, collection, number, force=force, note=note, url=url))


@app.command()
@shell.answering
def rollback(collection: shell.Collection, note: shell.Note = "", url: shell.Url = None) -> Answer:
    """Let the version answer again that answered before. It lost nothing: everything written since is in it."""
    with shell.connect(url) as client:
        active = client.roll_back(collection, note)
    return Answer(active, f"Version {active['number']} of {collection} answers again.")


@app.command()
@shell.answering
def pause(number: Number, collection: shell.Collection, url: shell.Url = None) -> Answer:
    """Let a backfill rest. What is written meanwhile still goes to the version."""
    return _change_state(collection, number, "pause", url)


@app.command()
@shell.answering
def resume(number: Number, collection: shell.Collection, url: shell.Url = None) -> Answer:
    """Let a paused backfill go on, or take a failed version up again where it stopped."""
    return _change_state(collection, number, "resume", url)


@app.command()
@shell.answering
def retire(
    number: Number,
    collection: shell.Collection,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    note: shell.Note = "",
    url: shell.Url = None,
) -> Answer:
    """Retire a version, also one in progress: its vectors are dropped, and it cannot be restored."""
    with shell.connect(url) as client:
        version = client.version(collection, number)
        if not yes:
            if not shell.interactive():
                shell.fail("this drops its vectors permanently: confirm with --yes")
            what = f"version {number} ({version['state']}, {version['chunks']:,} chunks) of {collection}"
            typer.confirm(f"Drop {what} for good?", abort=True)
        client.retire(collection, number, note)
    return Answer({"number": number, "state": "retired"}, f"Version {number} of {collection} is retired.")


@app.command()
@shell.answering
def audit(
    collection: shell.Collection,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Newest entries to show.")] = 100,
    url: shell.Url = None,
) -> Answer:
    """Show who changed what, when, and on which evidence; newest first."""
    with shell.connect(url) as client:
        trail: dict[str, Any] = client.call("GET", f"/v1/collections/{collection}/audit", params={"limit": limit})
    return Answer(trail, tables.audit(trail["entries"]))


def promote_version(
    client: Client, collection: str, number: int, *, force: bool, note: str, url: str | None
) -> tuple[dict[str, Any], str]:
    """Promote the version; return it, and a sentence that says so. Exit code 1 if a check of its evidence failed."""
    before = client.versions(collection)["active_version"]
    try:
        promoted = client.change(collection, number, "promote", {"force": force, "note": note})
    except ApiError as refused:
        if refused.kind != "promotion-refused":
            raise
        shell.print_err(f"Version {number} is not promoted: version {before} goes on answering. What failed:")
        shell.err.print(tables.evidence(check for check in refused.checks if check["passed"] is False))
        forced = shell.command_line(f"versions promote {number} --force", collection, url)
        shell.fail(f"In spite of it, on record: {forced}", shell.EXIT_PARTIAL)
    if before == number:
        return promoted, f"Version {number} of {collection} was active already."
    back = shell.command_line("versions rollback", collection, url)
    return promoted, f"Version {number} of {collection} answers from now on. Back to version {before}: {back}"


def _change_state(collection: str, number: int, verb: str, url: str | None) -> Answer:
    with shell.connect(url) as client:
        version = client.change(collection, number, verb)
    paused = ", paused" if version["paused"] else ""
    return Answer(version, f"Version {number} of {collection} is {version['state']}{paused}.")
