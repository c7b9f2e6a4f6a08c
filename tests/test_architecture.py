"""Arrows point one way: ground floor <- leaves <- stages <- command line; and nothing heavy is imported on the way."""

import ast
import hashlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = ("generators", "annotation", "qc")
HEAVY = {
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "facexlib", "insightface", "onnxruntime",
    "label_studio_sdk", "datasets", "pandas",
}  # fmt: skip


def package_of(path):
    """The dotted name of a module file: mmtt_build/stages/plan.py is mmtt_build.stages.plan."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runs_later(node):
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imported(path, at_import_only=False):
    """Dotted names that a file imports; with `at_import_only`, not those inside functions or for type checkers."""
    names = set()
    base = package_of(path) if path.name == "__init__.py" else package_of(path).rpartition(".")[0]

    def visit(node):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, node.module] if node.module else above)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
        elif at_import_only and runs_later(node):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8"), str(path)))
    return names


def modules(folder):
    return sorted(p for p in (ROOT / folder).rglob("*.py"))


def reaches(names, *packages):
    return sorted(name for name in names for package in packages if name == package or name.startswith(f"{package}."))


GROUND = [*sorted((ROOT / "mmtt_build").glob("*.py")), *modules("mmtt_build/sources"), *modules("mmtt_build/portraits")]
STAGES, CLI = modules("mmtt_build/stages"), modules("mmtt_build/cli")
LEAF_FILES = [path for leaf in LEAVES for path in modules(leaf)]
ALL = [*GROUND, *STAGES, *CLI, *LEAF_FILES]


def ids(path):
    return package_of(path)


@pytest.mark.parametrize("path", GROUND, ids=ids)
def test_the_ground_floor_imports_nothing_above_it(path):
    assert not reaches(imported(path), *LEAVES, "mmtt_build.stages", "mmtt_build.cli")


@pytest.mark.parametrize("path", LEAF_FILES, ids=ids)
def test_leaves_import_the_ground_floor_and_never_each_other(path):
    mine = path.relative_to(ROOT).parts[0]
    others = [leaf for leaf in LEAVES if leaf != mine]
    assert not reaches(imported(path), *others, "mmtt_build.stages", "mmtt_build.cli")


@pytest.mark.parametrize("path", STAGES, ids=ids)
def test_stages_do_not_know_the_command_line(path):
    assert not reaches(imported(path), "mmtt_build.cli")


@pytest.mark.parametrize("path", CLI, ids=ids)
def test_the_command_line_imports_its_stages_when_a_command_runs(path):
    assert not reaches(imported(path, at_import_only=True), "mmtt_build.stages", *LEAVES)


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_nothing_heavy_is_imported_with_a_module(path):
    """Networks may import torch at their top: they are only imported by `prepare`."""
    if re.search(r"generators/[^/]+/(net|nets|networks?|neural)(/|\.py)|generators/nn/", path.as_posix()):
        return
    assert not reaches(imported(path, at_import_only=True), *HEAVY)


def test_the_arrows_are_really_looked_at():
    """The parser sees imports of every form; else the tests above would pass on anything."""
    names = imported(ROOT / "mmtt_build/cli/build.py")
    assert {"mmtt_build.stages.ingest", "mmtt_build.stages.plan.plan", "typer"} <= names
    assert not reaches(imported(ROOT / "mmtt_build/cli/build.py", at_import_only=True), "mmtt_build.stages")
    assert len(GROUND) > 20
    assert len(STAGES) > 5


def test_importing_ground_floor_and_command_line_loads_nothing_heavy():
    names = [package_of(path) for path in (*GROUND, *CLI)]
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[2].split(): importlib.import_module(name)\n"
        "print(' '.join(name for name in sys.argv[1].split() if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, " ".join(HEAVY), " ".join(names)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_help_loads_no_numerics():
    script = (
        "import sys\n"
        "sys.argv = ['mmtt', '--help']\n"
        "from mmtt_build.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'pyarrow', 'scipy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Build datasets of forged faces" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["mmtt_build", *LEAVES])
def test_common_package_names_are_ours(name):
    assert Path(importlib.import_module(name).__file__) == ROOT / name / "__init__.py"


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_file_names_a_place_on_somebodys_machine():
    places = re.compile(rb"(?<![\w.~-])/(work|home|root|Users|mnt|scratch|nfs)/(?!me\b)\w|[A-Z]:\\\\Users")
    mine = Path(__file__)
    found = [p for p in tracked() if p.is_file() and p != mine and places.search(p.read_bytes())]
    assert found == []


@pytest.mark.shared
def test_no_sample_is_in_the_project(shared):
    samples = {
        hashlib.sha256(p.read_bytes()).digest() for p in shared.rglob("*") if p.is_file() and p.stat().st_size > 99
    }
    copied = [p for p in tracked() if p.is_file() and hashlib.sha256(p.read_bytes()).digest() in samples]
    assert copied == []
