"""Answers with findings for a workspace that has forgeries: what push, pull, audit, send-back and override leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from mmtt_build.stages.override import digest_of
from mmtt_build.workspace import Workspace
from qc.report.model import Gate

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
HOSTILE = (
    f"{SCRIPT} unlike the original image",
    "</script></style><!-- the nose is blurred",
    "The left eye \u202eis drawn from right to left\u202c and \x00\x1b[31m red",
    '=HYPERLINK("https://example.org","the lips") is a formula',
    "左眼的边缘模糊，肤色不一致。",
    "العين اليسرى غير واضحة 👨‍👩‍👧 وحوافها حادة",
)
WORDS = (
    "The left eye is blurred and its edge does not match the skin around it.",
    "Compared with the original image, the mouth is wider and its corners are smeared.",
    "The texture of the cheek is too smooth, and the eyebrow ends in a hard line. " * 2,
    "Nose odd.",
)
START = datetime(2026, 11, 2, 9, tzinfo=UTC)
PROFILE = {
    "per_hour": 24.51, "observation_s": 75.0, "words": 14.2, "controls": 9, "false_claims": 4, "repeats": 12,
    "agreement": {"alpha": 0.5432},
}  # fmt: skip
GATES = (
    Gate("max_rejected", 0.1, 0.127, False),
    Gate("max_review", 1.0, 0.2, True),
    Gate("max_rejected_images", 0.0, 0.0, True),
    Gate("min_agreement", 0.4, None, True),
    Gate("dataset", True, True, True),
)


def _finding(rule: str, severity: str, message: str, *spans: Sequence[int]) -> dict[str, Any]:
    return {
        "rule": rule, "severity": severity, "message": message,
        "spans": [{"start": start, "end": end} for start, end in spans],
    }  # fmt: skip


def _found(text: str, draw: float) -> list[dict[str, Any]]:
    found = []
    at = text.find("original image")
    if at >= 0:
        span = (at, at + len("original image"))
        found.append(_finding("text.original", "reject", f"speaks of the original image: {text[slice(*span)]!r}", span))
    if draw < 0.05:
        found.append(_finding("time.too-short", "reject", f"{draw * 1000:.1f} s, at least 60 s"))
    if text.startswith("Nose"):
        found.append(_finding("text.too-short", "review", "2 words, at least 3"))
    if text in HOSTILE:
        found.append(_finding("text.language", "review", f"an odd one: {text}", (4, 12)))
    if draw > 0.8:
        found.append(_finding("text.no-part", "info", "names none of the 21 parts"))
    return found


def _verdict(findings: Sequence[dict[str, Any]]) -> str:
    severities = {one["severity"] for one in findings}
    return next((name for name in ("reject", "review") if name in severities), "accept")


def fill(workspace: Workspace, count: int, *, seed: int = 0) -> None:
    """Gives a workspace so many answers by six annotators over three weeks; every forgery has several.

    The first answers are `HOSTILE`; every 50th is a control, every 25th a repeat.
    """
    rng = np.random.default_rng(seed)
    forgeries = workspace.forgeries.read(["forgery_id", "status"]).to_pylist()
    made = [row["forgery_id"] for row in forgeries if row["status"] == "ok"]
    bases = {row["forgery_id"]: row["base_id"] for row in workspace.plan.read(["forgery_id", "base_id"]).to_pylist()}
    annotations, submissions, tasks, findings = [], [], [], []
    at = START
    for number in range(count):
        name, forgery, annotator = f"p1-{number:05d}", made[number % len(made)], f"a{number % 6 + 1:02d}"
        kind = "control" if number % 50 == 49 else "repeat" if number % 25 == 24 else "pair"
        text = HOSTILE[number] if number < len(HOSTILE) else _text(rng, annotator)
        at += timedelta(seconds=float(rng.integers(60, 240)))
        if at.hour >= 17:
            at = at.replace(hour=9, minute=0) + timedelta(days=1)
        said = {"annotation_id": name, "annotator": annotator, "answer": "described", "description": text,
                "language": "en", "observation_s": 75.0, "origin": "human"}  # fmt: skip
        tasks.append({"task_id": f"t{number}", "kind": kind, "forgery_id": None if kind == "control" else forgery,
                      "mask_of": forgery, "base_id": bases[forgery], "annotator": annotator})  # fmt: skip
        submissions.append({**said, "task_id": f"t{number}", "kind": kind, "status": "ok", "created_at": at,
                            "updated_at": at, "source": "server"})  # fmt: skip
        if kind == "pair":
            annotations.append({**said, "forgery_id": forgery})
        found = _found(text, 0.5 if text in HOSTILE else float(rng.random()))
        verdict = _verdict(found)
        findings.append(
            {"annotation_id": name, "forgery_id": tasks[-1]["forgery_id"], "kind": kind, "annotator": annotator,
             "verdict": verdict, "judged": verdict, "override": None, "findings": found, "fingerprint": "-"}
        )  # fmt: skip
    _repair(workspace, submissions, annotations, findings)
    for table, rows in (
        (workspace.annotations, annotations), (workspace.submissions, submissions), (workspace.tasks, tasks),
        (workspace.findings, findings),
    ):  # fmt: skip
        table.append(rows)
    workspace.image_checks.append(
        [
            {"forgery_id": name, "verdict": "review" if number == 1 else "accept", "fingerprint": "-",
             "findings": [_finding("image.rectangle", "review", "the mask is a plain rectangle")] * (number == 1)}
            for number, name in enumerate(made)
        ]
    )  # fmt: skip
    workspace.checks.append(
        [
            {"subject": "dataset", "verdict": "review", "facts": "{}",
             "findings": [_finding("dataset.balance", "review", "warp has 31 % of the forgeries, planned are 25 %")]},
            {"subject": "annotator/a03", "verdict": "review", "facts": json.dumps(PROFILE),
             "findings": [_finding("annotator.rejected", "review", "38 % of 334 descriptions are rejected")]},
        ]
    )  # fmt: skip


def _text(rng: np.random.Generator, annotator: str) -> str:
    careless = annotator == "a03"
    return WORDS[int(rng.choice(4, p=[0.5, 0.3, 0.1, 0.1] if careless else [0.62, 0.04, 0.29, 0.05]))]


def _repair(
    workspace: Workspace, submissions: list[dict[str, Any]], annotations: list[dict[str, Any]],
    findings: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Sends the rejected among the first 100 back, gives every second of them a better version, and overrides one."""
    rejected = [at for at, row in enumerate(findings[:100]) if row["verdict"] == "reject" and row["kind"] == "pair"]
    overruled, *sent = rejected
    row = findings[overruled]
    decision = f"{row['annotation_id']}@2026-11-20T10:00:00"
    row |= {"verdict": "accept", "override": decision}
    workspace.overrides.append(
        [
            {"override_id": decision, "annotation_id": row["annotation_id"], "verdict": "accept", "by": "lead",
             "reason": f"looked at it: fine {SCRIPT}", "at": START + timedelta(days=18),
             "words": digest_of("described", submissions[overruled]["description"])},
        ]
    )  # fmt: skip
    back = START + timedelta(days=19)
    workspace.sent_back.append(
        [
            {"annotation_id": findings[at]["annotation_id"], "task_id": submissions[at]["task_id"],
             "annotator": findings[at]["annotator"], "reasons": ["Do not speak of the original image."],
             "rules": [one["rule"] for one in findings[at]["findings"]], "status": "sent", "by": "lead", "at": back}
            for at in sent
        ]
    )  # fmt: skip
    rows = {row["annotation_id"]: row for row in annotations}
    for place, at in enumerate(sent):
        before = rows[findings[at]["annotation_id"]]
        before["answer"] = submissions[at]["status"] = "sent-back"
        findings[at]["verdict"] = None
        if place % 2 == 0:
            better = {"annotation_id": f"{findings[at]['annotation_id']}-again", "description": WORDS[0]}
            later = {"created_at": back + timedelta(hours=1), "updated_at": back + timedelta(hours=1)}
            submissions.append(submissions[at] | better | later | {"status": "ok"})
            findings.append(
                findings[at] | {"annotation_id": better["annotation_id"], "verdict": "accept", "judged": "accept",
                                "findings": []}
            )  # fmt: skip
            annotations.append(before | better | {"answer": "described"})
