"""`mmtt`: the entry point, and the commands outside the build and qc groups."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmtt_build import __version__
from mmtt_build.cli import annotate, build, qc, weights
from mmtt_build.cli.common import DryRunOption, WorkersOption, WorkspaceOption, counted, find, group, table
from mmtt_build.errors import MmttError

app = group("Build datasets of forged faces: forged image, pixel-exact mask, human description.")
app.add_typer(build.app, name="build")
app.add_typer(annotate.app, name="annotate")
app.add_typer(qc.app, name="qc")
app.add_typer(weights.app, name="weights")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mmtt-build {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to make into a workspace.")]) -> None:
    """Make a workspace: a folder with the commented default recipe."""
    from mmtt_build.workspace import Workspace

    workspace = Workspace.init(folder)
    typer.echo(f"made {workspace.root / 'mmtt.toml'}\nnext: mmtt build ingest -w {folder} --celebamask-hq DIR")


@app.command()
def validate(workspace: WorkspaceOption = None) -> None:
    """Check the recipe, its sources and methods without doing any work."""
    from mmtt_build.stages.validate import validate as run

    found = find(workspace)
    problems = run(found)
    for problem in problems:
        typer.echo(f"{problem.message}\n  -> {problem.remedy}", err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{found.root / 'mmtt.toml'} is fine")


@app.command()
def status(workspace: WorkspaceOption = None) -> None:
    """Show, per method and split, what is planned, forged, rejected, described, accepted and exported."""
    from mmtt_build.stages.status import STEPS
    from mmtt_build.stages.status import status as run

    result = run(find(workspace))
    if not result.sources:
        typer.echo("nothing ingested yet\nnext: mmtt build ingest")
        return
    typer.echo("sources")
    table(("source", "status", "images"), [(*key, n) for key, n in sorted(result.sources.items())])
    if result.source_reasons:
        typer.echo("\nimages left out, by reason")
        counted(result.source_reasons)
    if result.rows:
        typer.echo("\nforgeries")
        rows = [(*key, *(counts[step] for step in STEPS)) for key, counts in result.rows.items()]
        sums = [sum(counts[step] for counts in result.rows.values()) for step in STEPS]
        table(("method", "split", *STEPS), [*rows, ("all", "", *sums)])
    if result.reasons:
        typer.echo("\nforgeries rejected or failed, by reason")
        counted(result.reasons)
    if result.releases:
        typer.echo(f"\nreleases: {', '.join(result.releases)}")


@app.command()
def sheet(
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option(min=1, help="Forgeries to show.")] = 12,
    method: Annotated[str, typer.Option(help="Only this method.")] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Draw a contact sheet: pristine, forged, mask overlay, text."""
    from mmtt_build.stages.sheet import contact_sheet

    shown = contact_sheet(find(workspace), out, count=count, method=method)
    typer.echo(f"{len(shown)} forgeries in {out}")


@app.command()
def methods(
    name: Annotated[str, typer.Argument(help="Show the options of this method.", show_default=False)] = "",
) -> None:
    """List the forgery methods this installation knows, or the options of one."""
    from dataclasses import fields
    from inspect import getdoc

    from mmtt_build.registry import METHODS

    if name:
        method = METHODS.get(name)
        typer.echo(getdoc(method))
        if fields(method.Options):
            typer.echo(f"\n[methods.{name}] of mmtt.toml: {getdoc(method.Options)}\n")
            table(("option", "default"), [(f.name, repr(f.default)) for f in fields(method.Options)])
        return
    rows = []
    for name in sorted(METHODS.table()):
        method = METHODS.get(name)
        first = (method.__doc__ or "").strip().splitlines()[0]
        rows.append((name, method.family, "donor" if method.needs_source else "-", first))
    table(("method", "family", "needs", "what it does"), rows)


