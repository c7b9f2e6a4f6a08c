"""The examples in CONTRIBUTING.md run as they stand; the README names real commands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generators.base import Job, Method
from mmtt_build import masks, parts
from mmtt_build.config import Qc
from mmtt_build.portraits import draw
from mmtt_build.records import Annotation, Pristine
from qc import base

ROOT = Path(__file__).parents[1]


def example(tag: str) -> dict[str, Any]:
    """Names defined by the one code block of CONTRIBUTING.md with this tag."""
    (code,) = re.findall(rf"```python {tag}\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_example_method_forges_within_the_contract() -> None:
    method: Method = example("method")["RedNose"]()
    face = draw(5, 512)
    areas = tuple(int(n) for n in parts.areas(face.labels))
    params = method.plan(np.random.default_rng(1), Pristine("p", "g", "CC0-1.0", areas, (), ()), None)
    assert params is not None
    (made,) = method.forge([Job("j", 1, params, face.image, face.labels)])
    change = masks.check(face.image, made.image, made.mask)  # type: ignore[union-attr]
    assert change.changed_share > 0.5


@pytest.fixture
def no_more_rules_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    base.load_rules()
    monkeypatch.setattr(base, "RULES", dict(base.RULES))
    yield
    base.load_rules.cache_clear()


@pytest.mark.usefixtures("no_more_rules_after")
def test_the_example_rule_finds_what_it_says() -> None:
    example("rule")
    assert base.audit(_annotation("The nose is too wide."), Qc()) == []
    (finding,) = base.audit(_annotation("The NOSE is WRONG."), Qc())
    assert (finding.rule, finding.severity) == ("text.shouting", "review")
    assert "NOSE, WRONG." in finding.message


def _annotation(text: str) -> Annotation:
    return Annotation("a", "f", "described", text, "en", None, "ann-01", 61.0, "human")


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    commands = set(re.findall(r"^(?:\$ |    )mmtt ((?:build |qc )?[a-z-]+)", text, re.MULTILINE))
    assert {"init", "build ingest", "build generate", "build export", "verify"} <= commands
    for command in sorted(commands):
        result = subprocess.run(
            [str(Path(sys.executable).with_name("mmtt")), *command.split(), "--help"], capture_output=True, timeout=60
        )
        assert result.returncode == 0, command
