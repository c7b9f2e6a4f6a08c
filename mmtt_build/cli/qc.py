"""`mmtt qc`: the audit of annotations, what the rules are, and what the matcher sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmtt_build.cli.common import DryRunOption, WorkspaceOption, counted, find, group, table

if TYPE_CHECKING:
    from mmtt_build.config import Qc

app = group("Quality control of descriptions.")

JUDGED = {"annotation": "answers", "forgery": "forgeries", "annotator": "annotators", "dataset": "the dataset"}


@app.command()
def audit(dry_run: DryRunOption = False, workspace: WorkspaceOption = None) -> None:
    """Pass every annotation through every rule and record verdicts and findings."""
    from mmtt_build.stages.audit import audit as run

    result = run(find(workspace), dry_run=dry_run)
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(result.verdicts.items())) or "no annotations"
    typer.echo(f"audit: {counts}; {result.changed:,} rows {'would change' if dry_run else 'changed'}")
    counted(result.findings)


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
