"""`azimuth train embedder`: a model that knows the words of one collection, out of its documents and judgments."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from service.cli import shell
from service.runtime.settings import Settings

if TYPE_CHECKING:
    from service.embedder.training.biencoder_training import BiEncoderReport
    from service.embedder.training.train_embedder import TrainingSubject


def embedder(
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="BEIR layout: corpus.jsonl, and queries.jsonl and qrels/SPLIT.tsv where there are any."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Documents and model of a running service; FOLDER lends judgments."),
    ] = None,
    learn_from: Annotated[
        str,
        typer.Option(
            help="Comma-separated: splits with judgments, `titles`, `crops`. Default: the first of these that there is."
        ),
    ] = "",
    model: Annotated[str | None, typer.Option(help="To begin with. Default: of the collection, else the bundled.")] = (
        None
    ),
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to learn; mining and measuring come on top.")] = 20,
    epochs: Annotated[float, typer.Option(min=0.01, max=1000, help="Times over the queries, where time allows.")] = 3.0,
    pairs: Annotated[int, typer.Option(min=40, help="Most queries; of more a random part.")] = 10_000,
    rank: Annotated[int, typer.Option(min=1, max=512, help="Of the LoRA layers.")] = 32,
    full: Annotated[bool, typer.Option("--full", help="Change all weights, not only by LoRA.")] = False,
    vocabulary: Annotated[int, typer.Option(min=0, max=50_000, help="Most words that become tokens; 0: none.")] = 1_000,
    batch: Annotated[int, typer.Option(min=2, max=16_384, help="Queries of a step.")] = 64,
    negatives: Annotated[int, typer.Option(min=0, max=16, help="Mined passages for each of them.")] = 1,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-7, max=1.0, help="At its highest. Default: 1e-3, with --full 1e-4.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.001, max=1.0, help="Of the contrast.")] = 0.05,
    max_tokens: Annotated[int, typer.Option(min=16, max=8192, help="At which texts are cut while learning.")] = 128,
    teacher: Annotated[
        str, typer.Option(help="Reranker that labels what nobody judged; `none`. Default: the bundled one.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Of the documents, for the model card.")] = "",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 7,
    url: shell.Url = None,
) -> shell.Answer:
    """Adapt an embedder to a collection: its questions, its words, its codenames.

    A tenth of the queries is put aside. The model is written if it ranks them better than the one that it was made of;
    otherwise nothing is, and the exit code is 1. Let it prove itself by `azimuth reindex --embedder OUT`, on judgments
    that it has not learnt from. docs/training.md says more.
    """
    if folder is None and collection is None:
        shell.fail("what from? A FOLDER in BEIR layout, or --collection NAME of a running service")
    settings = Settings()
    subject, begun_with = _training_subject(folder, collection, licence, url)
    import torch

    from service.embedder.training import train_embedder as story
    from service.embedder.training.biencoder_training import BiEncoderRecipe

    if settings.threads:
        torch.set_num_threads(settings.threads)
    recipe = BiEncoderRecipe(
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        rank=None if full else rank,
        words=vocabulary,
        batch=batch,
        negatives=negatives,
        rate=learning_rate,
        temperature=temperature,
    )
    report = story.train(
        subject,
        model or begun_with or settings.embedder,
        out,
        recipe,
        parts=tuple(part.strip() for part in learn_from.split(",") if part.strip()),
        teacher=None if teacher == "none" else teacher,
        longest=max_tokens,
        most_pairs=pairs,
        device=settings.device,
        precision=settings.precision,
        command=shlex.join(["azimuth", *sys.argv[1:]]),
        kept=settings.data_dir / "models",
        notify=lambda message: shell.print_err(message, "dim"),
    )
    return _report(report, out, collection)


def _training_subject(
    folder: Path | None, collection: str | None, licence: str, url: str | None
) -> "tuple[TrainingSubject, str | None]":
    """What to adapt to, and the model that a running service uses for it."""
    from service.embedder.training.train_embedder import TrainingSubject
    from service.embedder.training.training_queries import read_documents

    if collection is None:
        assert folder is not None
        name = folder.resolve().name
        return TrainingSubject(name=name, documents=read_documents(folder), judgments=folder, licence=licence), None
    with shell.connect(url) as client:
        found = client.versions(collection)
        active = next(one for one in found["versions"] if one["number"] == found["active_version"])
        documents = [{part: one[part] for part in ("id", "title", "text")} for one in client.documents(collection)]
    spec: dict[str, Any] = active["embedder"]
    subject = TrainingSubject(
        name=collection,
        documents=documents,
        judgments=folder,
        prompts={"query": spec["query_prompt"], "document": spec["document_prompt"]},
        licence=licence,
    )
    return subject, f"{spec['model']}@{spec['revision']}" if spec["revision"] else spec["model"]


def _report(report: "BiEncoderReport", out: Path, collection: str | None) -> shell.Answer:
    table = Table(
        "model", f"nDCG@10 of {len(report.chosen.scores):,} queries put aside", box=None, padding=(0, 2, 0, 0)
    )
    for candidate in report.candidates:
        style = "green" if candidate is report.chosen else ""
        table.add_row(candidate.name, f"{candidate.mean:.4f}", style=style)
    figures = {"steps": report.steps, "seconds": report.seconds, "chosen": report.chosen.name}
    ndcg = {"queries": len(report.chosen.scores), "ndcg_at_10": {one.name: one.mean for one in report.candidates}}
    data = {"out": str(out) if report.better else None, **figures, **ndcg}
    if not report.better:
        shell.print_err("Nothing was better than the model as it was: nothing is written.")
        return shell.Answer(data, table, code=shell.EXIT_PARTIAL)
    gain = report.gain
    told = (
        f"{out}: {report.chosen.name}, {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}],"
        f" {report.steps:,} steps in {report.seconds / 60:.1f} minutes"
    )
    register = f"azimuth reindex -c {collection or 'COLLECTION'} --embedder {out.resolve()}"
    shell.print_err(f"With {out.resolve()} in AZIMUTH_MODELS of the service: {register}", "dim")
    return shell.Answer(data, table, told)
