"""Case files: reading one, drawing what it describes, and holding our outputs against its own."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fill

REFERENCE = Path(__file__).parents[2] / "../shared/reference"
"""Where manifests are looked for after the folder of the case itself."""


class CaseError(Exception):
    """A case file, or the manifest it names, cannot be used."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: name of the output.
        error: largest absolute difference, or share of pixels of another class.
        tolerance: what is allowed.
    """

    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Case:
    """One case file.

    Attributes:
        path: of the file.
        network: the part of its name before ".case-".
        arrays: what it holds, without `meta`.
        meta: how it was made.
        folders: where manifests are looked for, in order.
    """

    path: Path
    network: str
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    folders: Sequence[Path] = field(default=(REFERENCE,))

    @staticmethod
    def load(path: Path) -> Case:
        """Reads a case file.

        Raises:
            CaseError: it is damaged, or has no `meta`.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(str(arrays.pop("meta")))
        except KeyError as error:
            raise CaseError("it has no `meta`, which says how it was made") from error
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise CaseError(f"damaged: {error}") from error
        if not isinstance(meta, dict):
            raise CaseError("its `meta` is not a table")
        return Case(path, network_of(path), arrays, meta, (path.parent, REFERENCE))

    def weights(self, manifest: str = "", seed: int | None = None) -> dict[str, NDArray[Any]]:
        """The state dict that the case was made with.

        Args:
            manifest: file name, where a case has several networks.
            seed: of the fill, where a case has several networks.

        Raises:
            CaseError: its manifest is not there, or cannot be read.
        """
        told = self.meta.get("weights", {})
        name = manifest or told.get("manifest") or self.meta.get("manifest") or f"{self.network}.manifest.json"
        seed = told.get("seed", self.meta.get("weights_seed", 0)) if seed is None else seed
        found = next((folder / name for folder in self.folders if (folder / name).is_file()), None)
        if found is None:
            raise CaseError(f"no {name} in {' or '.join(map(str, self.folders))}")
        try:
            return fill.weights(found, seed)
        except (ValueError, KeyError, TypeError) as error:
            raise CaseError(f"{found} is no manifest: {error!r}") from error

    def array(self, name: str) -> NDArray[Any]:
        """An array that the case must hold.

        Raises:
            CaseError: it does not.
        """
        if name not in self.arrays:
            raise CaseError(f"no array {name!r}; it holds {', '.join(self.arrays)}")
        return self.arrays[name]

    def filled(self, what: str) -> NDArray[np.float32]:
        """An array that `meta` describes by a rule, under `what`.

        Raises:
            CaseError: it does not.
        """
        told = self.meta.get(what)
        rule = told.get("fill", told) if isinstance(told, dict) else {}
        try:
            drawn = fill.tensor(rule["init"], rule["name"], rule["shape"], rule.get("dtype", "float32"), rule["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise CaseError(f"{what!r} is no rule: {str(told)[:80]}") from error
        return np.asarray(drawn, np.float32)

    def compare(self, what: str, ours: NDArray[Any], tolerance: float = 1e-4) -> Check:
        """Largest absolute difference to `out.<what>`, over the values that the case holds and over mean, min and max.

        A case with a big output holds every n-th value per axis (`stride`) and statistics of the whole.
        """
        theirs, told = self.array(f"out.{what}"), self.meta.get("outputs", {}).get(what, {})
        shape = tuple(told.get("full_shape", theirs.shape))
        if ours.shape != shape:
            raise CaseError(f"{what}: ours has the shape {ours.shape}, the reference {shape}")
        some = ours[tuple(slice(None, None, step) for step in told.get("stride", (1,) * ours.ndim))]
        errors = [np.abs(some.astype(np.float64) - theirs).max()]
        errors += [abs(getattr(ours, key)(dtype=np.float64) - told[key]) for key in ("mean",) if key in told]
        errors += [abs(float(getattr(ours, key)()) - told[key]) for key in ("min", "max") if key in told]
        return Check(what, float(np.max(errors)), tolerance)

    def compare_stored(self, what: str, ours: NDArray[Any], tolerance: float = 1e-4) -> Check:
        """Largest absolute difference to the array `what` of a case of the other form, and to what `meta` says of it.

        Such a case holds arrays by their plain names; `tensors` in its `meta` gives the whole shape, which slice is
        stored, as Python writes it ("[:1, :, ::4]", or "full"), and mean, min and max of the whole.
        """
        theirs, told = self.array(what), self.meta.get("tensors", {}).get(what, {})
        shape = tuple(told.get("shape", theirs.shape))
        if ours.shape != shape:
            raise CaseError(f"{what}: ours has the shape {ours.shape}, the reference {shape}")
        some = ours[_slices(str(told.get("stored", "full")))]
        errors = [np.abs(some.astype(np.float64) - theirs).max()]
        errors += [
            abs(float(getattr(ours.astype(np.float64), k)()) - told[k]) for k in ("mean", "min", "max") if k in told
        ]
        return Check(what, float(np.max(errors)), tolerance)

    def repeats(self) -> int:
        """How often the case's input is repeated along both image axes, as its text "np.repeat x8" says; 1 if not."""
        times = re.search(r"np\.repeat x(\d+)", json.dumps(self.meta.get("input", "")))
        return int(times[1]) if times else 1


def _slices(text: str) -> tuple[slice, ...]:
    """The slices of a text such as "[:1, :, 2:9, ::4]"; "full" is all.

    Raises:
        CaseError: it is something else.
    """
    if text == "full":
        return (slice(None),)
    parts = [part.strip() for part in text.removeprefix("[").removesuffix("]").split(",")]
    if not all(re.fullmatch(r"-?\d*(:-?\d*){1,2}", part) for part in parts):
        raise CaseError(f"not a slice: {text}")
    return tuple(slice(*(int(end) if end else None for end in part.split(":"))) for part in parts)


def network_of(path: Path) -> str:
    """The network of a case file by its name: "mat.tiny" of `mat.tiny.case-0.npz`."""
    return path.name.partition(".case-")[0]
