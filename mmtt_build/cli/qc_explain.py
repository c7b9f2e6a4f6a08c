"""`mmtt qc explain`: one row with every rule's verdict and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtt_build.cli.common import WorkspaceOption, find, table
from mmtt_build.cli.qc import app

if TYPE_CHECKING:
    from mmtt_build.stages.explain import Explanation, Ruling


@app.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="ID", help="Of an annotation or a forgery, or how it begins.")],
    picture: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="PNG to write. [default: explain/ID.png in the workspace]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show one answer or forgery: every rule's verdict, the words it objects to, what became of it, and the picture."""
    import json
    import re

    from mmtt_build.stages.explain import explain as run
    from mmtt_build.stages.plate import draw

    found = find(workspace)
    told = run(found, name)
    file = picture or found.root / "explain" / (re.sub(r"[^\w.-]", "_", told.id) + ".png")
    draw(told, file)
    if as_json:
        typer.echo(json.dumps(_plain(told) | {"picture": str(file)}, indent=2, default=str))
        return
    _answer(told)
    if told.rules:
        typer.echo()
        _table(told.rules)
    typer.echo(f"\nforgery   {told.forgery_id or 'unknown'}  {told.method}  {told.forgery}")
    for annotation, verdict in told.answers.items():
        typer.echo(f"described {annotation}  {verdict or 'counts no more'}")
    if told.image_verdict:
        typer.echo(f"image     {told.image_verdict}, as of the last audit\n")
        _table(told.image_rules)
    else:
        typer.echo("image     not judged yet: mmtt qc audit")
    _history(told)
    typer.echo(f"\npicture   {file}")


def _answer(told: Explanation) -> None:
    from qc.report.marks import pieces, visible

    said = told.answer
    if said is None:
        return
    counts = said.verdict or ("not judged yet" if said.status == "ok" else f"counts no more ({said.status})")
    typer.echo(f"{said.id}  {said.kind}  {counts}" + (f", rules: {said.judged}" if said.judged else ""))
    if not said.audited:
        typer.echo("the last audit has not seen it as it is: mmtt qc audit")
    seconds = "no seconds recorded" if said.observation_s is None else f"{said.observation_s:.1f} s"
    when = f", {said.created_at:%Y-%m-%d %H:%M} UTC" if said.created_at else ""
    typer.echo(f"annotator {visible(said.annotator)}, {seconds}{when}, {said.answer or 'unreadable'}")
    spans = [span for ruling in told.rules for span in ruling.spans]
    parts, left_out = pieces(said.text or "", spans, 2000)
    words = "".join(f"[[{part.text}]]" if part.marked else part.text for part in parts)
    more = f" ({left_out:,} more characters)" if left_out else ""
    typer.echo(f"\n{words or '(no words)'}{more}")


def _table(rules: tuple[Ruling, ...]) -> None:
    from qc.report.marks import visible

    rows = []
    for ruling in rules:
        limits = ", ".join(f"{key} = {value!r}" for key, value in ruling.thresholds.items())
        said = visible(ruling.message[:300]).replace("\n", " ") or ruling.asks
        rows.append((ruling.rule, ruling.verdict, said + (f"  ({limits})" if limits else "")))
    table(("rule", "verdict", "what was found, or what it asks for"), rows)


def _history(told: Explanation) -> None:
    from qc.report.marks import visible

    for back in told.returned:
        then = f"answered anew as {back.successor}: {back.verdict or 'not judged yet'}" if back.successor else "open"
        typer.echo(f"sent back {back.id} {back.at:%Y-%m-%d %H:%M} UTC by {back.by} ({', '.join(back.rules)}); {then}")
    for one in told.decisions:
        force = "" if one.counts or not one.verdict else ", no longer in force"
        verdict = one.verdict or "the rules' own again"
        typer.echo(
            f"decided   {one.at:%Y-%m-%d %H:%M} UTC by {visible(one.by)}: {verdict}{force}: {visible(one.reason)}"
        )


def _plain(told: Explanation) -> dict[str, Any]:
    from dataclasses import asdict, replace

    plain = asdict(replace(told, pictures=()))
    del plain["pictures"]
    return plain
