"""`mmtt build`: ingest, plan, generate, export, and all of them in a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmtt_build.cli.common import (
    ROWS_FAILED,
    DeviceOption,
    DryRunOption,
    RetryOption,
    WeightsOption,
    WorkersOption,
    WorkspaceOption,
    counted,
    find,
    group,
    table,
)

app = group("Build the dataset: ingest, plan, generate, export.")

_FOLDER = typer.Option(file_okay=False, show_default=False)


@app.command()
def ingest(
    celebamask_hq: Annotated[Path | None, typer.Option(help="Unpacked CelebAMask-HQ folder.")] = None,
    ffhq: Annotated[Path | None, typer.Option(help="FFHQ folder, with ffhq-dataset-v2.json for landmarks.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Any folder of aligned square faces.")] = None,
    portraits: Annotated[Path | None, typer.Option(help="Folder drawn by `mmtt portraits`.")] = None,
    label: Annotated[str, typer.Option(help="Prefix of the ids. [default: the source's name]")] = "",
    licence: Annotated[str, typer.Option(help="Licence of images that name none.")] = "",
    exclude: Annotated[
        Path | None, typer.Option(help="Text file, one image number or name a line: withdrawn, no_cv.")
    ] = None,
    ffhq_aging: Annotated[Path | None, typer.Option(help="ffhq_aging_labels.csv, to leave out minors.")] = None,
    identities: Annotated[Path | None, typer.Option(help="identity_CelebA.txt. [default: beside the images]")] = None,
    class_order: Annotated[
        str, typer.Option(help="Order of label maps in --folder: celebamask-hq or bisenet.")
    ] = "celebamask-hq",
    limit: Annotated[int, typer.Option(min=0, help="At most so many new images.", show_default=False)] = 0,
    retry_failed: RetryOption = False,
    readmit: Annotated[
        bool, typer.Option("--readmit", help="Take in what an earlier run left out and no rule leaves out now.")
    ] = False,
    parser: Annotated[
        str, typer.Option(help="Network for part maps that no source drew: bisenet. [default: the recipe's]")
    ] = "",
    analysis: Annotated[
        str, typer.Option(help="Face analysis: buffalo_l, or the path of a pack's folder. [default: the recipe's]")
    ] = "",
    device: DeviceOption = "auto",
    weights_dir: WeightsOption = None,
    workers: WorkersOption = 0,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Read source datasets: 512 px PNGs, part maps, identities, licences, exclusions.

    Without a source option, all sources of the recipe are read. A face analysis then runs over all images of
    the workspace whose face it has not seen, to leave out what is not one grown-up face and to know who is who; a
    parser over those that have no part map, or one drawn from landmarks.
    """
    from mmtt_build.errors import ConfigError
    from mmtt_build.parts import BISENET_CLASSES, CLASSES
    from mmtt_build.sources.base import Options
    from mmtt_build.stages.analyse import analyse, pack_of
    from mmtt_build.stages.analyse import need as need_pack
    from mmtt_build.stages.ingest import ingest as run
    from mmtt_build.stages.parse import need, parse
    from mmtt_build.weights import Weights

    found = find(workspace)
    parser = parser or found.recipe.ingest.parser
    analysis = analysis or pack_of(found)
    weights = Weights.search(found.root, weights_dir)
    given = {"celebamask-hq": celebamask_hq, "ffhq": ffhq, "folder": folder, "portraits": portraits}
    sources = {name: path for name, path in given.items() if path} or {
        name: found.root / path for name, path in found.recipe.sources.items()
    }
    rules = found.recipe.ingest
    orders = {"celebamask-hq": CLASSES, "bisenet": BISENET_CLASSES}
    if not (sources or parser or analysis):
        raise ConfigError("no source named", "give --celebamask-hq DIR (or another), or fill [sources] in mmtt.toml")
    if class_order not in orders:
        raise ConfigError(f"--class-order {class_order!r}", f"one of {', '.join(orders)}")
    exclude = exclude or (found.root / rules.exclude if rules.exclude else None)
    ffhq_aging = ffhq_aging or (found.root / rules.ffhq_aging if rules.ffhq_aging else None)
    if exclude and not exclude.is_file():
        raise ConfigError(f"exclusion list {exclude} is not a file", "one image number or name a line")
    if label and len(sources) > 1:
        raise ConfigError("--label fits one source", "ingest the sources one by one")
    options = Options(
        exclude_known_defects=rules.exclude_known_defects,
        min_age=rules.min_age,
        aging_csv=ffhq_aging,
        exclude=frozenset(exclude.read_text("utf-8").split()) if exclude else frozenset(),
        identities=identities,
        licence=licence or None,
        order=orders[class_order],
    )
    if parser:  # before hours of reading
        need(parser, weights, device)
    if analysis:
        need_pack(found, analysis, weights, device)
    failed = 0
    for name, path in sources.items():
        result = run(
            found, name, path, options,
            label=label, workers=workers, limit=limit, retry_failed=retry_failed, readmit=readmit, dry_run=dry_run,
            analysis_follows=bool(analysis),
        )  # fmt: skip
        verb = "would read" if dry_run else "read"
        typer.echo(
            f"{label or name}: {verb} {result.ok:,} images, left out {result.excluded:,}, failed {result.failed:,}; "
            f"{result.known:,} known already"
        )
        counted(result.reasons)
        failed += result.failed
    if analysis:
        seen = analyse(found, analysis, weights, device=device, threads=workers, dry_run=dry_run)
        if dry_run:
            typer.echo(f"{analysis}: would analyse {seen.pending:,} images that are here, and what comes")
        else:
            left_out = sum(seen.excluded.values())
            typer.echo(f"{analysis}: analysed {seen.analysed:,} images, left out {left_out:,}, failed {seen.failed:,}")
        counted(seen.excluded + seen.reasons)
        failed += seen.failed
    if parser:
        parsed = parse(found, parser, weights, device=device, threads=workers, dry_run=dry_run)
        if dry_run:
            typer.echo(f"{parser}: would parse {parsed.pending:,} images that are here, and what comes without a map")
        else:
            typer.echo(f"{parser}: parsed {parsed.ok:,} images, failed {parsed.failed:,}")
        if parsed.planned:
            typer.echo(f"  {parsed.planned:,} keep the map from landmarks that a plan was drawn with")
        counted(parsed.reasons)
        failed += parsed.failed
    if failed:
        raise typer.Exit(ROWS_FAILED)


