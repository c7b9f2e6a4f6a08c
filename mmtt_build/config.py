"""The recipe: `mmtt.toml` as frozen dataclasses, with every mistake named by line, value and fix.

The dataclasses below are the one list of keys and defaults; `data/mmtt.toml` is the commented form that
`mmtt init` writes, and a test holds the two equal.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mmtt_build.errors import ConfigError

FILE_NAME = "mmtt.toml"
SPLITS = ("train", "val", "test")
SIDES = ("subject", "viewer")
SEVERITIES = ("reject", "review", "info", "off")
"""Of a QC rule."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is being built.

    Attributes:
        name: goes into the card and the release's file names.
        version: of the release that `export` writes; a released version is never overwritten.
        language: ISO 639-1 code of the descriptions.
        terms: under which the release may be used.
    """

    name: str = "my-dataset"
    version: str = "0.1.0"
    language: str = "en"
    terms: str = "Research use only, under a data usage agreement; no re-identification; no redistribution."


@dataclass(frozen=True, slots=True)
class Ingest:
    """How sources are read.

    Attributes:
        near_duplicate_bits: two images whose 256-bit perceptual hashes differ in at most so many bits are one identity
            group.
        exclude_known_defects: leave out the images that the source's users reported as defective or duplicate.
        min_age: with FFHQ-Aging labels, every age group that begins below this is left out.
        ffhq_aging: path of `ffhq_aging_labels.csv`, relative to the workspace; "" for none.
        exclude: path of a text file with one image number or name a line (withdrawn, no_cv); "" for none.
        analysis: face analysis, a checkpoint of the catalogue ("buffalo_l") or the path of a pack's folder, relative to
            the workspace; "" for none. With one, images without exactly one face are left out, and nothing is grouped
            or planned before it was analysed.
        min_estimated_age: with an analysis, faces estimated younger, or not at all, are left out; 0 for none.
        same_person_cosine: with an analysis, two images whose embeddings have this cosine similarity or more are one
            identity group.
        parser: network that makes the part maps that the source has not, or has from landmarks only: "bisenet"; ""
            for none.
    """

    near_duplicate_bits: int = 40
    exclude_known_defects: bool = True
    min_age: int = 20
    ffhq_aging: str = ""
    exclude: str = ""
    analysis: str = ""
    min_estimated_age: int = 25
    same_person_cosine: float = 0.5
    parser: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the splits, by identity group and by forgery (MMTT: 8:1:1)."""

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1

    def shares(self) -> dict[str, float]:
        """Share per split name."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is forged.

    Attributes:
        seed: of everything random; another seed, another dataset.
        per_image: forgeries per usable pristine image (MMTT: 152,217 of 100,000).
        total: forgeries in all; 0 takes `per_image` instead.
        sequential: share of single-image edits that start from an earlier forgery instead of the pristine.
    """

    seed: int = 2026
    per_image: float = 1.52217
    total: int = 0
    sequential: float = 0.05


@dataclass(frozen=True, slots=True)
class Gates:
    """What the whole dataset has to keep.

    Attributes:
        max_rejected: largest share of descriptions that are rejected.
        max_review: largest share of descriptions that a reviewer has to look at.
        max_rejected_images: largest share of forgeries that are rejected.
        min_agreement: least agreement of the annotators on repeats, Krippendorff's alpha; without repeats it is kept.
        dataset: no rule on the dataset as a whole may reject it.
    """

    max_rejected: float = 0.1
    max_review: float = 1.0
    max_rejected_images: float = 0.0
    min_agreement: float = 0.4
    dataset: bool = True


@dataclass(frozen=True, slots=True)
class Qc:
    """Thresholds of the QC rules.

    Attributes:
        min_observation_s: least time an annotator looks at a pair, in seconds (MMTT: one minute).
        max_words: longest description, in words separated by white space (MMTT: 120); a Chinese character is a word.
        min_words: shortest description that can say something, counted likewise.
        sides: whose left and right descriptions speak of, "subject" or "viewer".
        min_cover: share of a part from which on a mask touches it.
        near_duplicate: similarity of two descriptions from which on one is taken for a copy of the other.
        template_uses: one annotator's descriptions that share a sentence from which on it is taken for a template.
        min_mask_area: least share of the frame that a mask covers.
        max_mask_area: largest share of the frame that a mask covers.
        max_per_hour: fastest pace of an annotator, in descriptions an hour (MMTT: about 20).
        min_judged: least descriptions, repeats or controls of an annotator before their shares are judged.
        max_rejected: largest share of an annotator's descriptions that are rejected.
        max_false_claims: largest share of untouched control pairs that an annotator describes traces on.
        min_agreement: least agreement of an annotator with the others on repeats, Krippendorff's alpha.
        min_vocabulary: least share of different words among an annotator's last 1,000.
        max_drift: largest change of an annotator's rejected share from the first to the last third of their work.
        max_imbalance: largest departure of a method's or a split's share from the recipe's, in shares of all.
        severity: other severities than the rules' own, by rule: "reject", "review", "info" or "off".
        gates: what the whole dataset has to keep for `mmtt qc audit` to exit with 0.
    """

    min_observation_s: float = 60.0
    max_words: int = 120
    min_words: int = 3
    sides: str = "subject"
    min_cover: float = 0.02
    near_duplicate: float = 0.9
    template_uses: int = 10
    min_mask_area: float = 0.0005
    max_mask_area: float = 0.7
    max_per_hour: float = 40.0
    min_judged: int = 20
    max_rejected: float = 0.2
    max_false_claims: float = 0.2
    min_agreement: float = 0.4
    min_vocabulary: float = 0.1
    max_drift: float = 0.15
    max_imbalance: float = 0.05
    severity: Mapping[str, str] = field(default_factory=dict)
    gates: Gates = field(default_factory=Gates)


