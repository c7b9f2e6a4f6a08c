"""`mmtt annotate draft`: drafts of descriptions by a model, for a study of drafting versus writing."""

from __future__ import annotations

from typing import Annotated

import typer

from mmtt_build.cli.annotate import app
from mmtt_build.cli.common import DryRunOption, WorkspaceOption, counted, find


@app.command()
def draft(
    model: Annotated[str, typer.Option(metavar="DIR|OWNER/NAME", help="A vision-language model of transformers.")],
    download: Annotated[bool, typer.Option("--download", help="Fetch it from the hub if it is not here.")] = False,
    licence: Annotated[str, typer.Option(help="Of the model; recorded with every draft.", show_default=False)] = "",
    show: Annotated[float, typer.Option(min=0, max=1, help="Share of tasks whose annotators see the draft.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, help="Drafts to make. [default: all]", show_default=False)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Drafts at once.")] = 4,
    device: Annotated[str, typer.Option(help="Of the model: auto, cpu, cuda:0 or mps.")] = "auto",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Have a model describe pushed pairs, as drafts that are never counted as a person's words."""
    from mmtt_build.stages.draft import Options
    from mmtt_build.stages.draft import draft as run

    options = Options(model, download, licence, show, count, batch_size, device)
    result = run(find(workspace), options, dry_run=dry_run)
    number = sum(result.made.values())
    typer.echo(f"{result.model_version}\nlicence: {licence or 'not stated; --licence TEXT records it'}")
    typer.echo(f"draft: {number:,} {'would be ' if dry_run else ''}new, {result.shown:,} of them for annotators to see")
    counted(result.made)
    if result.foreign:
        typer.echo(f"left out: {result.foreign:,} tasks of projects with drafts by another model")
    if dry_run:
        return
    if result.placed or result.begun:
        typer.echo(f"server: {result.placed:,} drafts placed, {result.begun:,} too late: their task was begun before")
    for title in result.missing:
        typer.echo(f"warning: project {title} is not on the server; mmtt annotate push makes it again", err=True)
