"""`mmtt annotate watch`: submissions judged as they come."""

from __future__ import annotations

from typing import Annotated

import typer

from mmtt_build.cli.annotate import app
from mmtt_build.cli.common import WorkspaceOption, counted, find


@app.command()
def watch(
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="For Label Studio's webhooks. [default: a free one]", show_default=False),
    ] = 0,
    poll: Annotated[
        float,
        typer.Option(
            min=0, help="Ask the server every so many seconds instead; for one that is not ours.", show_default=False
        ),
    ] = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Judge every submission as it comes, and send rejected ones back at once; Ctrl-C ends it."""
    from mmtt_build.stages.watch import watch as run

    result = run(find(workspace), port=port, poll_s=poll, say=lambda line: typer.echo(line))
    counts = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(result.verdicts.items())) or "nothing came"
    typer.echo(f"watch: {counts}; {len(result.sent):,} sent back")
    counted(result.stayed)
    if result.refused:
        typer.echo(f"warning: {result.refused:,} requests were no webhooks of ours", err=True)
