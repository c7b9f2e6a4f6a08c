"""A workspace of drawn portraits whose 2,000 answers keep every rule, and ways to break each rule in some of them.

The answers are written by a program in the manner of annotators, as work of forty people on a server would come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mmtt_build import parts
from mmtt_build.stages.answers import Forgeries, forged
from mmtt_build.stages.demo import draw_portraits
from mmtt_build.stages.generate import Machine, generate
from mmtt_build.stages.ingest import ingest
from mmtt_build.stages.measure import measure
from mmtt_build.workspace import Workspace
from qc.regions import SLOTS

ANSWERS = 2000
ANNOTATORS = 100
SHARE = 0.1
BEGAN = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
MIN_COVER = 0.02

WORDS = {
    "eye": ("eye",), "pupil": ("pupil", "iris"), "lip": ("upper lip", "lower lip"), "mouth": ("mouth", "mouth"),
    "nose": ("nose", "nostrils", "bridge of the nose"), "ear": ("ear",), "cheek": ("cheek", "cheekbone"),
    "forehead": ("forehead",), "chin": ("chin",), "jaw": ("jaw", "jawline"), "eyebrow": ("eyebrow", "brow"),
    "hair": ("hair", "hairline"),
}  # fmt: skip
"""Words of labels that a drawn portrait shows."""
LABEL = {"iris": "eye"}
SIDED = ("eye", "pupil", "ear", "cheek", "eyebrow")
TRACES = """
has a seam along its outer edge
is blurred although all around it is sharp
has lost its fine texture
is lit from another direction than its surroundings
casts a shadow that leads nowhere
bends where it should be straight
ends in a hard border of another tone
is covered by a greyish veil
shows small blocks of one colour
is too smooth to be natural
repeats a pattern twice
is drawn out to one side
seems to float above its surroundings
has an edge like torn paper
fades out before it should end
is flatter than its light suggests
carries a pale halo
is a little too dark in its lower half
is grainy within a sharp outline
looks pasted on at an odd angle
shows a double contour
glows in a way that no lamp explains
has a smeared, oily surface
dissolves into noise
is crossed by a thin bright stripe
has an outline that wavers
appears swollen without any shading
is stretched downwards
holds colours found nowhere else
breaks off at a straight cut
""".strip().splitlines()
HEADS = """
In this face
On close inspection
At second sight
Seen from near
Here
Zoomed in
Under strong light
Even from afar
In the middle of the picture
At full size
Strangely
Without doubt
From one step back
""".strip().splitlines()
ADVERBS = ("clearly", "slightly", "visibly", "a little", "somewhat", "markedly", "unmistakably", "plainly")


@dataclass(frozen=True)
class Answer:
    """One answer, as the two tables that hold it want it."""

    forgery: str
    said: Mapping[str, Any]
    submitted: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its annotation id."""
        return str(self.said["annotation_id"])

    def but(self, **changes: Any) -> Answer:
        """The same with other values in both tables."""
        both = {name: value for name, value in changes.items() if name in self.said}
        return replace(self, said=self.said | both, submitted=self.submitted | changes)


@dataclass(frozen=True)
class Faces:
    """The workspace, its answers without a fault, and per forgery what the mask covers by (label, side)."""

    workspace: Workspace
    answers: list[Answer]
    covers: dict[str, dict[tuple[str, str], float | None]]

    def inside(self, forgery: str) -> list[tuple[str, str]]:
        """Parts that can be named with a good conscience: label and side, "" where there is none to name."""
        cover = self.covers[forgery]
        sure = [slot for slot in cover if slot[0] in WORDS and (cover[slot] or 0) > 0.1]
        return [(label, side) for label, side in sure if bool(side) == (label in SIDED)]

    def outside(self, forgery: str) -> list[tuple[str, str]]:
        """Parts that the picture shows and the mask does not touch."""
        cover = self.covers[forgery]
        return [
            (label, side)
            for (label, side), share in cover.items()
            if label in WORDS and share is not None and share < MIN_COVER / 4 and bool(side) == (label in SIDED)
        ]


def make(folder: Path, *, portraits: int = 16, forgeries: int = 40) -> Faces:
    """Draws, forges, measures, and writes the answers into the tables."""
    from mmtt_build.sources.base import Options

    draw_portraits(folder / "sources", portraits)
    Workspace.init(folder / "faces")
    recipe = folder / "faces" / "mmtt.toml"
    text = recipe.read_text("utf-8").replace("total = 0 ", f"total = {forgeries} ")
    for method, share in {"blendswap": 0.2, "splice": 0.3, "patchfill": 0.25, "warp": 0.25}.items():
        text = "\n".join(
            f"{method} = {share}" if line.startswith(f"{method} = ") else line for line in text.split("\n")
        )
    recipe.write_text(text, "utf-8")
    workspace = Workspace(folder / "faces")
    ingest(workspace, "portraits", folder / "sources", Options())
    generate(workspace, machine=Machine())
    measure(workspace)
    names = workspace.forgeries.keys(status="ok").combine_chunks()
    there = Forgeries(workspace)
    rows = map(forged, there.rows(there.find(names)).to_pylist())
    covers = {of.id: dict(zip(SLOTS, of.cover, strict=True)) for of in rows if of and of.cover}
    faces = Faces(workspace, [], covers)
    faces.answers.extend(_answers(faces))
    write(workspace, faces.answers)
    return faces


