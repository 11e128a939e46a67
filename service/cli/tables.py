"""Versions, their evidence and the audit trail as tables. Values from the service are never read as markup."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from service.cli.follow_version import progress_text
from service.cli.shell import plain_table

STATE_STYLES = {"active": "green", "ready": "cyan", "failed": "red", "retired": "dim"}
VERDICTS = {True: Text("passed", "green"), False: Text("FAILED", "bold red"), None: Text("for information", "dim")}


def versions(found: Iterable[Mapping[str, Any]]) -> Table:
    """One line per version, narrow enough for a small terminal; `status_detail` has the rest."""
    heads = ("", "state", "embedder", "dimensions", "storage", "chunks", "index")
    table = plain_table(*heads, right=(0, 3, 5))
    table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for one in found:
        retired = one["state"] == "retired"
        table.add_row(
            str(one["number"]),
            Text(one["state"], STATE_STYLES.get(one["state"], "yellow")),
            Text(embedder_text(one)),
            str(one["dimensions"]),
            one["index"]["storage"],
            "" if retired else f"{one['chunks']:,}",
            "" if retired else index_text(one),
        )
    return table


def status_detail(version: Mapping[str, Any]) -> str:
    """Progress, reason of failure, or that the version was active before; empty if the state says everything."""
    before = "a roll back makes it active again" if version["previous"] else ""
    return progress_text(version) or version["reason"] or before


def embedder_text(version: Mapping[str, Any]) -> str:
    """Model, revision, identity and prompts in a few words."""
    spec = version["embedder"]
    words = [spec["model"] if not spec["revision"] else f"{spec['model']}@{spec['revision'][:12]}"]
    if spec.get("identity"):
        words.append(spec["identity"])
    prompts = {role: spec[f"{role}_prompt"] for role in ("query", "document")}
    words += [f"{role} prompt {prompt!r}" for role, prompt in prompts.items() if prompt]
    return ", ".join(words)


def index_text(version: Mapping[str, Any]) -> str:
    return str(version["index"]["kind"]) if version["indexed"] else "exact scan"


def version_details(version: Mapping[str, Any]) -> Table:
    """Everything about one version except its evidence."""
    chunking, index = version["chunking"], version["index"]
    graph = f" with m {index['m']}, ef_construction {index['ef_construction']}"
    longest = chunking["max_tokens"] or version["max_tokens"]
    table = plain_table("", "", show_header=False)
    table.columns[0].style = "dim"
    rows: list[tuple[str, str | Text]] = [
        ("version", str(version["number"])),
        ("state", Text(f"{version['state']}: {more}" if (more := status_detail(version)) else version["state"])),
        ("embedder", Text(embedder_text(version))),
        ("dimensions", str(version["dimensions"])),
        ("chunking", f"{longest} tokens, {chunking['overlap_tokens']} of them overlap"),
        ("storage", f"{index['storage']}, {index['kind']}{graph if index['kind'] == 'hnsw' else ''}"),
        ("chunks", f"{version['chunks']:,}, searched by {index_text(version)}"),
        ("fingerprint", version["fingerprint"]),
        ("registered", local_time(version["created_at"])),
        ("evidence of", local_time(version["gathered_at"])),
    ]
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def evidence(checks: Iterable[Mapping[str, Any]]) -> Table:
    table = plain_table("check", "verdict", "detail")
    for check in checks:
        table.add_row(check["name"], VERDICTS[check["passed"]], Text(check["detail"]))
    return table


def audit(entries: Iterable[Mapping[str, Any]]) -> Table:
    table = plain_table("", "when", "who", "what", "note", right=(0,))
    for entry in entries:
        words = (Text(word) for word in (entry["actor"], describe_action(entry), entry["note"]))
        table.add_row(str(entry["number"]), local_time(entry["at"]), *words)
    return table


ACTION_TEXTS = {
    "created": "created with version {version}",
    "indexing": "version {version} filled, its index is built",
    "verifying": "version {version} indexed, evidence is gathered",
    "promoted": "version {version} promoted in place of {before}",
    "rolled_back": "rolled back to version {version} from {before}",
    "judgments": "judgments changed",
    "settings": "settings changed",
    "tuned": "ranking tuned on version {version}",
    "renamed": "renamed to {details[after]}",
    "alias_set": "alias {details[alias]} leads here",
    "alias_deleted": "alias {details[alias]} deleted",
}
"""Actions whose text is more than `version 2 paused`."""


def describe_action(entry: Mapping[str, Any]) -> str:
    """What was done to which version: `version 2 promoted in place of 1 by force, against judgments`."""
    words = ACTION_TEXTS.get(entry["action"], "version {version} {action}").format_map(entry)
    against = ", ".join(check["name"] for check in entry["details"].get("checks", ()) if check["passed"] is False)
    if entry["details"].get("forced"):
        return f"{words} by force, against {against}"
    return f"{words}, with {against} failed" if against else words


def local_time(moment: str | None) -> str:
    """An ISO timestamp in local time; empty for None."""
    return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
