"""`mmtt qc send-back` and `override`: what follows from an audit."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from mmtt_build.cli.common import DryRunOption, WorkspaceOption, find, table
from mmtt_build.cli.qc import app
from mmtt_build.errors import ConfigError

ByOption = Annotated[str, typer.Option(help="Who decides. [default: the system's user]", show_default=False)]


@app.command()
def override(
    name: Annotated[str, typer.Argument(metavar="ID", help="Annotation id.")],
    reason: Annotated[str, typer.Option(help="Why, for the record; of a rejection the annotator reads it, too.")],
    verdict: Annotated[str, typer.Option(help="accept, reject or review.")] = "accept",
    clear: Annotated[bool, typer.Option("--clear", help="Take the decision back: the rules' own verdict.")] = False,
    by: ByOption = "",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Decide on an annotation, whatever the rules say; it holds until its words change."""
    from mmtt_build.stages.override import override as run

    row = run(find(workspace), name, None if clear else verdict, reason, by or getpass.getuser(), dry_run=dry_run)
    what = "by the rules again" if clear else row["verdict"]
    typer.echo(f"override: {name} {'would be' if dry_run else 'is'} {what}, {row['by']}: {row['reason']}")


@app.command("send-back")
def send_back(
    names: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Annotation ids.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Those that this rule rejects; may be repeated.")] = None,
    annotator: Annotated[str, typer.Option(help="Those of this annotator, e.g. a07.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that are rejected.")] = False,
    by: ByOption = "",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Return rejected annotations to who wrote them, in Label Studio, with the reasons in plain words."""
    from mmtt_build.stages.send_back import Selection
    from mmtt_build.stages.send_back import send_back as run

    selection = Selection(tuple(names or ()), tuple(rule or ()), annotator)
    if everything == (selection != Selection()):
        raise ConfigError("which ones is not said, or twice", "name ids, --rule or --annotator; or --all, alone")
    result = run(find(workspace), selection, by or getpass.getuser(), dry_run=dry_run)
    for annotation, reasons in result.sent.items():
        typer.echo(f"{annotation}\n" + "\n".join(f"  {reason}" for reason in reasons))
    if result.annotators:
        table(("annotator", "sent back"), sorted(result.annotators.items()))
    typer.echo(f"send-back: {len(result.sent):,} {'would be ' if dry_run else ''}sent back")
    for why, stay in sorted(result.skipped.items()):
        typer.echo(f"  {len(stay):>7,}  {why}: {', '.join(stay[:3])}{' ...' if len(stay) > 3 else ''}")
