"""What annotators look at, and what a browser's list of requests says of it; without a server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from annotation.pictures import NAMES, Pictures
from mmtt_build import images, store
from mmtt_build.errors import StoreError
from tests.annotation.work import forge

HOST = "https://images.example"
FORGERY, BASE = "blendswap-000", "base-000"


@pytest.fixture
def made(workspace):
    """A pair and a control of one base."""
    forge(workspace, range(1))
    for age, (kind, name) in enumerate([("pristine", BASE), ("forged", FORGERY), ("masks", FORGERY)], 1):
        os.utime(workspace.root / workspace.image_path(kind, name), (1e9 + age, 1e9 + age))
    stored = {
        "pristine": workspace.image_path("pristine", BASE), "forged": workspace.image_path("forged", FORGERY),
        "mask": workspace.image_path("masks", FORGERY),
        "focus": [100, 50],
    }  # fmt: skip
    rows = {"1a": {"forgery_id": FORGERY, **stored}, "2b": {"forgery_id": None, **stored}}
    with ThreadPoolExecutor(1) as pool:
        yield Pictures(workspace, HOST, rows, pool)


def files(made, task):
    start = made.workspace.root / made.workspace.image_path("tasks", task).removesuffix(".png")
    return [start.with_name(f"{start.name}-{name}.png") for name in NAMES]


def test_a_list_of_requests_tells_no_control(made):
    pair, control = made.make(["1a", "2b"])
    assert control["focus_x"] == pair["focus_x"] and control["focus_y"] == pair["focus_y"]
    assert [control[name].replace("2b", "") for name in NAMES] == [
        f"{HOST}/{path.relative_to(made.workspace.root)}".replace("2b", "") for path in files(made, "2b")
    ]
    of_pair, of_control = ([path.stat() for path in files(made, task)] for task in ("1a", "2b"))
    assert (
        [int(of.st_mtime) for of in of_pair] == [int(of.st_mtime) for of in of_control] == [1e9 + 2, 1e9 + 1, 1e9 + 3]
    )
    sizes = [of.st_size for of in of_control]
    assert sizes[0] - sizes[1] == 12 + abs(of_pair[0].st_size - of_pair[1].st_size)
    assert sizes[1:] == [of.st_size for of in of_pair[1:]]


def test_a_control_shows_the_pristine_as_forged_and_a_pair_costs_no_space(made):
    list(made.make(["1a", "2b"]))
    (_, pristine, _), (as_forged, _, shown) = files(made, "1a"), files(made, "2b")
    assert (images.decode_rgb(as_forged.read_bytes()) == images.decode_rgb(pristine.read_bytes())).all()
    for path, name in zip(files(made, "1a"), NAMES, strict=True):
        assert path.samefile(made.workspace.root / made.rows["1a"][name])
    assert shown.samefile(made.workspace.root / made.rows["2b"]["mask"])


def test_a_file_system_without_links_gets_copies(made, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (data,) = made.make(["1a"])
    forged, *_ = files(made, "1a")
    stored = made.workspace.root / made.rows["1a"]["forged"]
    assert forged.read_bytes() == stored.read_bytes() and not forged.samefile(stored)
    assert made.fits("1a", data)


def test_lost_half_written_and_outdated_pictures_do_not_fit(made):
    (data,) = made.make(["1a"])
    assert made.fits("1a", data)
    assert not made.fits("1a", {**data, "mask": "elsewhere"})
    for path in files(made, "1a"):
        path.unlink()
        assert not made.fits("1a", data)
        list(made.make(["1a"]))
        assert made.fits("1a", data)
        path.unlink()
        path.write_bytes(b"half")
        assert not made.fits("1a", data)
        list(made.make(["1a"]))
        assert made.fits("1a", data)
    stored = made.workspace.root / made.rows["1a"]["mask"]
    store.write_file(stored, stored.read_bytes())  # forged anew
    assert not made.fits("1a", data)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_lost_or_leaves_the_workspace_is_refused(made, name, tmp_path):
    task = made.rows["2b"]
    (made.workspace.root / task[name]).unlink()
    with pytest.raises(StoreError, match="task 2b cannot be shown"):
        list(made.make(["2b"]))
    task[name] = "../secret.png"
    with pytest.raises(StoreError, match="leaves the workspace"):
        list(made.make(["2b"]))
    task[name] = None
    with pytest.raises(StoreError, match="a forgery that is not there"):
        list(made.make(["2b"]))
