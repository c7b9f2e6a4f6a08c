"""`mmtt qc`: the audit of annotations, what the rules are, and what the matcher sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmtt_build.cli.common import DryRunOption, WorkersOption, WorkspaceOption, find, group, table

if TYPE_CHECKING:
    from mmtt_build.config import Qc
    from mmtt_build.stages.quality import Quality
    from mmtt_build.workspace import Workspace

app = group("Quality control of descriptions.")

JUDGED = {"annotation": "answers", "forgery": "forgeries", "annotator": "annotators", "dataset": "the dataset"}


@app.command()
def audit(
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Decode every picture and check the mask contract again.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="HTML page to write. [default: qc-report.html in the workspace]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was counted as JSON.")] = False,
    workers: WorkersOption = 0,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Judge answers, forgeries, annotators and the dataset by all rules; exit with 1 where a gate is not kept.

    What was judged before and has not changed is not judged again. Verdicts and findings are rows of the tables
    findings, image_checks and checks; a page shows them with pictures.
    """
    from mmtt_build.stages.quality import REPORT, quality, summary

    at = find(workspace)
    result = quality(at, pixels=pixels, report=report or at.root / REPORT, workers=workers, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(summary(at, result), indent=2))
    else:
        _say(at, result, dry_run)
    raise typer.Exit(0 if result.kept else 1)


def _say(workspace: Workspace, result: Quality, dry_run: bool) -> None:
    from mmtt_build.stages.quality import worst

    for what, counts, changed in (
        ("forgeries", result.images.verdicts, result.images.changed),
        ("answers", result.answers.verdicts, result.answers.changed),
    ):
        said = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in ("accept", "review", "reject"))
        typer.echo(f"{what}: {said}; {changed:,} {'would be judged' if dry_run else 'judged'} anew")
    if rows := worst(workspace, result):
        typer.echo("")
        heads = ("rule", "severity", "judges", "found", "of", "e.g.")
        table(heads, [(rule, said, JUDGED[judges], *counts) for rule, said, judges, *counts in rows])
    typer.echo("")
    for gate in result.gates:
        typer.echo(
            f"{'kept' if gate.kept else 'NOT KEPT'}: {gate.name} = {_value(gate.limit)}, is {_value(gate.value)}"
        )
    if result.report:
        typer.echo(f"\nreport: {result.report}")
    if result.answers.verdicts["reject"]:
        typer.echo("next: mmtt qc explain ID, mmtt qc send-back, mmtt qc override ID --reason TEXT")


@app.command()
def rules(
    name: Annotated[str, typer.Argument(help="Show all about this rule.", show_default=False)] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """List the rules, or show one: what it asks for and why, its severity, its thresholds in the recipe."""
    from inspect import getdoc

    from qc.base import load_rules, named, severity

    recipe = _thresholds(workspace)
    if name:
        rule = named(name)
        typer.echo(f"{rule.name}: judges {JUDGED[rule.subject]}\n\n{getdoc(rule.check)}\n")
        said = severity(rule, recipe)
        typer.echo(f"severity: {said or 'off'}" + ("" if said == rule.severity else f" (its own: {rule.severity})"))
        for key in rule.thresholds:
            typer.echo(f"{key} = {getattr(recipe, key)!r}, in [qc] of mmtt.toml")
        return
    rows = [(r.name, severity(r, recipe) or "off", JUDGED[r.subject], r.description) for r in load_rules()]
    table(("rule", "severity", "judges", "what it asks for"), rows)


@app.command()
def mentions(
    text: Annotated[
        str | None, typer.Argument(help="A description; - reads lines of --file's form from standard input.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help='One text a line, as a JSON string or an object with "text"; - is standard input.'),
    ] = None,
    official: Annotated[bool, typer.Option("--official", help="Match as the published label rule does.")] = False,
    language: Annotated[
        str | None, typer.Option(help="Lexicon, en or zh. [default: by the script of each text]", show_default=False)
    ] = None,
) -> None:
    """Show which parts of the face texts mention, one JSON line a text.

    "parts" has every label mentioned, in official order, also where each mention of it is "negated": the text says that
    the part is missing, that nothing is wrong with it, or that it is not meant. Positions count characters from 0;
    "side" is left, right, both or null.
    """
    from qc.listing import listing, texts

    for line in listing(texts(text, file), language=language, official=official):
        typer.echo(line.encode())  # JSON is UTF-8, whatever the terminal speaks


def _value(number: float | bool | None) -> str:
    if number is None:
        return "not known: nothing to count"
    return str(number).lower() if isinstance(number, bool) else f"{number:.4g}"


def _thresholds(folder: Path | None) -> Qc:
    """Of the workspace that is named or that one is in; else the defaults."""
    from mmtt_build.config import Qc
    from mmtt_build.errors import ConfigError

    try:
        found = find(folder)
    except ConfigError:
        if folder is not None:
            raise
        return Qc()
    return found.recipe.qc


from mmtt_build.cli import qc_explain as qc_explain  # noqa: E402 - its commands join the group
from mmtt_build.cli import qc_repair as qc_repair  # noqa: E402