def write(workspace: Workspace, answers: list[Answer]) -> None:
    """Appends answers to both tables."""
    workspace.annotations.append([answer.said for answer in answers])
    workspace.submissions.append([answer.submitted for answer in answers])


def _answers(faces: Faces) -> Iterator[Answer]:
    """Every annotator describes every forgery that has parts to name, two minutes after the one before."""
    usable = [name for name in sorted(faces.covers) if len(faces.inside(name)) >= 2]
    each = ANSWERS // ANNOTATORS
    for number in range(ANSWERS):
        who, turn = number // each, number % each
        forgery = usable[(turn + who) % len(usable)]
        text, named = describe(faces, forgery, np.random.default_rng([2026, number]))
        name, made = f"k-{number:04d}", BEGAN + timedelta(days=turn // 20, minutes=3 * (turn % 20), seconds=number % 50)
        said = {
            "annotation_id": name, "forgery_id": forgery, "answer": "described", "description": text, "language": "en",
            "labels": parts.label_vector({label for label, _ in named}), "annotator": f"a{who:02d}",
            "observation_s": 70.0 + number % 60, "origin": "human",
        }  # fmt: skip
        submitted = {
            **{key: value for key, value in said.items() if key != "forgery_id"},
            "task_id": f"t-{number:04d}", "kind": "pair", "status": "ok", "source": "server",
            "sides": sorted({f"{label}.{side}" for label, side in named if side}), "lead_time_s": 80.0 + number % 60,
            "served_at": made - timedelta(seconds=90), "created_at": made, "updated_at": made,
        }  # fmt: skip
        yield Answer(forgery, said, submitted)


def describe(faces: Faces, forgery: str, rng: np.random.Generator) -> tuple[str, list[tuple[str, str]]]:
    """A description of what lies inside the mask, and the parts that it names."""
    inside = faces.inside(forgery)
    chosen = [inside[i] for i in rng.permutation(len(inside))[: rng.integers(2, 4)]]
    clauses, named = [], []
    for (label, side), trace in zip(chosen, rng.permutation(len(TRACES)), strict=False):
        word = str(rng.choice(WORDS[label]))
        named.append((LABEL.get(word, label), side))
        plural = word.endswith("nostrils")
        verb, rest = TRACES[trace].split(" ", 1)
        verb = {"is": "are", "has": "have"}.get(verb, verb.removesuffix("s")) if plural else verb
        rest = rest.replace(" its ", " their ").replace(" it ", " they ") if plural else rest
        clauses.append(f"the {side + ' ' if side else ''}{word} {rng.choice(ADVERBS)} {verb} {rest}")
    return f"{rng.choice(HEADS)}, " + "; ".join(clauses) + ".", named


# --- faults -----------------------------------------------------------------------------------------------------------

Fault = Callable[[Faces, Answer, int], "Answer | None"]
"""Breaks a rule in an answer, the n-th of those that break it; None where this one cannot be broken so."""


def _text(change: Callable[[str], str]) -> Fault:
    return lambda faces, answer, n: answer.but(description=change(answer.said["description"]))


def _spoken(label: str, side: str) -> str:
    return f"{side + ' ' if side else ''}{WORDS[label][0]}"


def _outside(faces: Faces, answer: Answer, n: int) -> Answer | None:
    others = faces.outside(answer.forgery)
    if not others:
        return None
    spoken = _spoken(*others[n % len(others)])
    return answer.but(description=f"{answer.said['description']} Besides, the {spoken} is blurred.")


def _authentic(faces: Faces, answer: Answer, n: int) -> Answer | None:
    others = faces.outside(answer.forgery)
    if not others:
        return None
    spoken = _spoken(*others[n % len(others)])
    return answer.but(description=f"{answer.said['description']} The {spoken} looks natural.")


def _absent(faces: Faces, answer: Answer, n: int) -> Answer | None:
    cover = faces.covers[answer.forgery]
    hidden = [slot for slot, share in cover.items() if slot[0] == "ear" and slot[1] and share is None]
    if not hidden or cover["hair", ""] is None:  # a map drawn from landmarks has neither
        return None
    return answer.but(description=f"{answer.said['description']} The {hidden[0][1]} ear is blurred.")


def _pristine(faces: Faces, answer: Answer, n: int) -> Answer | None:
    """Of eyes that are the same pixels in both pictures."""
    if faces.covers[answer.forgery]["eye", ""] != 0:
        return None
    return answer.but(description=f"{answer.said['description']} The eyes differ in size.")


def _ticked(faces: Faces, answer: Answer, n: int) -> Answer | None:
    others = [label for label, side in faces.outside(answer.forgery) if not side]
    if not others:
        return None
    labels = list(answer.said["labels"])
    labels[parts.LABELS.index(others[n % len(others)])] = 1
    return answer.but(labels=labels)


def _unticked(faces: Faces, answer: Answer, n: int) -> Answer:
    labels = list(answer.said["labels"])
    labels[labels.index(1)] = 0
    return answer.but(labels=labels)


def _close(faces: Faces, answer: Answer, n: int) -> Answer | None:
    number = int(answer.said["annotation_id"][2:])
    if number % (ANSWERS // ANNOTATORS) == 0:  # an annotator's first
        return None
    made = faces.answers[number - 1].submitted["created_at"] + timedelta(seconds=20)
    return answer.but(created_at=made, updated_at=made, served_at=made - timedelta(seconds=90))


def _clock(faces: Faces, answer: Answer, n: int) -> Answer:
    return answer.but(served_at=answer.submitted["created_at"] + timedelta(seconds=40))


def _second(faces: Faces, answer: Answer, n: int) -> Answer | None:
    number = int(answer.said["annotation_id"][2:])
    if number % 2 == 0:
        return None
    return answer.but(task_id=f"t-{number - 1:04d}")


def _near(faces: Faces, answer: Answer, n: int) -> Answer | None:
    """Words of the same annotator's earlier answer on the same parts, with one changed."""
    number = int(answer.said["annotation_id"][2:])
    before = faces.answers[number - 1]
    if number % (ANSWERS // ANNOTATORS) == 0 or number % 2 == 0:
        return None
    return answer.but(description=before.said["description"].replace("the ", "this ", 1))


def _same(faces: Faces, answer: Answer, n: int) -> Answer | None:
    number = int(answer.said["annotation_id"][2:])
    if number % (ANSWERS // ANNOTATORS) == 0 or number % 2 == 0:
        return None
    return answer.but(description=faces.answers[number - 1].said["description"])


def _other(faces: Faces, answer: Answer, n: int) -> Answer | None:
    number = int(answer.said["annotation_id"][2:])
    each = ANSWERS // ANNOTATORS
    if number % each == 0 or number // each % 2 == 0:  # the odd annotators copy from the even ones, what came before
        return None
    return answer.but(description=faces.answers[number - each - 1].said["description"])


def _template(faces: Faces, answer: Answer, n: int) -> Answer | None:
    """One annotator of ten ends every description with the same long sentence; the first time it is none yet."""
    if int(answer.said["annotation_id"][2:]) // (ANSWERS // ANNOTATORS) >= ANNOTATORS * SHARE:
        return None
    more = "All of this looks as if somebody had worked on the picture by hand with a brush that was too soft."
    return answer.but(description=f"{answer.said['description']} {more}")


FAULTS: dict[str, Fault] = {
    "text.empty": _text(lambda text: " \n"),
    "text.too-short": _text(lambda text: "Quite odd."),
    "text.too-long": _text(lambda text: f"{text} " + "very " * 120 + "odd"),
    "text.no-part": _text(lambda text: "Everything here looks pasted, and the light comes from another direction."),
    "text.language": _text(lambda text: "El borde de esta zona es demasiado duro y la luz no encaja con el resto."),
    "text.original": _text(lambda text: f"{text} It differs from the original image."),
    "text.personal": _text(lambda text: f"{text} Ask me: ann@lab.example"),
    "text.name": _text(lambda text: f"{text} She looks like Marilyn Monroe."),
    "time.too-short": lambda faces, answer, n: answer.but(observation_s=12.0),
    "time.too-close": _close,
    "time.clock": _clock,
    "row.forgery": lambda faces, answer, n: replace(answer, said={**answer.said, "forgery_id": f"nobodys-{n}"}),
    "row.second": _second,
    "mention.out-of-mask": _outside,
    "mention.authentic": _authentic,
    "mention.no-such-part": _absent,
    "answer.nothing-visible": lambda faces, answer, n: answer.but(answer="nothing-visible"),
    "claim.pristine": _pristine,
    "labels.out-of-mask": _ticked,
    "labels.text": _unticked,
    "copy.same": _same,
    "copy.near": _near,
    "copy.other": _other,
    "copy.template": _template,
}
