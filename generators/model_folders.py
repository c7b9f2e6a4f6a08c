"""Proves folders of diffusers and transformers against the classes that they name; runs nothing of them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from generators.checkpoints import read
from mmtt_build.errors import WeightsError
from mmtt_build.weights import Entry

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar"}
WEIGHTS = re.compile(r"(diffusion_pytorch_model|model|pytorch_model)(?:\.([a-z]\w*))?(-\d+-of-\d+)?\.(safetensors|bin)")
"""File names of weights: stem, variant, shard, format."""
NOT_LOADED = ("safety_checker",)
"""Components that no pipeline of ours loads."""


def variants(folder: Path) -> set[str]:
    """Which sets of weights a folder holds: "" for the plain one, "fp16", ...; of a pipeline, in any component."""
    parts = [folder, *(p for p in folder.iterdir() if p.is_dir() and p.name not in NOT_LOADED)]
    return {variant for part in parts for variant in _files(part)}


def check_folder(entry: Entry, path: Path) -> list[str]:
    """What keeps a folder from being the catalogue's model; [] if it is.

    Every class that it names is built on the meta device from its config, and the names and shapes in the weights are
    compared by the library's own loader, which knows its older names. Code and pickles that need it are refused.
    """
    problems = _code(path)
    if problems:
        return problems
    index = path / "model_index.json"
    try:
        if not index.is_file():
            config = _json(path / "config.json")
            name = config.get("_class_name") or (config.get("architectures") or ["?"])[0]
            wrong = _class_problem(entry, name)
            return wrong or _check_weights(path, "diffusers" if "_class_name" in config else "transformers", name)
        config = _json(index)
        wrong = _class_problem(entry, str(config.get("_class_name")))
        if wrong:
            return wrong
        takes = _json(path / "unet" / "config.json").get("in_channels") if entry.channels else 0
        if takes != entry.channels:
            return [f"its UNet takes {takes} channels; '{entry.name}' is one that takes {entry.channels}"]
        parts = {n: v for n, v in config.items() if isinstance(v, list) and len(v) == 2 and v[0] and v[1]}
        for name, (library, kind) in parts.items():
            if name not in NOT_LOADED:
                problems += [f"{name}: {p}" for p in _check_component(path / name, str(library), str(kind))]
    except WeightsError as error:
        return [f"{error.message} ({error.remedy})"]
    return problems


def _class_problem(entry: Entry, name: str) -> list[str]:
    if name in entry.classes:
        return []
    return [f"is a {name}; '{entry.name}' is a {' or '.join(entry.classes)}"]


def _code(path: Path) -> list[str]:
    """Code in a folder, and pickles that would run some."""
    problems = []
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if any(part.startswith(".") for part in relative.parts) or not file.is_file():
            continue
        if file.suffix in (".py", ".pyc", ".so"):
            problems.append(f"carries code, which is never run: {relative}")
        elif file.suffix == ".json":
            if b'"auto_map"' in file.read_bytes():
                problems.append(f"asks for code of its own ('auto_map'): {relative}")
        elif file.suffix in PICKLES:
            try:
                read(file)
            except WeightsError as error:
                problems.append(error.message)
    return problems


def _json(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing", "name the folder that holds it") from None
    except ValueError as error:
        raise WeightsError(f"{file} is no JSON: {error}", "download it again") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{file} is no JSON object", "download it again")
    return data


def _check_component(path: Path, library: str, kind: str) -> list[str]:
    if not path.is_dir():
        return ["its folder is missing"]
    if library not in ("diffusers", "transformers"):
        return [f"is a {kind} of '{library}', which is neither diffusers nor transformers"]
    try:
        cls = getattr(import_module(library), kind)
    except (AttributeError, ImportError):
        return [f"the installed {library} has no {kind}"]
    if hasattr(cls, "state_dict"):
        return _check_weights(path, library, kind)
    if kind.endswith(("Tokenizer", "TokenizerFast", "Processor", "Extractor")) or library == "transformers":
        settings = ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json"]
    else:
        settings = ["scheduler_config.json", "config.json"]
    found = [path / name for name in settings if (path / name).is_file()]
    if not found:
        return [f"has none of {', '.join(settings)}"]
    _json(found[0])
    return []


def _files(path: Path) -> dict[str, list[Path]]:
    """Weight files of a component, by variant."""
    found: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        matched = WEIGHTS.fullmatch(file.name)
        if matched and file.is_file():
            found.setdefault(matched[2] or "", []).append(file)
    return found


def _check_weights(path: Path, library: str, kind: str) -> list[str]:
    """Compares each variant of a component's weights with the class, on the meta device."""
    _json(path / "config.json")
    found = _files(path)
    if not found:
        return [f"has no weights (no {'diffusion_pytorch_model' if library == 'diffusers' else 'model'}.safetensors)"]
    problems = []
    for variant, files in found.items():
        label = f"{variant}: " if variant else ""
        whole = [_whole(file) for file in files]
        broken = [text for text in whole if text]
        problems += [label + text for text in broken or _compare(path, library, kind, variant, files)]
    return problems


def _whole(file: Path) -> str:
    """What is wrong with one weight file as a file, or ""."""
    try:
        read(file)
    except WeightsError as error:
        return f"{error.message} ({error.remedy})"
    return ""


def _compare(path: Path, library: str, kind: str, variant: str, files: list[Path]) -> list[str]:
    cls = getattr(import_module(library), kind)
    options: dict[str, Any] = {
        "variant": variant or None,
        "use_safetensors": any(file.suffix == ".safetensors" for file in files),
        "output_loading_info": True,
        "local_files_only": True,
        "device_map": {"": "meta"},
    }
    if library == "transformers":
        options["ignore_mismatched_sizes"] = True  # then they are listed, not raised
    try:
        with _quiet():
            _, told = cls.from_pretrained(path, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        return [f"{kind} cannot be built from it: {' '.join(str(error).split())[:300]}"]
    problems = [f"missing: {name}" for name in sorted(told["missing_keys"])]
    problems += [f"not of this network: {name}" for name in sorted(told["unexpected_keys"])]
    problems += [f"shape: {n} is {tuple(a)}, needed is {tuple(b)}" for n, a, b in sorted(told["mismatched_keys"])]
    return problems[:12] + ([f"... and {len(problems) - 12} more"] if len(problems) > 12 else [])


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' loaders without their reports and bars: what they found comes back as data."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    levels = [log.get_verbosity() for log in logs]
    bar = transformers_logging.is_progress_bar_enabled()
    for log in logs:
        log.set_verbosity(50)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
