"""What the command files share: the workspace option and plain-text output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mmtt_build.workspace import Workspace

ROWS_FAILED = 3
"""Exit code of a run that finished while some rows failed."""

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="Workspace folder. [default: this folder, or the one it lies in]"),
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes. [default: all cores]", show_default=False)]
DeviceOption = Annotated[
    str, typer.Option(help="Of the neural methods: auto, cpu, cuda:0, or cuda:0,1 for a process per GPU.")
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights-dir", help="Folder of checkpoints, before the usual places.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and write nothing.")]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Try again what was rejected or failed before.")]


def group(help_text: str) -> typer.Typer:
    """A command group without typer's rich formatting, which alone takes half a second to import."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def find(folder: Path | None) -> Workspace:
    """The workspace the user means."""
    from mmtt_build.workspace import Workspace

    return Workspace.find(folder or Path())


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows in aligned columns: text to the left, numbers to the right."""
    body = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    right = [bool(body) and all(row[i].replace(",", "").isdecimal() for row in body) for i in range(len(header))]
    widths = [max(len(row[i]) for row in [list(header), *body]) for i in range(len(header))]
    for row in [list(header), *body]:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def counted(counts: Any, most: int = 12) -> None:
    """Prints a Counter of reasons, the most frequent first."""
    for reason, number in counts.most_common(most):
        typer.echo(f"  {number:>7,}  {reason if isinstance(reason, str) else ': '.join(reason)}")
    if len(counts) > most:
        typer.echo(f"           ... and {len(counts) - most:,} more reasons, in the tables")
