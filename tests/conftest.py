"""What many tests share: drawn portraits on disk, quickly made faces, fresh workspaces, the internal samples."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mmtt_build import parts
from mmtt_build.portraits import write_celebamask_hq, write_ffhq
from mmtt_build.workspace import Workspace

FIRST_CELEBA, FIRST_FFHQ = 1998, 999
"""Numbers of the first portraits: both layouts begin a new folder among the drawn ones."""

cv2.setNumThreads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks, and test files run side by side


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `mmtt portraits` draws it. Read only: copy what a test changes.

    `celebamask-hq` holds 1998 to 2001, of which the first two are one person; `ffhq` holds 999 to 1001.
    """
    folder = tmp_path_factory.mktemp("portraits")
    write_celebamask_hq(folder / "celebamask-hq", [1, 2, 3, 5], [1, 1, 3, 5], start=FIRST_CELEBA, workers=1)
    write_ffhq(folder / "ffhq", [11, 12, 13], start=FIRST_FFHQ, workers=1)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace with the default recipe."""
    return Workspace.init(tmp_path / "workspace")


@pytest.fixture(scope="session")
def quick_face() -> Callable[..., tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Makes a stand-in for a face in milliseconds, where a test needs many and looks at none.

    Another seed gives another perceptual hash.

    Returns:
        A function of seed and size to (size, size, 3) uint8 RGB and its (size, size) uint8 part map.
    """

    def make(seed: int, size: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
        image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        labels = np.zeros((size, size), np.uint8)
        for name, (x, y), (width, height) in (
            ("skin", (0.5, 0.5), (0.3, 0.4)),
            ("nose", (0.5, 0.52), (0.04, 0.08)),
            ("r_eye", (0.38, 0.42), (0.05, 0.03)),
            ("l_eye", (0.62, 0.42), (0.05, 0.03)),
            ("u_lip", (0.5, 0.69), (0.1, 0.02)),
            ("l_lip", (0.5, 0.73), (0.1, 0.02)),
        ):
            centre, axes = (round(x * size), round(y * size)), (round(width * size), round(height * size))
            cv2.ellipse(labels, centre, axes, 0, 0, 360, parts.INDEX[name], -1)
        return image, labels

    return make


@pytest.fixture(scope="session")
def bisenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with a BiSeNet that knows the portraits of `fitted_parser.SEEDS`. Read only."""
    import fitted_parser
    import torch

    from mmtt_build.weights import Weights

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(fitted_parser.fit(), folder / "parsing_bisenet.pth")
    Weights((folder,)).add("bisenet", folder / "parsing_bisenet.pth")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own, to fill up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs more rights than this process has")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The internal samples and references beside the checkout; the test is skipped where they are absent."""
    folder = Path(__file__).parents[1] / "../shared"
    if not (folder / "samples").is_dir():
        pytest.skip("needs the internal samples in ../shared")
    return folder
