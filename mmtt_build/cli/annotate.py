"""`mmtt annotate`: the Label Studio server, local or the lab's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmtt_build.cli.common import WorkspaceOption, find, group, table

if TYPE_CHECKING:
    from mmtt_build.stages.standing import Standing

app = group("Annotation of forged pairs by people, on Label Studio.")


@app.command()
def install() -> None:
    """Make the local server's own Python environment, once; `serve` does it, too."""
    from annotation import environment

    folder = environment.default()
    made = environment.make(folder, typer.echo)
    typer.echo(f"Label Studio {environment.VERSION} is {'installed' if made else 'already'} in {folder}")


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: as last time, or 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: as last time, or 8080]")] = None,
    image_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the images. [default: as last time, or 8081]")
    ] = None,
    postgres: Annotated[
        str | None, typer.Option(help="URL of a database instead of sqlite, without password: that is $PGPASSWORD.")
    ] = None,
    guard: Annotated[
        bool, typer.Option("--guard/--no-guard", help="Hold annotators to the recipe's limits and to their own work.")
    ] = True,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and stop the server on Ctrl-C.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Start a local Label Studio with the images of the workspace; install and set up what is missing."""
    from annotation import environment
    from annotation.database import with_password
    from mmtt_build.stages.serve import guarded, local

    found = find(workspace)
    address = with_password(postgres) if postgres is not None else None
    server = local(found, make=True)
    environment.make(server.environment, typer.echo)
    settings, variables = guarded(found, server) if guard else (None, None)
    started = server.start(
        host=host, port=port, image_port=image_port, postgres=address, guard=settings, variables=variables,
        say=typer.echo,
    )  # fmt: skip
    access = server.access
    typer.echo(
        f"Label Studio {access.version} {'runs' if started else 'runs already'}: {access.url}\n"
        f"log in:  {access.username}, with the password in {server.data / 'access.json'}\n"
        f"images:  of {found.root}, on port {access.image_port}\n"
        f"data:    {server.data}"
    )
    if started and guard:
        typer.echo(f"guard:   {found.recipe.qc.min_observation_s:g} s a pair, {found.recipe.qc.max_words} words")
    if access.host not in ("127.0.0.1", "localhost"):
        typer.echo("note:    others can reach it, and it speaks no TLS: put a reverse proxy before it")
    if foreground:
        typer.echo("Ctrl-C stops it")
        try:
            while server.running():
                time.sleep(1)
        finally:
            server.stop()
        typer.echo(f"Label Studio ended by itself; see {server.label_studio.log}", err=True)
        raise typer.Exit(1)
    typer.echo("next:    mmtt annotate status, mmtt annotate stop")


@app.command()
def stop(workspace: WorkspaceOption = None) -> None:
    """Stop the local server; what it holds is kept."""
    from mmtt_build.stages.serve import local

    typer.echo("stopped" if local(find(workspace)).stop() else "it does not run")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, workspace: WorkspaceOption = None
) -> None:
    """Say how the server stands (exit code 1 if it cannot be used), and how far annotators are as of the last pull."""
    import json
    from dataclasses import asdict

    from annotation.access import from_environment
    from mmtt_build.errors import ConfigError, ServerError
    from mmtt_build.stages.serve import state
    from mmtt_build.stages.standing import standing, totals

    lab = from_environment()
    try:
        found = find(workspace)
    except ConfigError:
        if lab is None or workspace is not None:
            raise
        found = None  # the lab's server stands for itself
    try:
        now = state(found)
        problem, remedy = now.answer.problem, _remedy(now.server is None)
    except ServerError as error:
        now, problem, remedy = None, error.message, error.remedy
    rows = standing(found) if found is not None else []
    if as_json:
        server = {
            "url": now and now.url, "named_by": now and now.where, "version": now and now.answer.version,
            "user": now and now.answer.user, "problem": problem or None,
        }  # fmt: skip
        batches = [asdict(row) for row in rows]
        typer.echo(json.dumps({"server": server, "batches": batches, "totals": asdict(totals(rows))}, indent=2))
    else:
        if now is not None:
            typer.echo(f"server   {now.url}\nnamed by {now.where}\nversion  {now.version}")
            if now.server is not None:
                typer.echo(f"images   port {now.server.access.image_port}")
        if problem:
            typer.echo(f"problem  {problem}\n  -> {remedy}", err=True)
        elif now is not None:
            typer.echo(f"token    accepted, {now.answer.user}")
        if rows:
            typer.echo()
            _table([*rows, totals(rows)])
    if problem:
        raise typer.Exit(1)


def _remedy(lab: bool) -> str:
    return "check the address and the token in the environment" if lab else "mmtt annotate serve starts it again"


def _table(rows: Sequence[Standing]) -> None:
    table(
        ("annotator", "batch", "tasks", "done", "today", "repair", "per hour", "hours left", "last"),
        (
            (row.annotator, row.batch, row.tasks, row.done, row.today, row.repair, _round(row.per_hour),
             _round(row.hours_left), (row.last or "-")[:16])
            for row in rows
        ),
    )  # fmt: skip


def _round(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


@app.command()
def backup(
    file: Annotated[Path | None, typer.Argument(help="File to write. [default: beside the data folder]")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Back up the local server, running or not: database, uploads, users and keys in one file."""
    from annotation.backup import backup as run
    from mmtt_build.stages.serve import local

    typer.echo(f"backed up to {run(local(find(workspace)), file)}; it holds passwords, keep it safe")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A backup.")],
    replace: Annotated[bool, typer.Option("--replace", help="Even if there is data; it is kept aside.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Put a backup in the place of the local server's data."""
    from annotation.backup import restore as run
    from mmtt_build.stages.serve import local

    aside = run(local(find(workspace), make=True, lost=True), file, over=replace)
    typer.echo(f"restored{f'; the old data is in {aside}' if aside else ''}\nnext: mmtt annotate serve")


from mmtt_build.cli import annotate_draft as annotate_draft  # noqa: E402 - its commands join the group
from mmtt_build.cli import annotate_people as annotate_people  # noqa: E402 - its commands join the group
from mmtt_build.cli import annotate_watch as annotate_watch  # noqa: E402 - its commands join the group
from mmtt_build.cli import annotate_work as annotate_work  # noqa: E402 - its commands join the group
