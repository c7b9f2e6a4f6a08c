"""Writes drawn portraits to disk as CelebAMask-HQ and FFHQ lay out their files.

Every file is written under a temporary name and renamed into place, and a file that is there is not written again; so a
run may be killed at any time and repeated. The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.images import decode_stored
from mmtt_build.masks import to_grey
from mmtt_build.portraits.draw import draw, landmarks

_Job = tuple[int, int, int]  # number, seed, identity

CELEBA_HQ = "CelebA-HQ-img"
CELEBA_MASKS = "CelebAMask-HQ-mask-anno"
FFHQ_JSON = "ffhq-dataset-v2.json"

_PER_MASK_FOLDER = 2000
_PER_FFHQ_FOLDER = 1000
_DATE = "2025-01-01"  # fixed, since the files must not depend on the day they were drawn
_PARTITION_TRAIN, _PARTITION_VAL = 162770, 182637  # CelebA's last original number of train and of val
_CELEBA_IMAGES = 202599


def write_celebamask_hq(
    folder: Path,
    seeds: Sequence[int],
    identities: Sequence[int] | None = None,
    start: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] | None = None,
) -> None:
    """Draws one portrait per seed and writes them as CelebAMask-HQ.

    Images are 1024 px baseline JPEG of quality 95; masks are 512 px RGB PNG of 0 and 255, one per present part.
    Beside them lie the mapping to CelebA's numbers, CelebA's identity file and its partition, one row a portrait.

    Args:
        folder: the dataset's root; made if it is missing.
        seeds: one portrait each; image number `start` is drawn from the first.
        identities: the person of each portrait, by default one person per seed.
        start: number of the first image.
        workers: processes; all cores by default.
        advance: called after each portrait that is on disk.

    Raises:
        ValueError: not as many identities as seeds, or a number outside CelebA's 202,599.
    """
    people = _people(seeds, identities)
    if start < 0 or start + len(seeds) > _CELEBA_IMAGES:
        raise ValueError(f"images {start}-{start + len(seeds) - 1}: numbers must lie within 0-{_CELEBA_IMAGES - 1}")
    numbers = range(start, start + len(seeds))
    (folder / CELEBA_HQ).mkdir(parents=True, exist_ok=True)
    for part in {number // _PER_MASK_FOLDER for number in numbers}:
        (folder / CELEBA_MASKS / str(part)).mkdir(parents=True, exist_ok=True)
    for _ in _each(partial(_celebamask_hq, folder), zip(numbers, seeds, people, strict=True), workers):
        if advance:
            advance()
    originals = [_original(number) for number in numbers]
    mapping = [f"{'idx':<11}{'orig_idx':<11}orig_file"]
    mapping += [f"{n:<11}{o - 1:<11}{o:06d}.jpg" for n, o in zip(numbers, originals, strict=True)]
    by_original = sorted(zip(originals, people, strict=True))
    _write_text(folder / "CelebA-HQ-to-CelebA-mapping.txt", mapping)
    _write_text(folder / "identity_CelebA.txt", [f"{o:06d}.jpg {person}" for o, person in by_original])
    _write_text(folder / "list_eval_partition.txt", [f"{o:06d}.jpg {_partition(o)}" for o, _ in by_original])


def write_ffhq(
    folder: Path,
    seeds: Sequence[int],
    identities: Sequence[int] | None = None,
    start: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] | None = None,
) -> None:
    """Draws one portrait per seed and writes them as FFHQ: 1024 px PNG files, 128 px thumbnails and the JSON.

    The in-the-wild entry repeats the aligned image, since a drawn portrait was cut from nothing.

    Args:
        folder: the dataset's root; made if it is missing.
        seeds: one portrait each; image number `start` is drawn from the first.
        identities: the person of each portrait, by default one person per seed.
        start: number of the first image.
        workers: processes; all cores by default.
        advance: called after each portrait that is on disk.

    Raises:
        ValueError: not as many identities as seeds, or a number outside 0-69999.
    """
    people = _people(seeds, identities)
    if start < 0 or start + len(seeds) > 70_000:
        raise ValueError(f"images {start}-{start + len(seeds) - 1}: numbers must lie within 0-69999")
    numbers = range(start, start + len(seeds))
    for thousand in {number - number % _PER_FFHQ_FOLDER for number in numbers}:
        for kind in ("images1024x1024", "thumbnails128x128"):
            (folder / kind / f"{thousand:05d}").mkdir(parents=True, exist_ok=True)
    entries = {}
    for number, entry in _each(partial(_ffhq, folder), zip(numbers, seeds, people, strict=True), workers):
        entries[str(number)] = entry
        if advance:
            advance()
    _write(folder / FFHQ_JSON, json.dumps(entries).encode())


def _people(seeds: Sequence[int], identities: Sequence[int] | None) -> list[int]:
    people = list(seeds if identities is None else identities)
    if len(people) != len(seeds):
        raise ValueError(f"{len(people)} identities for {len(seeds)} seeds")
    return people


def _each(task: Callable[[_Job], Any], jobs: Iterable[_Job], workers: int | None) -> Iterator[Any]:
    """Runs the task for every job in a pool of processes, results in order."""
    listed = list(jobs)
    count = min(workers or os.cpu_count() or 1, len(listed))
    if count <= 1:
        yield from map(task, listed)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        yield from pool.map(task, listed)


def _quiet() -> None:
    cv2.setNumThreads(1)  # the processes already fill the cores


def _celebamask_hq(folder: Path, job: _Job) -> None:
    number, seed, person = job
    image = folder / CELEBA_HQ / f"{number}.jpg"
    if image.exists():  # written last, so its masks are there too
        return
    portrait = draw(seed, 1024, person)
    masks = folder / CELEBA_MASKS / str(number // _PER_MASK_FOLDER)
    for name, mask in portrait.parts.items():
        small = cv2.resize(to_grey(mask), (512, 512), interpolation=cv2.INTER_AREA)
        small = cv2.threshold(small, 127, 255, cv2.THRESH_BINARY)[1]
        if small.any():
            _write(masks / f"{number:05d}_{name}.png", _encode(".png", cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)))
    pixels = cv2.cvtColor(portrait.image, cv2.COLOR_RGB2BGR)
    _write(image, _encode(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, 95))


def _ffhq(folder: Path, job: _Job) -> tuple[int, dict[str, Any]]:
    number, seed, person = job
    name = f"{number - number % _PER_FFHQ_FOLDER:05d}/{number:05d}.png"
    image_path, thumb_path = f"images1024x1024/{name}", f"thumbnails128x128/{name}"
    if not (folder / image_path).exists():  # written last, so its thumbnail is there too
        pixels = cv2.cvtColor(draw(seed, 1024, person).image, cv2.COLOR_RGB2BGR)
        thumb = cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_AREA)
        _write(folder / thumb_path, _encode(".png", thumb))
        _write(folder / image_path, _encode(".png", pixels, cv2.IMWRITE_PNG_COMPRESSION, 1))
    facts = [_file_facts(folder, path) for path in (image_path, thumb_path)]
    return number, _ffhq_entry(number, seed, person, landmarks(seed, 1024, person), *facts)


def _file_facts(folder: Path, path: str) -> dict[str, Any]:
    data = (folder / path).read_bytes()
    pixels = decode_stored(data)
    return {
        "file_url": "",
        "file_path": path,
        "file_size": len(data),
        "file_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "pixel_size": [pixels.shape[1], pixels.shape[0]],
        "pixel_md5": hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest(),
    }


def _ffhq_entry(
    number: int, seed: int, person: int, points: NDArray[np.float32], image: dict[str, Any], thumb: dict[str, Any]
) -> dict[str, Any]:
    rounded = np.round(points.astype(np.float64), 2).tolist()
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return {
        "category": "training" if number < 60_000 else "validation",
        "metadata": {
            "photo_url": "",
            "photo_title": f"Drawn portrait, person {person}, seed {seed}",
            "author": "mmtt-build",
            "country": "",
            "license": "CC0 1.0",
            "license_url": "https://creativecommons.org/publicdomain/zero/1.0/",
            "date_uploaded": _DATE,
            "date_crawled": _DATE,
        },
        "image": {**image, "face_landmarks": rounded},
        "thumbnail": thumb,
        "in_the_wild": {
            **image,
            "face_rect": [int(x0), int(y0), int(x1), int(y1)],
            "face_landmarks": rounded,
            "face_quad": [[-0.5, -0.5], [-0.5, 1023.5], [1023.5, 1023.5], [1023.5, -0.5]],
        },
    }


def _original(number: int) -> int:
    """CelebA's number (from 1) for an image: all different, spread so that every partition occurs."""
    return number * 61_861 % _CELEBA_IMAGES + 1  # coprime, hence each number once


def _partition(original: int) -> int:
    return 0 if original <= _PARTITION_TRAIN else 1 if original <= _PARTITION_VAL else 2


def _encode(kind: str, pixels: Any, *options: int) -> bytes:
    done, data = cv2.imencode(kind, pixels, options)
    if not done:
        raise ValueError(f"cannot encode {pixels.shape} {pixels.dtype} as {kind}")
    return data.tobytes()


def _write_text(path: Path, lines: list[str]) -> None:
    _write(path, ("\n".join(lines) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    if path.exists() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    temporary = path.with_name(
        f".{path.name}.tmp"
    )  # a fixed name, so that a repeated run clears what a killed one left
    temporary.write_bytes(data)
    temporary.replace(path)
