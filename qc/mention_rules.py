"""The rules that hold what is said and ticked against the mask: parts outside it, parts that no picture shows."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable
from itertools import compress
from operator import itemgetter
from pathlib import Path

from mmtt_build import images
from mmtt_build.errors import MmttError
from mmtt_build.parts import LABELS
from mmtt_build.records import SIZE, Annotation, Forged
from mmtt_build.workspace import Workspace
from qc import asymmetry, regions
from qc.base import Context, Evidence, Severity, rule
from qc.places import STOP, Slot, Span, slots
from qc.regions import Cover
from qc.sides import PAIRED

_OTHER = {"left": "right", "right": "left"}


@rule("mention.out-of-mask", Severity.REJECT, "min_cover", "sides")
def out_of_mask(annotation: Annotation, context: Context) -> Evidence | None:
    """A part that the description calls manipulated is touched by the mask, on the side that it says.

    MMTT: no mention of what was not forged. Touched is a part from `min_cover` of its pixels on, in the part map of the
    pristine or of the result; "both eyes" are two. A part that only says where another one is, or what it is compared
    with ("the cheek near the ear", "larger than the right eye"), is not called manipulated.
    """
    cover = _cover(context)
    if cover is None:
        return None
    untouched = []
    for (label, side), spans in context.claims.items():
        share = _share(cover, label, _subject(side, context))
        if share is not None and share < context.thresholds.min_cover:
            said = f"the mask covers {_percent(share)} of the {_name(_LIES_IN.get(label, label), side, context)}"
            untouched.append(context.quoted(spans, f"{{}}: {said}{_hint(cover, label, side, context)}"))
    return _together(untouched)


@rule("mention.no-such-part", Severity.REVIEW, "sides")
def no_such_part(annotation: Annotation, context: Context) -> Evidence | None:
    """A part that the description calls manipulated, or that is ticked, shows in the picture.

    That is, in one of its part maps: a hidden ear has no traces. Only parts with a class of their own can be missed,
    and on maps that were drawn from landmarks neither hair nor ears.
    """
    cover = _cover(context)
    hidden = _hidden(cover) if cover is not None else set()
    if not hidden:
        return None
    found = [
        context.quoted(spans, f"{{}}: the picture shows no {_name(label, side, context)}")
        for (label, side), spans in context.claims.items()
        if (label, "") in hidden or (label, _subject(side, context)) in hidden
    ]
    found += [
        Evidence(f"ticked {_plain(label, side)}: the picture shows none", ())
        for label, side in _ticks(annotation)
        if (label, "") in hidden or (label, side) in hidden
    ]
    return _together(found)


@rule("mention.authentic", Severity.REVIEW, "min_cover", "sides")
def authentic(annotation: Annotation, context: Context) -> Evidence | None:
    """A description says nothing of authentic areas, such as "the nose looks natural".

    MMTT: only what was manipulated is described. Found is a part that the text denies traces on, or opposes to the
    others, and that the mask does not touch.
    """
    cover = _cover(context)
    denied = [mention for mention in context.meant if mention.negated]
    if cover is None or not denied:
        return None
    return _together(
        context.quoted(spans, f"{{}}: the {_name(label, side, context)} was not manipulated, and needs no words")
        for (label, side), spans in slots(context.lowered, denied).items()
        if (share := _share(cover, label, _subject(side, context))) is not None and share < context.thresholds.min_cover
    )


@rule("answer.nothing-visible", Severity.REVIEW)
def nothing_visible(annotation: Annotation, context: Context) -> Evidence | None:
    """Who answers that nothing is visible, or that the pair is broken, describes no traces and ticks no parts."""
    if annotation.answer == "described":
        return None
    claimed = [(mention.start, mention.end) for mention in context.mentions if not mention.negated]
    ticked = ", ".join(_plain(label, side) for label, side in _ticks(annotation))
    found = [context.quoted(claimed, f"answered {annotation.answer!r}, and describes {{}}")] if claimed else []
    found += [Evidence(f"answered {annotation.answer!r}, and ticked {ticked}", ())] if ticked else []
    return _together(found)


@rule("labels.out-of-mask", Severity.REJECT, "min_cover")
def labels_out_of_mask(annotation: Annotation, context: Context) -> Evidence | None:
    """A part that is ticked is touched by the mask, on the side that is ticked.

    Ticks are of the subject's sides, whatever descriptions speak of.
    """
    cover = _cover(context)
    if cover is None:
        return None
    found = []
    for label, side in _ticks(annotation):
        share = _share(cover, label, side)
        if share is not None and share < context.thresholds.min_cover:
            message = f"ticked {_plain(label, side)}: the mask covers {_percent(share)} of it"
            other = _share(cover, label, _OTHER[side]) if side else None
            if other is not None and other >= context.thresholds.min_cover:
                message += f", and {_percent(other)} of the {_OTHER[side]} one: are left and right confused?"
            found.append(Evidence(message, ()))
    return _together(found)


@rule("labels.text", Severity.INFO)
def labels_and_text(annotation: Annotation, context: Context) -> str | None:
    """The parts that are ticked are those that the description names, if it names any."""
    if annotation.labels is None or not context.mentions:
        return None
    ticked = set(compress(LABELS, annotation.labels))
    unnamed = ticked.difference([mention.label for mention in context.mentions])
    unticked = {mention.label for mention in context.mentions if not mention.negated} - ticked
    sayings = (("ticked and not named", unnamed), ("called manipulated and not ticked", unticked))
    return "; ".join([f"{what}: {', '.join(sorted(which))}" for what, which in sayings if which]) or None


@rule("claim.pristine", Severity.REVIEW)
def claim_on_pristine(annotation: Annotation, context: Context) -> Evidence | None:
    """What a description says of a pair, such as eyes of different sizes, does not hold for the pristine as well.

    Size, height and pixels of the two are compared in the pristine and in the forged picture; found is a pair that the
    forging made no less alike. Faces are asymmetric by nature, which annotators take for a trace.
    """
    forgery = context.beside.forgery if context.beside else None
    if forgery is None or context.root is None or annotation.kind == "control":
        return None
    claims = _pairs(context)
    pictures = _pictures(context.root, forgery) if claims else None
    if pictures is None:
        return None
    found = []
    for label, spans in claims.items():
        pristine, forged = (asymmetry.measure(image, parts, label, points) for image, parts, points in pictures)
        if pristine is not None and forged is not None and not forged.exceeds(pristine):
            pair = "halves of the lips" if label == "lip" else f"{label}s"
            found.append(
                context.quoted(
                    spans, f"{{}}: the {pair} differ by {forged}; in the pristine, too, they differ by {pristine}"
                )
            )
    return _together(found)


# --- what is said of which part ---------------------------------------------------------------------------------------


def _cover(context: Context) -> Cover | None:
    return context.beside.forgery.cover if context.beside and context.beside.forgery else None


def _subject(side: str, context: Context) -> str:
    """The subject's side, of one as descriptions say it."""
    return _OTHER.get(side, side) if context.thresholds.sides == "viewer" else side