def _default_mix() -> dict[str, float]:
    return {"blendswap": 0.195, "splice": 0.10, "patchfill": 0.547, "warp": 0.158}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole of `mmtt.toml`.

    Attributes:
        sources: folder per source adapter, for `mmtt build ingest` without arguments and `mmtt build run`.
        mix: share of the forgeries per method; sums to 1.
        methods: options per method, as its own `Options` names them; `options` reads them.
    """

    dataset: Dataset = field(default_factory=Dataset)
    ingest: Ingest = field(default_factory=Ingest)
    split: Split = field(default_factory=Split)
    plan: Plan = field(default_factory=Plan)
    qc: Qc = field(default_factory=Qc)
    sources: Mapping[str, str] = field(default_factory=dict)
    mix: Mapping[str, float] = field(default_factory=_default_mix)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load(path: Path) -> Recipe:
    """Reads and checks a recipe.

    Raises:
        ConfigError: naming the file, the line, the value found and the fix.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", "mmtt init DIR makes a workspace") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", "save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "it should be a text file") from error
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: numbers of 5,000 digits, 1,000 brackets
        raise ConfigError(f"{path}: not valid TOML: {error}", "texts need quotes, lists brackets") from error
    recipe: Recipe = _Reader(path, text).record(Recipe, data, ())
    _check(recipe, _Reader(path, text))
    return recipe


def options(path: Path, method: str, kind: type) -> Any:
    """The options of a method, from the table `[methods.<method>]` of a recipe that `load` has accepted.

    Args:
        path: of the recipe.
        method: its name.
        kind: frozen dataclass of its options.

    Raises:
        ConfigError: as `load`.
    """
    text = path.read_text(encoding="utf-8-sig")
    at = ("methods", method)
    reader = _Reader(path, text)
    try:
        return reader.record(kind, tomllib.loads(text).get("methods", {}).get(method, {}), at)
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        raise reader.error((*at, key), message, f"mend [methods.{method}]") from error


