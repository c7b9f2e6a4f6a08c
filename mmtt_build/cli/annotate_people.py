"""`mmtt annotate invite` and `reassign`: annotators who come, and who leave."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from mmtt_build.cli.annotate import app
from mmtt_build.cli.common import DryRunOption, WorkspaceOption, find, table


@app.command()
def invite(
    people: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="CSV, email,name a line. [default: all annotators]"),
    ] = None,
    reset: Annotated[
        str, typer.Option(metavar="EMAIL", help="Give this annotator a new password.", show_default=False)
    ] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Make an account for everybody who has none; their passwords go into a private file to hand out."""
    from mmtt_build.stages import invite as stage

    found = find(workspace)
    if reset:
        typer.echo(f"invite: a new password is in {stage.reset(found, reset)}")
        return
    result = stage.invite(found, people)
    where = f"; passwords in {result.file}" if result.made else ""
    typer.echo(f"accounts: {len(result.made):,} made, {len(result.there):,} there already{where}")
    typer.echo("next: mmtt annotate push")


@app.command()
def reassign(
    annotator: Annotated[str, typer.Argument(help="Id of who left, e.g. a07.")],
    to: Annotated[
        str, typer.Option(help="Ids of who takes over, e.g. a03,a05. [default: all others]", show_default=False)
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Most tasks of a project.")] = 500,
    images_url: Annotated[
        str, typer.Option(help="Address of the workspace's folder. [default: the local server's]", show_default=False)
    ] = "",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Give the open tasks of an annotator who left to others; what they submitted stays."""
    from mmtt_build.stages.reassign import reassign as run

    heirs = [name.strip() for name in to.split(",") if name.strip()]
    result = run(find(workspace), annotator, to=heirs, batch_size=batch_size, images_url=images_url, dry_run=dry_run)
    kinds, pushed = ("pair", "repeat", "control"), result.pushed
    if pushed.batches:
        table(
            ("annotator", "batches", "pairs", "repeats", "controls"),
            (
                (name, pushed.batches[name], *(pushed.assigned[name, kind] for kind in kinds))
                for name in sorted(pushed.batches)
            ),
        )
    dealt = Counter[str]()
    for (_, kind), number in pushed.assigned.items():
        dealt[kind] += number
    would = " would be" if dry_run else ""
    for what, of in (("withdrawn", result.withdrawn), ("dealt to others", dealt)):
        typer.echo(f"reassign: {', '.join(f'{of[kind]:,} {kind}s' for kind in kinds)}{would} {what}")
    if result.promoted:
        typer.echo(f"  {result.promoted:,} repeats of others{would} the pair itself now: all others know it")
    if result.waiting:
        typer.echo(f"  {result.waiting:,} pairs are known to all others; the next push assigns them")
    if pushed.changes is not None:
        typer.echo(f"server: {pushed.changes.imported:,} imported, {pushed.changes.removed:,} removed")
        typer.echo("next: mmtt annotate status")
