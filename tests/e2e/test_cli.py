"""The command line as a user meets it: in a process of its own, with exit codes and messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmtt_build import __version__
from mmtt_build.workspace import Workspace

COMMANDS = (
    "", "init", "validate", "status", "sheet", "methods", "portraits", "demo", "verify", "bench",
    "build", "build ingest", "build plan", "build generate", "build export", "build run", "qc", "qc audit", "qc rules",
    "qc mentions", "qc explain", "qc override", "qc send-back",
)  # fmt: skip


def mmtt(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("mmtt")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = mmtt(*command.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage: mmtt")
    assert "Traceback" not in result.stderr


def test_version() -> None:
    assert mmtt("--version").stdout == f"mmtt-build {__version__}\n"


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; sys.argv = ['mmtt', '--help']\n"
        "from mmtt_build.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'pyarrow', 'rich', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_workspace_from_nothing_to_a_verified_release(tmp_path: Path, portraits: Path) -> None:
    folder = tmp_path / "my faces"
    made = mmtt("init", folder)
    assert (made.returncode, "next: mmtt build ingest" in made.stdout) == (0, True)
    recipe = folder / "mmtt.toml"
    text = recipe.read_text("utf-8").replace("total = 0 ", "total = 8 ")
    recipe.write_text(text.replace("[sources]", f'[sources]\nportraits = "{portraits}"'), "utf-8")
    assert mmtt("validate", cwd=folder).returncode == 0
    inside = folder / "deeper"
    inside.mkdir()
    result = mmtt("build", "run", "--undescribed", "--workers", "1", cwd=inside)  # found from a folder below
    assert result.returncode == 0, result.stderr
    assert "release:" in result.stdout
    release = folder / "releases" / "my-dataset-0.1.0"
    assert mmtt("verify", release).returncode == 0
    shown = mmtt("status", "-w", folder)
    assert "portraits" in shown.stdout
    assert "releases: 0.1.0" in shown.stdout
    assert mmtt("sheet", "-w", folder, "--out", tmp_path / "s.png", "--count", "2").returncode == 0
    audit = mmtt("qc", "audit", "-w", folder)
    assert audit.returncode == 0, audit.stdout
    assert "answers: 0 accept, 0 review, 0 reject" in audit.stdout
    again = mmtt("build", "export", "-w", folder, "--undescribed")
    assert again.returncode == 2
    assert "never overwritten" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("build", "plan"), 2, "mmtt init DIR makes a workspace"),
        (("build", "ingest", "-w", "W"), 2, "no source named"),
        (("build", "ingest", "-w", "W", "--celebamask-hq", "nowhere"), 1, "nowhere is not a folder"),
        (("build", "ingest", "-w", "W", "--folder", "W", "--class-order", "alphabetical"), 2, "celebamask-hq, bisenet"),
        (("build", "ingest", "-w", "W", "--folder", "W", "--exclude", "no.txt"), 2, "list no.txt is not a file"),
        (("build", "generate", "-w", "W"), 2, "no usable image"),
        (("build", "generate", "-w", "W", "--method", "wrap"), 2, "did you mean warp?"),
        (("build", "generate", "-w", "W", "--shard", "9/3"), 2, "3/16"),
        (("build", "generate", "-w", "W", "--limit", "-1"), 2, "--limit"),
        (("build", "export", "-w", "W"), 2, "nothing to export"),
        (("init", "W"), 2, "is a workspace already"),
        (("sheet", "-w", "W"), 2, "no forgery to show"),
        (("bench", "everything"), 2, "unknown benchmark everything"),
        (("demo", "W"), 2, "workspace of yours"),
        (("qc", "audti"), 2, "audti"),
    ],
)
def test_mistakes_are_answered_with_the_way_out(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Workspace.init(tmp_path / "W")
    result = mmtt(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_recipe_with_a_mistake_names_its_line(tmp_path: Path) -> None:
    mmtt("init", "W", cwd=tmp_path)
    recipe = tmp_path / "W" / "mmtt.toml"
    lines = recipe.read_text("utf-8").splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("val = "))
    lines[number] = "vall = 0.1"
    recipe.write_text("\n".join(lines), "utf-8")
    result = mmtt("validate", "-w", "W", cwd=tmp_path)
    assert result.returncode == 2
    assert f"line {number + 1}: split.vall: unknown key" in result.stderr
    assert "did you mean 'val'?" in result.stderr
