"""`mmtt annotate push`, `pull` and `import`: work out to annotators, and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmtt_build.cli.annotate import app
from mmtt_build.cli.common import DryRunOption, WorkspaceOption, counted, find, table

if TYPE_CHECKING:
    from mmtt_build.stages.receive import Summary


@app.command()
def push(
    annotators: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV, email,name a line: who gets new pairs. [default: all known]"
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="New pairs. [default: all]", show_default=False)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Most tasks of a project.")] = 500,
    repeats: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs for a second annotator, too.")] = 0.05,
    controls: Annotated[float, typer.Option(min=0, max=1, help="Untouched pairs, as a share of the pairs.")] = 0.02,
    blind: Annotated[bool, typer.Option("--blind", help="New pairs: the forged image alone first.")] = False,
    images_url: Annotated[
        str, typer.Option(help="Address of the workspace's folder. [default: the local server's]", show_default=False)
    ] = "",
    files: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write projects into this folder, to import by hand; no server is asked."),
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Give pairs that need a description to annotators; run it again to mend what the server lacks."""
    from mmtt_build.stages.push import Options
    from mmtt_build.stages.push import push as run

    options = Options(count, batch_size, repeats, controls, blind)
    result = run(
        find(workspace), annotators=annotators, options=options, images_url=images_url, files=files, dry_run=dry_run
    )
    who = sorted(result.batches)
    kinds, methods = ("pair", "repeat", "control"), sorted({method for _, method in result.methods} - {"control"})
    if who:
        table(
            ("annotator", "batches", "pairs", "repeats", "controls", *methods),
            (
                (name, result.batches[name], *(result.assigned[name, kind] for kind in kinds),
                 *(result.methods[name, method] for method in methods))
                for name in who
            ),
        )  # fmt: skip
    total = Counter[str]()
    for (_, kind), number in result.assigned.items():
        total[kind] += number
    said = ", ".join(f"{total[kind]:,} {kind}s" for kind in kinds)
    typer.echo(f"push: {said} {'would be' if dry_run else ''} new".replace("  ", " "))
    if result.withdrawn:
        typer.echo(
            f"push: {result.withdrawn.total():,} open tasks {'would be' if dry_run else ''} withdrawn".replace(
                "  ", " "
            )
        )
        counted(result.withdrawn)
    if files is not None and not dry_run:
        typer.echo(f"files: {result.open:,} open tasks, {len(result.files):,} projects in {files}")
        typer.echo(f"next: {files / 'README.txt'} says how to import them")
    if result.changes is None:
        return
    done = result.changes
    typer.echo(
        f"server: {result.open:,} open tasks, {done.imported:,} imported, {done.mended:,} mended, "
        f"{done.doubled:,} doubles deleted"
    )
    if done.removed:
        typer.echo(f"server: {done.removed:,} withdrawn tasks removed")
    if result.accounts:
        typer.echo(f"accounts: {len(result.accounts):,} made, passwords in {result.logins}")
    for name in done.rewritten[:12]:
        typer.echo(f"warning: its page or description was another, mended: {name}", err=True)
    for name in done.unknown[:12]:
        typer.echo(f"warning: not a task of ours, left alone: {name}", err=True)
    if result.strangers:
        typer.echo(
            f"warning: no account on the server yet: {', '.join(result.strangers)}\n  -> mmtt annotate invite",
            err=True,
        )
    typer.echo("next: mmtt annotate pull, mmtt annotate status")


@app.command()
def pull(workspace: WorkspaceOption = None) -> None:
    """Bring what annotators submitted, changed or deleted since the last pull into the tables."""
    from mmtt_build.stages.pull import pull as run

    result = run(find(workspace))
    _say("pull", result, f", {result.deleted:,} deleted on the server")
    for title in result.missing:
        typer.echo(f"warning: project {title} is not on the server; what came from it is kept", err=True)
    typer.echo("next: mmtt qc audit")


@app.command("import")
def take_in(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.json...", exists=True, dir_okay=False, help="Label Studio's exports.")
    ],
    people: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="CSV with columns user,email: who has which number in FILE."),
    ] = None,
    skip_foreign: Annotated[bool, typer.Option("--skip-foreign", help="Leave out tasks that are not ours.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Bring what projects that were exported as JSON have into the tables, as pull does without a file."""
    from mmtt_build.stages.take_in import take_in as run

    _say("import", run(find(workspace), files, users=people, skip_foreign=skip_foreign))
    typer.echo("next: mmtt qc audit")


def _say(command: str, result: Summary, more: str = "") -> None:
    new = ", ".join(f"{number:,} {kind}s" for kind, number in sorted(result.new.items())) or "nothing"
    typer.echo(f"{command}: {new} new, {result.changed:,} changed{more}")
    counted(result.reasons)
    for warning, number in result.warnings.items():
        typer.echo(f"warning: {number:,} {warning}", err=True)
