"""`azimuth reindex`: another embedder, chunking or storage for a live collection, from registration to promotion."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import shell, tables
from service.cli.follow_version import follow
from service.cli.judgments import upload
from service.cli.versions import promote_version
from service.client.http_client import Client
from service.evaluation import beir


@shell.answering
def reindex(
    collection: shell.Collection,
    embedder: Annotated[
        str | None, typer.Option(help="The model. If given, all other embedder options start from their defaults.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the model, in its hub.")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Keep the first N dimensions and renormalise.")] = None,
    query_prompt: Annotated[str | None, typer.Option(help="Put before each query.")] = None,
    document_prompt: Annotated[str | None, typer.Option(help="Put before each passage.")] = None,
    identity: Annotated[
        str | None, typer.Option(help="With --embedder external: your name of the model that makes the vectors.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=16, help="Longest passage, in tokens.")] = None,
    overlap_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens that neighbours share.")] = None,
    storage: Annotated[str | None, typer.Option(help="halfvec, vector, binary or scalar.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of index: hnsw, ivfflat, vchordrq or diskann.")] = None,
    m: Annotated[int | None, typer.Option("--m", min=2, help="Links of each node of the HNSW graph.")] = None,
    ef_construction: Annotated[int | None, typer.Option(min=4, help="Candidate list size of the HNSW build.")] = None,
    judgments: Annotated[
        Path | None, typer.Option(help="Upload this folder's queries and qrels/test.tsv as the test set first.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Promote it at once if all checks pass.")] = False,
    force: shell.Force = False,
    note: shell.Note = "",
    url: shell.Url = None,
) -> None:
    """Register a new version of a live collection, follow its backfill, show the evidence, and promote it if asked.

    Searches and writes continue meanwhile. Options that are not given are as in the active version. The service does
    the work: this command only watches, and can be interrupted and repeated. Exit code 1: the version failed, or a
    check of its evidence did.
    """
    test_set = None if judgments is None else beir.judgments(judgments)
    prompts = {"query_prompt": query_prompt, "document_prompt": document_prompt}
    spec = _given(model=embedder, revision=revision, dimensions=dimensions, identity=identity, **prompts)
    body: dict[str, Any] = {
        "chunking": _given(max_tokens=max_tokens, overlap_tokens=overlap_tokens),
        "index": _given(kind=kind, m=m, ef_construction=ef_construction, storage=storage),
        "note": note,
    }
    with shell.connect(url) as client:
        if spec and embedder is None:
            found = client.versions(collection)
            active = next(one for one in found["versions"] if one["number"] == found["active_version"])
            spec = _given(**active["embedder"]) | spec
        body["embedder"] = spec
        judged_at = None
        if test_set is not None:
            judged_at = datetime.fromisoformat(upload(client, collection, test_set)["uploaded_at"])
        number, new = client.register(collection, {name: value for name, value in body.items() if value})
        stands = "is registered" if new else "has the same embedder, chunking and index"
        shell.print_err(f"Version {number} of {collection} {stands}.", "dim")
        version = _follow_or_explain(client, collection, number, judged_at, url)
        evidence = [tables.evidence(version["checks"])] if version["checks"] else []
        shell.show(shell.Answer(version, *evidence), as_json=shell.wants_json.get())
        _promote_or_explain(client, collection, version, promote=promote, force=force, note=note, url=url)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _follow_or_explain(
    client: Client, collection: str, number: int, judged_at: datetime | None, url: str | None
) -> dict[str, Any]:
    try:
        return follow(client, collection, number, shell.err, judged_at=judged_at)
    except KeyboardInterrupt:
        shell.print_err(f"Version {number} goes on without this command; the same command watches it again.", "yellow")
        for words, does in (
            (f"versions show {number}", "how far it is"),
            (f"versions pause {number}", "let it rest"),
            (f"versions retire {number}", "end it"),
        ):
            shell.print_err(f"  {shell.command_line(words, collection, url)}  # {does}", "yellow")
        raise typer.Exit(shell.EXIT_INTERRUPTED) from None


def _promote_or_explain(
    client: Client, collection: str, version: dict[str, Any], *, promote: bool, force: bool, note: str, url: str | None
) -> None:
    """Promote the version if an option or the user asks for it; otherwise print how to do it."""
    number, state = version["number"], version["state"]
    if state == "active":
        shell.print_err(f"Version {number} is active.", "dim")
        return
    if state == "failed":
        again = f"It goes on where it stopped by: {shell.command_line(f'versions resume {number}', collection, url)}"
        shell.fail(f"Version {number} failed: {version['reason']}\n{again}", shell.EXIT_PARTIAL)
    if state != "ready":
        shell.fail(f"Version {number} is {state}: it was ended by another operator.", shell.EXIT_PARTIAL)
    failed = [check["name"] for check in version["checks"] if check["passed"] is False]
    if not promote and not failed and not shell.wants_json.get() and shell.interactive():
        promote = typer.confirm(f"Promote version {number}?", default=False)
    if promote:
        _, told = promote_version(client, collection, number, force=force, note=note, url=url)
        shell.print_err(told, "green")
        return
    by = shell.command_line(f"versions promote {number}" + (" --force" if failed else ""), collection, url)
    if failed:
        against = f"The evidence speaks against it: {', '.join(failed)}."
        shell.fail(f"{against} In spite of it, on record: {by}", shell.EXIT_PARTIAL)
    shell.print_err(f"The version is complete and kept up to date. Promote it by: {by}", "dim")