class _Reader:
    """Turns parsed TOML into dataclasses and knows on which line each key stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
                self.lines.setdefault(table, number)
            elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
                parts = tuple(part.strip("\"'") for part in key[1].split("."))
                self.lines.setdefault(table + parts, number)

    def error(self, key: tuple[str, ...], message: str, fix: str) -> ConfigError:
        known = (self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines)
        below = (line for other, line in self.lines.items() if other[: len(key)] == key)  # dotted keys: no header
        line = next(known, next(below, 1))
        return ConfigError(f"{self.path}, line {line}: {'.'.join(key)}: {message}", fix)

    def record(self, kind: type, data: Mapping[str, Any], at: tuple[str, ...]) -> Any:
        hints = get_type_hints(kind)
        for key in data:
            if key not in hints:
                close = difflib.get_close_matches(key, hints, 1)
                meant = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(hints)}"
                raise self.error((*at, key), "unknown key", meant)
        values = {
            f.name: self.value(hints[f.name], data[f.name], (*at, f.name)) for f in fields(kind) if f.name in data
        }
        missing = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        for name in missing:
            if name not in values:
                raise self.error((*at, name), "missing", f"add {name} = ...")
        return kind(**values)

    def value(self, kind: Any, value: Any, at: tuple[str, ...]) -> Any:
        if kind is Any:
            return value
        if get_origin(kind) is UnionType:  # Path | None: a file, named relative to the recipe
            return self.path.parent / self.value(str, value, at)
        if get_origin(kind) is tuple:
            kinds = get_args(kind)
            if kinds[-1] is Ellipsis:
                if not isinstance(value, list):
                    raise self.error(at, f"is {value!r}, needs a list", f"e.g. {at[-1]} = [{_example(kinds[0])}]")
                kinds = kinds[:1] * len(value)
            if not isinstance(value, list) or len(value) != len(kinds):
                raise self.error(at, f"is {value!r}, needs {len(kinds)} values in brackets", "e.g. [0.5, 1.0]")
            return tuple(self.value(k, item, at) for k, item in zip(kinds, value, strict=True))
        if get_origin(kind) is Mapping:
            if not isinstance(value, dict):
                raise self.error(
                    at, f"is {value!r}, needs a table", f"write it as [{'.'.join(at)}] with one key a line"
                )
            return {key: self.value(get_args(kind)[1], item, (*at, key)) for key, item in value.items()}
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            if not isinstance(value, dict):
                raise self.error(
                    at, f"is {value!r}, needs a table", f"write it as [{'.'.join(at)}] with one key a line"
                )
            return self.record(kind, value, at)
        if type(value) is int and abs(value) > 2**63:  # before it is printed: Python refuses 5,000 digits
            raise self.error(at, "is a number beyond 64 bits", f"e.g. {at[-1]} = 10")
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            names = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
            raise self.error(at, f"is {value!r}, needs {names[kind]}", f"e.g. {at[-1]} = {_example(kind)}")
        if kind is float and not math.isfinite(value):
            raise self.error(at, f"is {value!r}, needs a finite number", f"e.g. {at[-1]} = 0.5")
        return value


def _example(kind: type) -> str:
    return {str: '"text"', int: "10", float: "0.5", bool: "true"}[kind]


def _check(recipe: Recipe, reader: _Reader) -> None:
    """Values that have the right type and still make no sense."""
    split = recipe.split.shares()
    for name, share in split.items():
        if not 0 <= share <= 1:
            raise reader.error(("split", name), f"is {share:g}", "a share lies between 0 and 1")
    if abs(sum(split.values()) - 1) > 1e-6:
        raise reader.error(("split",), f"shares sum to {sum(split.values()):g}, not 1", "e.g. 0.8, 0.1, 0.1")
    if not recipe.mix:
        raise reader.error(("mix",), "names no method", "e.g. blendswap = 1.0")
    for name, share in recipe.mix.items():
        if not 0 <= share <= 1:
            raise reader.error(("mix", name), f"is {share:g}", "a share lies between 0 and 1")
    if abs(sum(recipe.mix.values()) - 1) > 1e-6:
        total = sum(recipe.mix.values())
        raise reader.error(("mix",), f"shares sum to {total:g}, not 1", f"divide each by {total:g}")
    ranges: dict[tuple[str, ...], tuple[float, float]] = {
        ("plan", "seed"): (0, 2**62),
        ("plan", "per_image"): (0, 1000),
        ("plan", "total"): (0, 10**9),
        ("plan", "sequential"): (0, 1),
        ("ingest", "near_duplicate_bits"): (0, 80),
        ("ingest", "min_age"): (0, 120),
        ("ingest", "min_estimated_age"): (0, 100),
        ("ingest", "same_person_cosine"): (0.2, 1),
        ("qc", "min_observation_s"): (0, 86_400),
        ("qc", "max_words"): (1, 10_000),
        ("qc", "min_words"): (0, 120),
        ("qc", "min_cover"): (0, 1),
        ("qc", "near_duplicate"): (0.5, 1),
        ("qc", "template_uses"): (2, 10**6),
        ("qc", "min_mask_area"): (0, 1),
        ("qc", "max_mask_area"): (0, 1),
        ("qc", "max_per_hour"): (1, 3600),
        ("qc", "min_judged"): (1, 10**6),
        ("qc", "max_rejected"): (0, 1),
        ("qc", "max_false_claims"): (0, 1),
        ("qc", "min_agreement"): (-1, 1),
        ("qc", "min_vocabulary"): (0, 1),
        ("qc", "max_drift"): (0, 1),
        ("qc", "max_imbalance"): (0, 1),
        ("qc", "gates", "max_rejected"): (0, 1),
        ("qc", "gates", "max_review"): (0, 1),
        ("qc", "gates", "max_rejected_images"): (0, 1),
        ("qc", "gates", "min_agreement"): (-1, 1),
    }
    for keys, (low, high) in ranges.items():
        value: float = reduce(getattr, keys, recipe)  # type: ignore[assignment]
        if not low <= value <= high:
            raise reader.error(keys, f"is {value:g}", f"between {low:g} and {high:g}")
    if recipe.qc.sides not in SIDES:
        raise reader.error(("qc", "sides"), f"is {recipe.qc.sides!r}", f"one of {', '.join(SIDES)}")
    for rule, severity in recipe.qc.severity.items():
        if severity not in SEVERITIES:
            raise reader.error(("qc", "severity", rule), f"is {severity!r}", f"one of {', '.join(SEVERITIES)}")
    patterns = {
        "name": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "letters, digits, '.', '_', '-', e.g. faces-2026"),
        "version": (r"\d+\.\d+\.\d+([.-][A-Za-z0-9.]+)?", "three numbers, e.g. 0.1.0"),
        "language": (r"[a-z]{2}", "an ISO 639-1 code, e.g. en or zh"),
    }
    for key, (pattern, fix) in patterns.items():
        text = getattr(recipe.dataset, key)
        if not re.fullmatch(pattern, text, re.ASCII):
            raise reader.error(("dataset", key), f"is {text!r}", fix)