def _ticks(annotation: Annotation) -> list[Slot]:
    """Parts and subject's sides that are ticked."""
    if annotation.labels is None or not any(annotation.labels):
        return []
    sides: dict[str, list[str]] = {}
    for ticked in annotation.sides:
        label, _, side = ticked.partition(".")
        sides.setdefault(label, []).append(side)
    return [(label, side) for label in compress(LABELS, annotation.labels) for side in sides.get(label, [""])]


def _share(cover: Cover, label: str, side: str) -> float | None:
    share = regions.of(cover, label, side)
    return regions.of(cover, label) if share is None and label not in PAIRED else share


_CLASSED = ("eye", "pupil", "lip", "mouth", "nose", "ear", "eyebrow", "tooth", "tongue", "hair")
_NOT_IN_LANDMARKS = ("hair", "ear")
_SEEN = {slot: i for i, slot in enumerate(regions.SLOTS) if slot[0] in _CLASSED and (not slot[1] or slot[0] in PAIRED)}
_of_seen = itemgetter(*_SEEN.values())


def _hidden(cover: Cover) -> set[Slot]:
    """What neither part map shows of the parts that have a class; nothing where there was no part map."""
    shares = _of_seen(cover)
    if None not in shares:
        return set()
    hidden = {slot for slot, share in zip(_SEEN, shares, strict=True) if share is None}
    if len(hidden) == len(_SEEN):
        return set()
    if all((label, "") in hidden for label in _NOT_IN_LANDMARKS):
        return {slot for slot in hidden if slot[0] not in _NOT_IN_LANDMARKS}
    return hidden


_LIES_IN = {
    "pupil": "eye", "tooth": "mouth", "tongue": "mouth", "wrinkle": "skin", "freckle": "skin", "scar": "skin",
    "beard": "lower face", "mustache": "skin above the lip", "dimple": "cheeks and chin",
}  # fmt: skip


def _hint(cover: Cover, label: str, side: str, context: Context) -> str:
    """Says so where the other one of a pair is touched."""
    if side not in _OTHER or label not in PAIRED:
        return ""
    other = _share(cover, label, _subject(_OTHER[side], context))
    if other is None or other < context.thresholds.min_cover:
        return ""
    return f", and {_percent(other)} of the {_OTHER[side]} one: are left and right confused?"