@app.command()
def portraits(
    folder: Annotated[Path, typer.Argument(help="Folder to draw into.")],
    count: Annotated[int, typer.Option(min=2, help="Portraits to draw, half in each layout.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other people.")] = 0,
    workers: WorkersOption = 0,
) -> None:
    """Draw portraits (CC0) in the layouts of CelebAMask-HQ and FFHQ, for trials without any data."""
    from mmtt_build.stages.demo import draw_portraits

    draw_portraits(folder, count, seed=seed, workers=workers)
    typer.echo(f"{count} portraits in {folder}\nnext: mmtt build ingest --portraits {folder}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Workspace to make.")] = Path("mmtt-demo"),
    count: Annotated[int, typer.Option(min=16, help="Portraits to draw.")] = 40,
    forgeries: Annotated[int, typer.Option(min=4, help="Forgeries to make.")] = 60,
    label_studio: Annotated[
        bool, typer.Option("--label-studio", help="Then start a Label Studio (1 GB) with the pairs, to annotate them.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of Label Studio. [default: as last time, or 8080]")
    ] = None,
    image_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of its images. [default: as last time, or 8081]")
    ] = None,
    workers: WorkersOption = 0,
) -> None:
    """Run the whole pipeline on drawn portraits: no data, no weights, about a minute."""
    from mmtt_build.stages.demo import demo as run
    from mmtt_build.stages.demo import desk

    result = run(folder, portraits=count, forgeries=forgeries, workers=workers, say=typer.echo)
    typer.echo(
        f"\n{result.triplets} triplets in {result.release}\n"
        f"look at:  {result.sheet}\n"
        f"          {result.report}\n"
        f"try next: mmtt status -w {folder}\n"
        f"          mmtt verify {result.release}\n"
        f"          mmtt init my-dataset && mmtt build ingest -w my-dataset --celebamask-hq DIR"
    )
    if label_studio:
        typer.echo("")
        opened = desk(folder, port=port, image_port=image_port, say=typer.echo)
        typer.echo(
            f"{opened.tasks} pairs to annotate: {opened.url}\n"
            f"log in:   {opened.annotator}, with the password in {opened.logins}\n"
            f"          {opened.admin} sees all, with the password in {opened.access}\n"
            f"bring in: mmtt annotate pull -w {folder}\n"
            f"end it:   mmtt annotate stop -w {folder}"
        )


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="Folder of a release.")],
    quick: Annotated[bool, typer.Option("--quick", help="Only files and checksums, not what is in them.")] = False,
) -> None:
    """Check a release against its manifest and its promises; needs nothing but the release."""
    from mmtt_build.stages.verify import verify as run

    report = run(release, quick=quick)
    for problem in report.problems:
        typer.echo(problem, err=True)
    if report.problems:
        typer.echo(f"{len(report.problems)} problems in {release}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{release} is what its manifest says")


@app.command()
def bench(
    what: Annotated[list[str] | None, typer.Argument(help="Only these benchmarks. [default: all]")] = None,
    tasks: Annotated[int, typer.Option(min=30, help="Of `annotate`: tasks to push and pull.")] = 3000,
    postgres: Annotated[
        str, typer.Option(help="Of `annotate`: URL of a server instead of sqlite, or `package` for the one of [dev].")
    ] = "",
    texts: Annotated[int, typer.Option(min=100, help="Of `qc`: descriptions to judge.")] = 10_000,
    dry_run: DryRunOption = False,
) -> None:
    """Time each step beside its naive twin, in one run on one thread."""
    from annotation.database import with_password
    from mmtt_build.stages.bench.annotation import Options
    from mmtt_build.stages.bench.suite import BENCHES
    from mmtt_build.stages.bench.suite import bench as run

    if dry_run:
        table(
            ("benchmark", "what it times"), [(name, (f.__doc__ or "").splitlines()[0]) for name, f in BENCHES.items()]
        )
        return
    database = postgres if postgres in ("", "package") else with_password(postgres)
    run(what or (), annotation=Options(tasks, database), texts=texts, say=typer.echo)


class _Stopped(BaseException):
    """Ctrl-C or a scheduler's SIGTERM. Not a KeyboardInterrupt: typer swallows those without a word."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped(number)


def main() -> None:
    """Runs the command and turns every expected failure into one message and an exit code."""
    # Arrow's own allocator keeps what it once had, so that peaks grow with the tables: +26 % from 1,000 to 10,000 rows.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except MmttError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    except _Stopped as stopped:
        typer.echo("\nstopped; what is done is kept. The same command continues.", err=True)
        sys.exit(128 + stopped.args[0])
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        typer.echo(f"{error.strerror or error}{where}", err=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            typer.echo("  -> what is done is kept; free some space and run the same command again", err=True)
        sys.exit(1)
