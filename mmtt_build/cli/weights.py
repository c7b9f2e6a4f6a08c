"""`mmtt weights`: checkpoints, where they lie, whether they are what they claim, whose terms they have."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from mmtt_build.cli.common import WorkspaceOption, group, table
from mmtt_build.errors import TermsNotAccepted

app = group("Checkpoints of the methods: list, show, add, check, accept, fetch.")

DirOption = Annotated[
    Path | None, typer.Option("--weights-dir", help="Look here first; `add` puts it here.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Name in the catalogue, as `mmtt weights list` shows it.")]
AcceptOption = Annotated[bool, typer.Option("--accept-terms", help="Accept the licence, too; `show` prints it.")]


@app.command("list")
def list_(
    name: Annotated[str, typer.Argument(help="Only this one, with all that is known about it.")] = "",
    weights_dir: DirOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """List every checkpoint that a method may need: licence, state, where it lies, what for."""
    from mmtt_build.stages.weights import overview, search

    if name:
        show(name, weights_dir, workspace)
        return
    weights = search(workspace, weights_dir)
    rows = [(of.name, of.licence, state, where, of.purpose) for of, state, where in overview(weights)]
    table(("name", "licence", "state", "where", "what for"), rows)
    typer.echo(f"\nlooked in: {', '.join(map(str, weights.folders))}, and the hub's cache for hub models")
    typer.echo("next: mmtt weights show NAME says how to obtain one")


@app.command()
def show(name: NameArgument, weights_dir: DirOption = None, workspace: WorkspaceOption = None) -> None:
    """Show all about one checkpoint: state, identity, authors' page, licence and terms, how to obtain it."""
    from mmtt_build.stages.weights import describe, search

    lines = describe(search(workspace, weights_dir), name)
    width = max(len(label) for label, _ in lines) + 2
    typer.echo(name)
    for label, text in lines:
        typer.echo(textwrap.indent(text, " " * (width + 2)).replace(" " * (width + 2), f"  {label:<{width}}", 1))


@app.command()
def add(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="The file, or the folder where the checkpoint is one.")],
    accept_terms: AcceptOption = False,
    link: Annotated[bool, typer.Option("--link", help="Leave it where it is and link to it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take it even if other content was added before.")] = False,
    weights_dir: DirOption = None,
) -> None:
    """Prove a checkpoint, record its SHA-256 and copy it to where the methods look for it."""
    from mmtt_build.stages.weights import remark
    from mmtt_build.weights import Weights

    weights = Weights.search(None, weights_dir)
    result = weights.add(name, file, accept=accept_terms, link=link, replace=replace)
    typer.echo(f"{name} is what it should be, and now in {result.path}\nsha256 {result.identity}")
    if more := remark(weights, result.entry):
        typer.echo(more)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Only this one. [default: all that are there]")] = "",
    weights_dir: DirOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Hash checkpoints again and prove them against their networks: names, shapes, dtypes; no forward pass."""
    from mmtt_build.stages.weights import check as run
    from mmtt_build.stages.weights import search

    good = bad = 0
    for result in run(search(workspace, weights_dir), name):
        if result.error:
            typer.echo(f"{result.name}: {type(result.error).__name__}: {result.error}", err=True)
            bad += 1
        else:
            typer.echo(f"{result.name}: fine, {result.path}" + (f"\n  {result.remark}" if result.remark else ""))
            good += 1
    if bad:
        typer.echo(f"{bad} of {good + bad} checkpoints cannot be used", err=True)
        raise typer.Exit(1)
    if not good:
        typer.echo("no checkpoint is there yet\nnext: mmtt weights list")


@app.command()
def accept(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept without being asked.")] = False,
    weights_dir: DirOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a checkpoint's terms and record that you accept them; once is enough."""
    from mmtt_build.stages.weights import search
    from mmtt_build.weights import entry

    of, weights = entry(name), search(workspace, weights_dir)
    if not of.terms:
        typer.echo(f"{name}: {of.licence}, nothing to accept")
        return
    typer.echo(f"{name}: {of.licence}\n{of.terms}\n{of.licence_page}".rstrip())
    if weights.accepted(name):
        typer.echo("accepted already")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise TermsNotAccepted(f"'{name}': nobody is there to ask", f"mmtt weights accept {name} --yes")
        if not typer.confirm("Do you accept these terms?"):
            raise TermsNotAccepted(f"'{name}': its terms were not accepted", f"mmtt weights accept {name}")
    typer.echo(f"accepted, noted in {weights.accept(name)}")


@app.command()
def fetch(
    name: NameArgument, accept_terms: AcceptOption = False, weights_dir: DirOption = None,
    workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """Download a model from the Hugging Face hub; of other checkpoints, say where their authors publish them."""
    from mmtt_build.stages.weights import fetch as run
    from mmtt_build.stages.weights import search

    weights = search(workspace, weights_dir)
    typer.echo(f"{name} is fetched and what it should be: {run(weights, name, accept=accept_terms)}")