def _name(label: str, side: str, context: Context) -> str:
    """A part as the description has it."""
    whose = "viewer's " if side and context.thresholds.sides == "viewer" else ""
    return whose + _plain(label, side)


def _plain(label: str, side: str) -> str:
    return f"{side} {label}".strip()


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _together(found: Iterable[Evidence]) -> Evidence | None:
    """All evidence of a rule as one."""
    every = list(found)
    if not every:
        return None
    spans = tuple(span for evidence in every for span in evidence.spans)[:_SPANS]
    return Evidence("; ".join(evidence.message for evidence in every), spans)


_SPANS = 100

# --- claims on pairs --------------------------------------------------------------------------------------------------

_COMPARED = "larger|bigger|smaller|higher|lower|wider|narrower|longer|shorter|thicker|thinner"
_PLURAL = "eyes|eyebrows|brows|pupils|ears|cheeks|lips"
_UNLIKE = tuple(
    # To look for the cues, without one of which a pattern cannot match, takes a hundredth of its time.
    (cues, re.compile(pattern))
    for cues, pattern in (
        (("symmetr",), r"(?<!not )(?<!no )\b(?:a|un)symmetr\w*"),
        (
            ("uneven", "unequal", "mismatched"),
            rf"\b(?:uneven|unequal|mismatched)(?:ly)?[ -](?:in |sized?\b|heights?\b|(?:{_PLURAL})\b)",
        ),
        (
            ("uneven", "unequal", "mismatched", "crooked", "not level", "not aligned", "not alike"),
            rf"\b(?:{_PLURAL}) (?:\w+ ){{1,3}}?(?:uneven|unequal|mismatched|crooked|not (?:level|aligned|alike))\b",
        ),
        (
            ("differ",),
            r"\bdifferent(?:ly)?[ -](?:in )?(?:sized?|sizes|shaped?|shapes|heights?)\b"
            r"|\bdiffers? in (?:size|shape|height)\b",
        ),
        (("the same ",), r"\bnot (?:of )?the same (?:size|height|shape)\b"),
        ((" than ",), rf"\b(?:{_COMPARED}) than (?:\w+ ){{0,2}}(?:left|right|other)\b"),
        (("one ",), rf"\bone (?:\w+ ){{0,2}}is (?:\w+ )?(?:{_COMPARED})\b"),
        (tuple("不一比"), "不对称|大小不[一同等]|高低不[一同平]|一大一小|一高一低|不一样[大高]|比[左右]"),
    )
)
_CUES = tuple(dict.fromkeys(cue for cues, _ in _UNLIKE for cue in cues))
_MEASURED = {"pupil": "eye", "mouth": "lip"} | {label: label for label in asymmetry.LABELS}


def _pairs(context: Context) -> dict[str, list[Span]]:
    """The pairs that the text says to be unlike, each with the words that say so in the same sentence."""
    text = context.lowered
    if not any(map(text.__contains__, _CUES)):
        return {}
    unlike = [
        claim for cues, pattern in _UNLIKE if any(map(text.__contains__, cues)) for claim in pattern.finditer(text)
    ]
    if not unlike:
        return {}
    stops = [stop.start() for stop in STOP.finditer(text)]
    said = {bisect(stops, claim.start()): claim.span() for claim in sorted(unlike, key=re.Match.start, reverse=True)}
    pairs: dict[str, dict[Span, None]] = {}
    for mention in context.mentions:
        span = said.get(bisect(stops, mention.start))
        if span is not None and not mention.negated and mention.label in _MEASURED:
            pairs.setdefault(_MEASURED[mention.label], {})[span] = None
    return {label: list(spans) for label, spans in pairs.items()}


_Picture = tuple[images.Image, images.Image, tuple[float, ...] | None]


def _pictures(root: Path, forgery: Forged) -> tuple[_Picture, _Picture] | None:
    """Image, part map and points of pristine and forged; None where a file is missing, which other rules tell."""
    if forgery.base is None or forgery.base_parts is None or forgery.image is None:
        return None
    own_parts = forgery.parts is not None
    names = (forgery.base, forgery.image, forgery.base_parts, forgery.parts or forgery.base_parts)
    try:
        workspace = Workspace(root)
        data = [images.read_bytes(workspace.resolve(name)) for name in names]
        base, forged = (images.decode_stored(one) for one in data[:2])
        before, after = (images.decode_stored(one, grey=True) for one in data[2:])
    except MmttError:
        return None
    if any(array.shape[:2] != (SIZE, SIZE) for array in (base, forged, before, after)):
        return None
    return (base, before, forgery.points), (forged, after, None if own_parts else forgery.points)
