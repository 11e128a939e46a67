"""`azimuth train`: models out of one's own documents and judgments, on this machine."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.cli import shell, train_embedder

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Train models on judged collections.")


@app.command()
@shell.answering
def reranker(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER[=PART[*TIMES],...]",
            help="Folders in BEIR layout. PART: a split with judgments (default: train), `titles` or `sentences`.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adapter and its model card.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to train; finding negatives comes on top.")] = 60.0,
    steps: Annotated[int | None, typer.Option(min=1, help="End after so many steps, where that is earlier.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 7,
    rank: Annotated[int, typer.Option(min=1, max=512, help="Rank of the LoRA layers.")] = 32,
    alpha: Annotated[float, typer.Option(min=0.1, help="Their scale, times the rank.")] = 64.0,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="At its highest.")] = 4e-4,
    max_tokens: Annotated[int, typer.Option(min=16, max=8192, help="Of a query and a passage together.")] = 256,
    list_size: Annotated[int, typer.Option(min=2, max=256, help="Passages of a list, one of them right.")] = 8,
    lists: Annotated[int, typer.Option(min=1, max=4096, help="Lists of a step.")] = 8,
    hold_out: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the documents to measure with.")] = 0.1,
    start: Annotated[str | None, typer.Option(help="Folder of an adapter to go on from.")] = None,
    keep: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Its share in the outcome, which is a mean of both.")
    ] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    backbone: Annotated[str, typer.Option(help="The encoder beneath: bundled, a folder, or a hub id.")] = (
        "all-MiniLM-L6-v2"
    ),
) -> shell.Answer:
    """Train a cross-encoder on judged collections: a LoRA adapter of a few MB on the bundled encoder.

    `azimuth train reranker scifact=train*3,titles medquad=titles*0.3 --out my-reranker`, then serve with
    `AZIMUTH_RERANKER=my-reranker`. docs/training.md says more.
    """
    from service.embedder.training import reranker_data, train_reranker
    from service.embedder.training.cross_encoder_training import CrossEncoderRecipe

    recipe = CrossEncoderRecipe(
        minutes=minutes,
        steps=steps,
        seed=seed,
        backbone=backbone,
        start=start,
        keep=keep,
        rank=rank,
        alpha=alpha,
        max_tokens=max_tokens,
        learning_rate=learning_rate,
        list_size=list_size,
        lists=lists,
        device=device,
    )
    report, held_out = train_reranker.train(
        [reranker_data.parse(folder) for folder in folders],
        out,
        recipe,
        hold_out=hold_out,
        command=shlex.join(["azimuth", *sys.argv[1:]]),
        notify=lambda message: shell.print_err(message, "dim"),
    )
    told = [
        f"{part}: right passage on top of {found.lists} held-out lists: {found.first_stage:.3f} by the first stage, "
        f"{found.reranker:.3f} by the reranker"
        for part, found in held_out.items()
    ]
    data = {
        "out": str(out),
        "steps": report.steps,
        "seconds": report.seconds,
        "held_out": {part: asdict(found) for part, found in held_out.items()},
    }
    spent = f"{out}: {report.steps:,} steps, {report.tokens:,} tokens in {report.seconds / 60:.1f} minutes"
    return shell.Answer(data, *told, spent)


app.command()(shell.answering(train_embedder.embedder))
