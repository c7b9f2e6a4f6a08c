"""`mmtt qc`: the audit of annotations, and what the rules are."""

from __future__ import annotations

import typer

from mmtt_build.cli.common import DryRunOption, WorkspaceOption, counted, find, group, table

app = group("Quality control of descriptions.")


@app.command()
def audit(dry_run: DryRunOption = False, workspace: WorkspaceOption = None) -> None:
    """Pass every annotation through every rule and record verdicts and findings."""
    from mmtt_build.stages.audit import audit as run

    result = run(find(workspace), dry_run=dry_run)
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(result.verdicts.items())) or "no annotations"
    typer.echo(f"audit: {counts}; {result.changed:,} rows {'would change' if dry_run else 'changed'}")
    counted(result.findings)


@app.command()
def rules() -> None:
    """List the rules."""
    from qc import rules as registered  # noqa: F401
    from qc.base import RULES

    table(("rule", "severity", "what it asks for"), [(r.name, r.severity, r.description) for r in RULES.values()])
