"""What `mmtt weights` does beyond the catalogue itself: full checks, and fetching from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mmtt_build.config import FILE_NAME
from mmtt_build.errors import MmttError, TermsNotAccepted, WeightsError, WeightsMissing
from mmtt_build.weights import Entry, Looked, State, Weights, catalogue, entry, prove, refused

KINDS = {
    "file": "a file of tensors",
    "lora": "a LoRA file",
    "folder": "a folder in the layout of diffusers or transformers",
    "pack": "a folder of ONNX files",
    "onnx": "an ONNX file",
    "array": "a NumPy file",
    "tensors": "a folder with files of tensors",
}


def search(workspace: Path | None, given: Path | None) -> Weights:
    """Where to look: as `Weights.search`, with the workspace that this folder is or lies in, if any."""
    start = (workspace or Path()).absolute()
    root = next((folder for folder in (start, *start.parents) if (folder / FILE_NAME).is_file()), None)
    return Weights.search(root, given)


def overview(weights: Weights) -> Iterator[tuple[Entry, str, str]]:
    """Of every checkpoint of the catalogue: how it stands and where it lies; nothing is read."""
    for of in catalogue().values():
        try:
            looked = weights.look(of.name)
        except WeightsError as error:
            yield of, "damaged record", error.message
        else:
            yield of, looked.state, _short(looked)


def _short(looked: Looked) -> str:
    if looked.path is None:
        return "-"
    if looked.identity.startswith("hub:"):
        return "hub cache"
    path, home = looked.path, Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def describe(weights: Weights, name: str) -> list[tuple[str, str]]:
    """All there is to say about one checkpoint, as labels and texts.

    Raises:
        ConfigError: the catalogue has no such name.
    """
    of, looked = entry(name), weights.look(name)
    lines = [
        ("what", of.purpose),
        ("needed by", ", ".join(of.methods)),
        ("state", looked.state),
        ("where", str(looked.path or "-")),
        ("identity", looked.identity or "-"),
        ("what it is", f"{KINDS[of.kind]}{', called ' + ' or '.join(of.files) if of.files else ''}"),
        ("published", of.published),
        ("size", of.size or "not stated"),
        ("top level", ", ".join(of.keys)),
        ("proved against", of.network or " or ".join(of.classes) or ", ".join(of.tasks)),
        ("note", of.note),
        ("licence", f"{of.licence}{', ' + of.licence_page if of.licence_page else ''}"),
        ("terms", of.terms or "permissive: nothing to accept"),
        ("to obtain it", of.how_to_obtain()),
        ("looked in", "\n".join([*map(str, weights.folders), *(["the hub's own cache"] if of.hub else [])])),
    ]
    return [(label, text) for label, text in lines if text]


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of one full check.

    Attributes:
        name: of the checkpoint.
        path: what was checked.
        remark: what the check could not look at, or "".
        error: why it cannot be used, or None.
    """

    name: str
    path: Path | None
    remark: str
    error: MmttError | None


def check(weights: Weights, name: str = "") -> Iterator[Checked]:
    """Hashes checkpoints again and proves them against their networks, without a forward pass.

    Args:
        weights: where to look.
        name: only this one; "" takes all that are there.

    Raises:
        ConfigError: the catalogue has no such name.
    """
    for of in [entry(name)] if name else catalogue().values():
        path = None
        try:
            looked = weights.look(of.name)
            path = looked.path
            if path is None and not name:
                continue
            if path is None or looked.state in (State.MISSING, State.NOT_ADDED, State.INCOMPLETE):
                weights.find(of.name)  # raises, with the way out
                continue
            weights.rehash(of.name)
            problems = prove(of, path)
            if problems:
                raise refused(of, path, problems, "it has the content that was added")
        except (WeightsMissing, WeightsError) as error:
            yield Checked(of.name, path, "", error)
        else:
            yield Checked(of.name, path, remark(weights, of), None)


def remark(weights: Weights, of: Entry) -> str:
    """What a check could not look at, and what is still to be done; "" if nothing."""
    remarks = []
    if not import_module("generators.checkpoints").provable(of):
        remarks.append("opened, top level as expected; the strict check comes with the method")
    if not weights.accepted(of.name):
        remarks.append(f"terms not accepted yet: mmtt weights accept {of.name}")
    return "; ".join(remarks)


def fetch(weights: Weights, name: str, *, accept: bool = False) -> Path:
    """Downloads a hub model into the hub's own cache and proves it.

    Args:
        weights: where its acceptance is noted.
        name: as in the catalogue.
        accept: accept its terms, too.

    Returns:
        Where it lies.

    Raises:
        ConfigError: the catalogue has no such name.
        TermsNotAccepted: its licence has not been accepted.
        WeightsMissing: it is not a hub model; the remedy says how to obtain it.
        WeightsError: the hub did not give it, or it is not what the catalogue says.
    """
    of = entry(name)
    if not of.hub:
        raise WeightsMissing(
            f"'{name}' is not on the hub: its authors publish it on their own page", of.how_to_obtain()
        )
    if accept and of.terms:
        weights.accept(name)
    if not weights.accepted(name):
        raise TermsNotAccepted(
            f"'{name}' ({of.purpose}): its licence ({of.licence}) comes first",
            f"mmtt weights accept {name} shows the terms and asks",
        )
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        path = _download(of)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        # The hub's client says in many ways that a gated model needs an account: so it is always named as a way out.
        account = f"accept the terms on {of.published}, log in with `hf auth login`, fetch again; or, " * of.gated
        raise WeightsError(
            f"could not fetch {of.hub}: {' '.join(str(error).split())[:300]}",
            f"{account}with a copy from {of.published}: mmtt weights add {name} {of.files[0] if of.files else 'DIR'}",
        ) from None
    problems = prove(of, path)
    if problems:
        raise refused(of, path, problems, f"fetched from {of.hub}")
    return path


def _download(of: Entry) -> Path:
    import huggingface_hub as hub

    if of.files:
        return Path(hub.hf_hub_download(of.hub, of.files[0]))
    # Of each component one set of weights in one format; other formats and sizes of the same model stay there.
    names = [file.filename for file in hub.snapshot_download(of.hub, dry_run=True)]
    return Path(hub.snapshot_download(of.hub, allow_patterns=wanted_files(names, of.variant)))


def wanted_files(names: list[str], variant: str) -> list[str]:
    """Of the files of a model repository, those that its loading needs.

    Args:
        names: all files.
        variant: preferred set of weights, "fp16"; components without it give their plain one.
    """
    weights_name = import_module("generators.model_folders").WEIGHTS
    by_folder: dict[str, dict[tuple[bool, bool], list[str]]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        matched = weights_name.fullmatch(file)
        if matched and (matched[2] or "") in ("", variant) and folder != "safety_checker":
            rank = (matched[4] == "safetensors", (matched[2] or "") == variant)
            by_folder.setdefault(folder, {}).setdefault(rank, []).append(name)
    if len(by_folder) > 1:  # a pipeline: what lies beside its folders is the same in another format
        by_folder.pop("", None)
    chosen = [name for ranks in by_folder.values() for name in ranks[max(ranks)]]
    return sorted({*chosen, *(name for name in names if name.endswith((".json", ".txt", ".model")))})
