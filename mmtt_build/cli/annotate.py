"""`mmtt annotate`: the Label Studio server, local or the lab's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mmtt_build.cli.common import WorkspaceOption, find, group

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
def status(workspace: WorkspaceOption = None) -> None:
    """Say whether the server answers, its version, and whether the token works; exit code 1 if it cannot be used."""
    from annotation.access import from_environment
    from mmtt_build.stages.serve import state

    now = state(None if from_environment() else find(workspace))
    typer.echo(f"server   {now.url}\nnamed by {now.where}\nversion  {now.version}")
    if now.server is not None:
        typer.echo(f"images   port {now.server.access.image_port}")
    if now.answer.problem:
        typer.echo(f"problem  {now.answer.problem}\n  -> {_remedy(now.server is None)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"token    accepted, {now.answer.user}")


def _remedy(lab: bool) -> str:
    return "check the address and the token in the environment" if lab else "mmtt annotate serve starts it again"


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


from mmtt_build.cli import annotate_work as annotate_work  # noqa: E402 - its commands join the group
