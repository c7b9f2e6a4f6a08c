"""CelebAMask-HQ: 30,000 aligned faces at 1024 px with per-part masks at 512 px.

Layout: `CelebA-HQ-img/<0..29999>.jpg` without zero padding, and
`CelebAMask-HQ-mask-anno/<n // 2000>/<5 digits>_<part>.png`, RGB 0/255, a file only where the part exists.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from mmtt_build import parts
from mmtt_build.errors import SourceError
from mmtt_build.sources.base import Item, Options, PartMasks, Source, numbered

LICENCE = "CelebAMask-HQ: non-commercial research and education only; no redistribution, derived data included"

_PER_FOLDER = 2000
_TRAIN_TO, _VAL_TO = 162_770, 182_637
"""CelebA's partition by original number: train up to the first, validation up to the second, test after it."""


@cache
def known_defects() -> dict[int, str]:
    """Image number -> why it is left out: the second of each reported duplicate pair, and the reported defects."""
    data = tomllib.loads(files("mmtt_build").joinpath("data", "celebamask_hq_defects.toml").read_text("utf-8"))
    duplicates = {second: f"duplicate of {first}" for first, second in data["duplicate_pairs"]}
    return {**{int(n): why for why, numbers in data["defects"].items() for n in numbers}, **duplicates}


class CelebAMaskHQ(Source):
    """A folder with `CelebA-HQ-img` in it."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(root, options)
        folder = root / "CelebA-HQ-img"
        if not folder.is_dir():
            raise SourceError(f"{root} has no folder CelebA-HQ-img", "name the unpacked CelebAMask-HQ folder")
        self.images = numbered(folder, (".jpg", ".jpeg", ".png"))
        self.masks = root / "CelebAMask-HQ-mask-anno"
        self.original = _mapping(root / "CelebA-HQ-to-CelebA-mapping.txt")
        self.identity = self._identities()

    def _identities(self) -> dict[int, str]:
        path = self.options.identities or self.root / "identity_CelebA.txt"
        if not path.is_file():
            if self.options.identities:
                raise SourceError(f"{path} does not exist", "give the path of identity_CelebA.txt")
            return {}
        if not self.original:
            raise SourceError(
                f"{path} needs CelebA-HQ-to-CelebA-mapping.txt in {self.root}",
                "copy it from the CelebAMask-HQ download",
            )
        return dict(_pairs(path))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def items(self) -> Iterator[Item]:
        """The images by number."""
        for number, path in self.images.items():
            original = self.original.get(number)
            folder = self.masks / str(number // _PER_FOLDER)
            excluded = self.excluded_by_user(str(number), path.name)
            if not excluded and self.options.exclude_known_defects and number in known_defects():
                excluded = f"known defect: {known_defects()[number]}"
            yield Item(
                name=f"{number:05d}",
                path=path,
                parts=PartMasks({name: folder / f"{number:05d}_{name}.png" for name in parts.CLASSES[1:]}),
                identity=self.identity.get(original) if original is not None else None,
                official_split=_partition(original),
                licence=self.options.licence or LICENCE,
                url="https://github.com/switchablenorms/CelebAMask-HQ" if not self.options.licence else None,
                excluded=excluded,
            )


def _partition(original: int | None) -> str | None:
    if original is None:
        return None
    return "train" if original <= _TRAIN_TO else "val" if original <= _VAL_TO else "test"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(path.read_text("utf-8-sig").splitlines(), 1)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not a text file: {error}", "copy it again from the download") from error


def _mapping(path: Path) -> dict[int, int]:
    """CelebAMask-HQ number -> the number in CelebA's file name (`119614.jpg`), {} without the file."""
    if not path.is_file():
        return {}
    numbers: dict[int, int] = {}
    for line, text in _lines(path):
        fields = text.split()
        if not fields or fields[0] == "idx":
            continue
        try:
            numbers[int(fields[0])] = int(Path(fields[2]).stem)
        except (IndexError, ValueError) as error:
            raise SourceError(f"{path}, line {line}: {text!r}", "needs: idx orig_idx orig_file") from error
    return numbers


def _pairs(path: Path) -> Iterator[tuple[int, str]]:
    for line, text in _lines(path):
        fields = text.split()
        if not fields:
            continue
        try:
            name, identity = fields
            yield int(Path(name).stem), f"celeba-{int(identity)}"
        except ValueError as error:
            raise SourceError(f"{path}, line {line}: {text!r}", "needs: 000001.jpg 2880") from error
