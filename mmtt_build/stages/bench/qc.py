"""Benchmark of QC: every rule on descriptions beside the published label rule, and the pictures beside their decoding.

The descriptions are made up of some hundred words in the style of the published ones, all different, a sentence to
three. Nothing but the words is read or written: what an audit adds is in the tables.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from isal import isal_zlib

from mmtt_build import images, masks, parallel, parts, store
from mmtt_build.config import Qc
from mmtt_build.portraits import Portrait, draw
from mmtt_build.records import SIZE, Annotation, Forged
from mmtt_build.sources.base import face_points
from mmtt_build.stages.bench.timing import Say
from mmtt_build.workspace import Workspace
from qc import base, copies, official, regions
from qc import images as image_rules
from qc.mentions import read_mentions
from qc.spelling import fold

TEXTS = 10_000
PICTURES = 60
_OF_A_BASE = 3
PUBLISHED = 152_000
"""Triplets of the published dataset."""
_ROUNDS = 3
_CHUNK = 500
_LANGUAGE = "en"
_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_KIB = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss

_PARTS = (
    "eye", "eyes", "pupil", "upper lip", "lips", "mouth", "corner of the mouth", "nose", "nostrils",
    "bridge of the nose", "ear", "earlobe", "cheek", "cheekbones", "forehead", "chin", "jawline", "eyebrow",
    "eyebrows", "teeth", "beard", "moustache", "skin", "hair", "hairline", "wrinkles", "nasolabial folds", "eyelid",
    "face", "collar", "earring",
)  # fmt: skip
_SIDES = ("", "", "", "left ", "right ")
_WHO = ("The woman's", "The man's", "Her", "His", "The subject's", "The person's", "The")
_VERBS = ("looks", "appears", "is", "seems", "was", "remains", "is clearly", "looks somewhat")
_FAULTS = (
    "blurred", "deformed", "unnatural", "asymmetric", "too smooth", "inconsistent with the lighting", "smeared",
    "missing", "larger than the other one", "disconnected from the rest", "natural", "not aligned with the face",
    "pixelated", "darker than its surroundings", "duplicated", "unrealistic in colour and texture", "bent to the left",
    "barely visible",
)  # fmt: skip
_TAILS = (
    "", "", ", and there is no flaw in the {part}", ", while the {side}{part} looks natural", ", unlike the {part}",
    " around the {side}{part}", ", with a visible seam along the {part}", "; the {part} lacks texture",
    ", which gives the {part} a plastic look", " where it meets the {part}",
)  # fmt: skip


def descriptions(start: int, count: int) -> Iterator[str]:
    """Made-up descriptions by number, the same for the same number."""
    for number in range(start, start + count):
        rng = random.Random(number)
        yield " ".join(_sentence(rng) for _ in range(rng.choice((1, 2, 2, 3))))


def _sentence(rng: random.Random) -> str:
    tail = rng.choice(_TAILS).format(part=rng.choice(_PARTS), side=rng.choice(_SIDES))
    subject = f"{rng.choice(_WHO)} {rng.choice(_SIDES)}{rng.choice(_PARTS)}"
    also = f" and {rng.choice(_FAULTS)}" if rng.random() < 0.5 else ""
    return f"{subject} {rng.choice(_VERBS)} {rng.choice(_FAULTS)}{also}{tail}."


def rules(say: Say, texts: int = TEXTS, pictures: int = PICTURES) -> None:
    """Every QC rule beside the published one, on one and on all cores; memory; pictures (takes some minutes).

    Args:
        say: gets the lines.
        texts: descriptions to judge rule by rule; ten times as many for all cores and for memory.
        pictures: forgeries to judge.
    """
    say(f"qc; load of this machine {os.getloadavg()[0]:.1f} on {parallel.cores()} cores")
    _rule_by_rule(say, texts)
    _all_cores(say, 10 * texts)
    _memory(say, texts)
    _pictures(say, pictures)


def _answers(texts: Iterable[str], cover: tuple[float | None, ...] | None) -> Iterator[tuple[Annotation, base.Beside]]:
    """Answers that only their words can be wrong about, with what the tables know beside them."""
    for number, text in enumerate(texts):
        annotation = Annotation(
            id=f"a-{number}",
            forgery_id=f"warp-{number}",
            answer="described",
            description=text,
            language=_LANGUAGE,
            labels=(0,) * 21,
            annotator=f"ann-{number % 30:02d}",
            observation_s=75.0,
            origin="human",
            created_at=_TIME,
            served_at=_TIME - timedelta(seconds=90),
        )
        forgery = Forged(annotation.forgery_id, "ok", cover=cover)
        yield annotation, base.Beside(forgery, previous=f"a-{number - 30}", since_s=90.0)


def _rule_by_rule(say: Say, count: int) -> None:
    """CPU time of each rule once the words are read, and of the reading."""
    thresholds, cover = Qc(), _cover()
    answers = list(_answers(descriptions(0, count), cover))
    contexts = [base.Context(annotation, thresholds, _LANGUAGE, beside) for annotation, beside in answers]
    texts = [context.text for context in contexts]
    words = sum(context.words for context in contexts) / count
    everything = "all rules"
    steps: dict[str, Callable[[], object]] = {
        everything: lambda: [base.audit(a, thresholds, _LANGUAGE, beside) for a, beside in answers],
        "read: words": lambda: [fold(text).words for text in texts],
        "read: mentions": lambda: [read_mentions(context.folded, _LANGUAGE) for context in contexts],
    }
    for rule in base.load_rules(base.Subject.ANNOTATION):
        steps[rule.name] = partial(_check, rule, contexts)
    steps["copies, of all"] = lambda: copies.find(
        ((a.id, a.annotator, a.description or "") for a, _ in answers), thresholds, _LANGUAGE
    )
    seconds, ratios = _cpu(steps, lambda: [official.vector(text) for text in texts])
    say(f"rules on {count:,} descriptions of {words:.0f} words, CPU time of one core")
    say(f"  {'':<26} {'texts/s':>10} {'of all':>8} {'x published':>12}")
    for name, spent in seconds.items():
        say(f"  {name:<26} {count / spent:>10,.0f} {spent / seconds[everything]:>8.1%} {ratios[name]:>11.2f}x")


def _check(rule: base.Rule, contexts: Sequence[base.Context]) -> None:
    for context in contexts:
        rule.check(context.annotation, context)


def _cpu(
    steps: dict[str, Callable[[], object]], twin: Callable[[], object]
) -> tuple[dict[str, float], dict[str, float]]:
    """Median CPU seconds of each step and of the twin, and the median ratio (twin / step), after a warm-up."""
    spent: dict[str, list[float]] = {"published rule": [], **{name: [] for name in steps}}
    ratios: dict[str, list[float]] = {name: [] for name in spent}
    for _ in range(1 + _ROUNDS):
        for name, step in {"published rule": twin, **steps}.items():
            start = time.process_time()
            step()
            spent[name].append(max(time.process_time() - start, 1e-9))
            ratios[name].append(spent["published rule"][-1] / spent[name][-1])
    return (
        {n: statistics.median(s[1:]) for n, s in spent.items()},
        {n: statistics.median(r[1:]) for n, r in ratios.items()},
    )


def _judge(cover: tuple[float | None, ...], texts: Iterable[str]) -> float:
    """Judges answers and keeps nothing; the CPU seconds that this took."""
    thresholds, start = Qc(), time.process_time()
    for annotation, beside in _answers(texts, cover):
        base.audit(annotation, thresholds, _LANGUAGE, beside)
    return time.process_time() - start


def _judge_many(cover: tuple[float | None, ...], count: int) -> None:
    _judge(cover, descriptions(0, count))


def _all_cores(say: Say, count: int) -> None:
    texts = list(descriptions(0, count))
    chunks = [texts[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    judge = partial(_judge, _cover())
    say(f"all rules on {count:,} descriptions, by the clock with starting processes")
    say(f"  {'':<26} {'texts/s':>10} {f'{PUBLISHED:,} in':>12} {'texts/s of CPU time':>20}")
    for workers in dict.fromkeys((1, parallel.cores())):
        start = time.perf_counter()
        spent = sum(parallel.unordered(judge, chunks, workers))
        rate = count / (time.perf_counter() - start)
        name = f"{workers} process{'es' if workers > 1 else ''}"
        say(f"  {name:<26} {rate:>10,.0f} {PUBLISHED / rate:>10.0f} s {count / spent:>20,.0f}")


def _memory(say: Say, few: int) -> None:
    """Peak of a process that judges few, then ten times as many."""
    counts = (few, 10 * few)
    say(f"memory, peak MB of a process\n  {'':<26} {counts[0]:>10,} {counts[1]:>10,} texts")
    spawn = multiprocessing.get_context("spawn")
    judge = partial(_judge_many, _cover())
    for name, work in (("all rules", judge), ("copies, of all", _find_copies)):
        queue = spawn.SimpleQueue()
        process = spawn.Process(target=_peaks, args=(work, counts, queue))
        process.start()
        peaks = queue.get()
        process.join()
        say(f"  {name:<26} {peaks[0]:>10.0f} {peaks[1]:>10.0f}   {peaks[1] / peaks[0] - 1:+.1%}")


def _peaks(work: Callable[[int], object], counts: Sequence[int], queue: Any) -> None:
    peaks = []
    for count in counts:
        work(count)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 2**20)
    queue.put(peaks)


def _find_copies(count: int) -> None:
    answers = _answers(descriptions(0, count), None)
    copies.find(((a.id, a.annotator, a.description or "") for a, _ in answers), Qc(), _LANGUAGE)


def _pictures(say: Say, count: int) -> None:
    """The rules on pictures, with reading and measuring them, beside decoding the bytes of the mask alone."""
    with tempfile.TemporaryDirectory(prefix="mmtt-bench-") as folder:
        workspace = Workspace.init(Path(folder, "w"))
        stored = [_store(workspace, number, number // _OF_A_BASE) for number in range(count)]
        apart = [forged for first in range(_OF_A_BASE) for forged in stored[first::_OF_A_BASE]]
        thresholds, root = Qc(), workspace.root
        encoded = [np.frombuffer(images.read_bytes(root / str(forged.mask)), np.uint8) for forged in stored]
        known = {forged.id: _known(root, forged) for forged in stored}

        def judge(forgeries: Sequence[Forged], pixels: bool = False, afresh: bool = False) -> None:
            measurer = image_rules.Measurer(root, pixels=pixels)
            for forged in forgeries:
                picture, _ = measurer.measure(forged, **{} if afresh else known[forged.id])
                base.judge(base.Subject.FORGERY, picture, thresholds, thresholds)

        def decode() -> None:
            for data in encoded:
                cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)

        steps: dict[str, Callable[[], object]] = {
            f"rules, {_OF_A_BASE} of a base": partial(judge, stored),
            "rules, one of a base": partial(judge, apart),
            "the same, covers unknown": partial(judge, apart, afresh=True),
            "rules, every pixel": partial(judge, stored, pixels=True),
        }
        seconds, ratios = _cpu(steps, decode)
    say(f"rules on {count} forgeries of 512 px, CPU time of one core, files in the cache")
    say(f"  {'':<26} {'masks/s':>10} {'x decoding':>12}")
    for name, spent in seconds.items():
        shown = "decoding the mask, OpenCV" if name == "published rule" else name
        say(f"  {shown:<26} {count / spent:>10,.0f} {1 / ratios[name]:>11.2f}x")


def _known(root: Path, forged: Forged) -> dict[str, Any]:
    """What `generate` wrote into the table beside its files."""
    crcs = forged.crcs[1], isal_zlib.crc32(images.read_bytes(root / str(forged.base_parts))), None
    _, cover = image_rules.Measurer(root).measure(forged)
    return {"cover": cover, "cover_of": regions.basis(crcs, forged.points, forged.landmarks)}


def _cover() -> tuple[float | None, ...]:
    """That of a mask over the whole of a drawn portrait."""
    labels = _portrait(0).labels
    return regions.Map(labels).cover(parts.select(labels, parts.CLASSES))


@cache
def _portrait(number: int) -> Portrait:
    return draw(number, SIZE)


def _store(workspace: Workspace, number: int, base_number: int) -> Forged:
    """Stores the pictures of a forgery: a drawn portrait with one to five of its parts turned to their negative."""
    portrait, rng = _portrait(base_number % 4), random.Random(number)
    names = rng.sample(
        ("l_eye", "r_eye", "l_brow", "r_brow", "nose", "u_lip", "l_lip", "skin", "hair"), rng.randint(1, 5)
    )
    mask = parts.select(portrait.labels, names)
    made = {
        workspace.image_path("pristine", str(base_number)): images.encode_rgb(portrait.image),
        workspace.image_path("parts", str(base_number)): images.encode_grey(portrait.labels),
        workspace.image_path("forged", str(number)): images.encode_rgb(
            masks.composite(portrait.image, 255 - portrait.image, mask)
        ),
        workspace.image_path("masks", str(number)): images.encode_grey(masks.to_grey(mask)),
    }
    for path, data in made.items():
        store.write_file(workspace.root / path, data)
    pristine, part_map, image, stored_mask = made
    crcs = (isal_zlib.crc32(made[image]), isal_zlib.crc32(made[stored_mask]), None)
    return Forged(
        f"bench-{number}", "ok", "bench", "train", base=pristine, base_parts=part_map, image=image, mask=stored_mask,
        points=tuple(face_points(portrait.labels)), crcs=crcs,
    )  # fmt: skip