@app.command()
def plan(
    total: Annotated[
        int, typer.Option(min=0, help="Forgeries in all. [default: the recipe's]", show_default=False)
    ] = 0,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw everything random and write it down; an earlier plan is only added to."""
    from mmtt_build.stages.plan import plan as run

    _show_plan(run(find(workspace), total=total, dry_run=dry_run), dry_run)


def _show_plan(result: Any, dry_run: bool) -> None:
    added = sum(result.added.values())
    typer.echo(f"plan: {result.before:,} rows before, {added:,} {'would be ' if dry_run else ''}added")
    if added:
        names = sorted({method for method, _ in result.added})
        splits = ("train", "val", "test")
        table(("method", *splits), [(name, *(result.added[name, split] for split in splits)) for name in names])
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def generate(
    method: Annotated[list[str] | None, typer.Option(help="Only this method; may be given again.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows.", show_default=False)] = 0,
    shard: Annotated[str, typer.Option(help="Only part i of n of the plan, e.g. 3/16.")] = "1/1",
    retry_failed: RetryOption = False,
    device: DeviceOption = "auto",
    weights_dir: WeightsOption = None,
    batch_size: Annotated[
        int, typer.Option(min=0, help="Images on the device at once. [default: the method's]", show_default=False)
    ] = 0,
    workers: WorkersOption = 0,
    debug_dir: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet per row there: what it was made from, and how.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Plan what is not planned yet, then forge what is pending."""
    from mmtt_build.stages.generate import Machine, Shard
    from mmtt_build.stages.generate import generate as run
    from mmtt_build.weights import Weights

    found = find(workspace)
    result = run(
        found,
        method or (),
        limit=limit,
        shard=Shard.parse(shard),
        retry_failed=retry_failed,
        machine=Machine(device, Weights.search(found.root, weights_dir), batch_size, workers),
        debug_dir=debug_dir and debug_dir.absolute(),
        dry_run=dry_run,
    )
    if result.planned.added or result.planned.warnings:
        _show_plan(result.planned, dry_run)
    if dry_run:
        typer.echo(f"generate: would forge {result.pending:,} pending rows")
        return
    made = ", ".join(f"{n:,} {status}" for status, n in sorted(result.outcomes.items())) or "nothing to do"
    typer.echo(f"generate: {made}")
    counted(result.reasons)
    if result.waiting:
        typer.echo(f"  {result.waiting:,} sequential edits wait for the forgery they start from")
    if result.outcomes["failed"]:
        raise typer.Exit(ROWS_FAILED)


@app.command()
def export(
    version: Annotated[
        str, typer.Option(help="Version of the release. [default: the recipe's]", show_default=False)
    ] = "",
    undescribed: Annotated[
        bool, typer.Option("--undescribed", help="Also forgeries without an accepted description; the card says so.")
    ] = False,
    with_pristine: Annotated[
        bool, typer.Option("--with-pristine", help="Add the pristine images; mind their licences.")
    ] = False,
    no_json: Annotated[bool, typer.Option("--no-json", help="Leave out the MMTT-JSON layout.")] = False,
    workers: WorkersOption = 0,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a release: Parquet triplets per split, the MMTT-JSON layout, card, attribution, checksums."""
    from mmtt_build.stages.export import export as run

    result = run(
        find(workspace),
        version=version,
        undescribed=undescribed,
        with_pristine=with_pristine,
        json_layout=not no_json,
        workers=workers,
        dry_run=dry_run,
    )
    counts = ", ".join(f"{split} {n:,}" for split, n in result.counts.items())
    typer.echo(f"export: {'would write ' if dry_run else ''}{counts} triplets, {result.bytes:,} bytes")
    if result.left_out:
        typer.echo("left out")
        counted(result.left_out)
    if not dry_run:
        typer.echo(f"release: {result.path}")


@app.command()
def run(
    undescribed: Annotated[
        bool, typer.Option("--undescribed", help="Export forgeries without a description too.")
    ] = False,
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Chain ingest, plan, generate and export with the recipe's sources."""
    stages: tuple[Callable[..., None], ...] = (ingest, generate)
    failed = False
    for stage in stages:
        try:
            stage(workers=workers, workspace=workspace)
        except typer.Exit as ended:
            failed |= ended.exit_code == ROWS_FAILED
    export(undescribed=undescribed, workers=workers, workspace=workspace)
    if failed:
        raise typer.Exit(ROWS_FAILED)
