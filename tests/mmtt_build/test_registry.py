import subprocess
import sys

import pytest

from mmtt_build.errors import ConfigError
from mmtt_build.registry import METHODS, SOURCES, Registry
from mmtt_build.sources.base import Source


def test_every_builtin_source_is_a_source():
    assert all(issubclass(SOURCES.get(name), Source) for name in SOURCES.builtin)


def test_every_builtin_method_is_itself_by_name():
    assert all(METHODS.get(name).name == name for name in METHODS.builtin)


def test_an_unknown_name_lists_the_close_ones_and_all():
    with pytest.raises(ConfigError) as caught:
        SOURCES.get("celeba-hq")
    assert caught.value.message == "unknown source 'celeba-hq'"
    assert "did you mean celebamask-hq?" in caught.value.remedy
    assert "known: celebamask-hq, ffhq, folder, portraits" in caught.value.remedy


def test_an_entry_point_adds_a_name_and_cannot_take_one_of_ours(tmp_path):
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lab.things]\nours = lab_things:THEIRS\nadded = lab_things:ADDED\n")
    (tmp_path / "lab_things.py").write_text("ADDED = 'added'\nTHEIRS = 'theirs'\n")
    script = (
        "from mmtt_build.registry import Registry\n"
        "registry = Registry('thing', {'ours': 'mmtt_build:__version__'}, group='lab.things')\n"
        "print(sorted(registry.table()), registry.get('added'), registry.get('ours'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout.startswith("['added', 'ours'] added ")
    assert "theirs" not in done.stdout


def test_listing_imports_nothing():
    registry = Registry("thing", {"absent": "no_such_module:Thing"})
    assert registry.table() == {"absent": "no_such_module:Thing"}
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry.get("absent")
