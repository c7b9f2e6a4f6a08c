"""Overall: annotators and the dataset as a whole, as of the last audit of the answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmtt_build.parts import LABELS
from mmtt_build.stages.answers import Answers
from mmtt_build.stages.export import chains
from mmtt_build.stages.groups import alike_faces, embeddings, near_duplicates
from mmtt_build.stages.standing import per_hour
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from qc.agreement import Agreement, Coding
    from qc.annotators import Profile
    from qc.base import Finding
    from qc.dataset import Dataset

DATASET = "dataset"
"""Subject of the row of `checks` on it."""


@dataclass(frozen=True, slots=True)
class Overall:
    """What was found of annotators and of the dataset.

    Attributes:
        profiles: by annotator.
        agreement: of all annotators on repeats.
        facts: of the dataset: counts of forgeries, by method and by split, of what is missing, and agreement.
        findings: by subject, as in the table `checks`.
        verdicts: likewise.
        changed: rows that were written, or would be.
    """

    profiles: Mapping[str, Profile]
    agreement: Agreement
    facts: Mapping[str, Any]
    findings: Mapping[str, tuple[Finding, ...]]
    verdicts: Mapping[str, str]
    changed: int

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha on repeats, or None."""
        return self.agreement.alpha

    @property
    def sound(self) -> bool:
        """Whether no rule rejects the dataset."""
        return self.verdicts[DATASET] != "reject"


def overall(workspace: Workspace, *, dry_run: bool = False) -> Overall:
    """Judges annotators and the dataset, and records in `checks` what is another verdict, finding or number.

    Args:
        workspace: whose tables; verdicts on answers are those of `findings`.
        dry_run: writes nothing.
    """
    from qc import base
    from qc.agreement import agreement

    qc = workspace.recipe.qc
    stored = {row["subject"]: row for row in workspace.checks.read().to_pylist()}
    answers = Answers(workspace).rows
    codings = _codings(answers)
    profiles = _profiles(answers, workspace, codings)
    together = agreement(codings)
    before = json.loads(stored.get(DATASET, {}).get("facts") or "{}")
    plan = workspace.plan.read(["forgery_id", "method", "split", "identity_group", "base_id", "source_id", "parent_id"])
    used = dict(chains(plan))
    usable = plan.filter(pc.is_in(plan["forgery_id"], workspace.forgeries.keys(status="ok").combine_chunks()))
    splits = _splits(usable, used)
    near = _near_duplicates(workspace, splits, before.get("near_duplicates", {}))
    faces = _one_person(workspace, splits, before.get("one_person", {}))
    dataset = _dataset(workspace, usable, used, answers, near["pairs"], faces["pairs"])
    facts = _facts(dataset) | {"agreement": asdict(together), "near_duplicates": near, "one_person": faces}

    findings = {f"annotator/{name}": base.judge(base.Subject.ANNOTATOR, of, qc, qc) for name, of in profiles.items()}
    findings[DATASET] = base.judge(base.Subject.DATASET, dataset, qc, qc)
    numbers = {f"annotator/{name}": asdict(profile) for name, profile in profiles.items()} | {DATASET: facts}
    verdicts = {subject: base.verdict(found) for subject, found in findings.items()}
    rows: list[dict[str, Any]] = [
        {
            "subject": subject,
            "verdict": verdicts[subject],
            "findings": [base.row_of(finding) for finding in found],
            "facts": json.dumps(numbers[subject], default=datetime.isoformat, sort_keys=True),
        }
        for subject, found in sorted(findings.items())
    ]
    gone = [subject for subject, row in stored.items() if row["verdict"] is not None and subject not in findings]
    rows += [{"subject": subject, "verdict": None, "findings": [], "facts": None} for subject in sorted(gone)]
    rows = [row for row in rows if stored.get(row["subject"]) != row]
    if not dry_run:
        workspace.checks.append(rows)
    return Overall(profiles, together, facts, {s: tuple(of) for s, of in findings.items()}, verdicts, len(rows))


# --- annotators -------------------------------------------------------------------------------------------------------


def _codings(answers: pa.Table) -> list[Coding]:
    """What people answered on forgeries that were given to several of them, the earliest first."""
    from qc.agreement import Coding

    repeated = pc.unique(answers.filter(pc.equal(answers["kind"], "repeat"))["forgery_id"])
    of_people = pc.and_(
        pc.and_(pc.is_in(answers["kind"], pa.array(["pair", "repeat"])), pc.not_equal(answers["origin"], "scripted")),
        pc.and_(pc.not_equal(answers["answer"], "broken-pair"), pc.is_valid(answers["labels"])),
    )
    rows = answers.filter(pc.and_(of_people, pc.is_in(answers["forgery_id"], repeated)))
    rows = rows.sort_by([("created_at", "ascending"), ("annotation_id", "ascending")])
    columns = (rows[name].to_pylist() for name in ("forgery_id", "annotator", "labels", "description"))
    return [
        Coding(forgery, annotator, labels, text or "")
        for forgery, annotator, labels, text in zip(*columns, strict=True)
        if forgery
    ]


def _profiles(answers: pa.Table, workspace: Workspace, codings: Iterable[Coding]) -> dict[str, Profile]:
    """What was counted of each person, by annotator; of their answers the earliest first."""
    from qc.agreement import by_annotator

    rows = answers.filter(pc.and_(pc.not_equal(answers["origin"], "scripted"), pc.is_valid(answers["annotator"])))
    rows = rows.sort_by([("annotator", "ascending"), ("created_at", "ascending"), ("annotation_id", "ascending")])
    findings = workspace.findings.read(["annotation_id", "verdict"])
    verdict = findings["verdict"].take(pc.index_in(rows["annotation_id"], findings["annotation_id"].combine_chunks()))
    rows = rows.append_column("verdict", verdict).combine_chunks()
    agreed = by_annotator(codings)
    runs = pc.run_end_encode(rows["annotator"].combine_chunks()) if len(rows) else None
    found, start = {}, 0
    for name, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True) if runs is not None else ():
        profile = _profile(name, rows.slice(start, end - start), workspace.recipe.qc.min_observation_s)
        found[name] = replace(profile, agreement=agreed[name]) if name in agreed else profile
        start = end
    return found


def _profile(name: str, rows: pa.Table, least_s: float) -> Profile:
    from qc.annotators import Profile, bursts, thirds, variety
    from qc.spelling import count

    texts = [text for text in rows["description"].to_pylist() if text and not text.isspace()]
    stamps = rows["created_at"].drop_null().cast(pa.int64()).to_pylist()  # Arrow's own datetimes take ten times as long
    times = [datetime.fromtimestamp(stamp / 1e6, UTC) for stamp in stamps]
    seconds = rows["observation_s"].drop_null().to_pylist()
    verdicts = [verdict for verdict in rows["verdict"].to_pylist() if verdict is not None]
    kinds = Counter(zip(rows["kind"].to_pylist(), rows["answer"].to_pylist(), strict=True))
    recent, different = variety(reversed(texts))
    hours = Counter(time.hour for time in times)
    claims = kinds["control", "described"]
    return Profile(
        name,
        submissions=len(rows),
        descriptions=len(texts),
        judged=len(verdicts),
        rejected=verdicts.count("reject"),
        review=verdicts.count("review"),
        repeats=sum(number for (kind, _), number in kinds.items() if kind == "repeat"),
        controls=claims + kinds["control", "nothing-visible"],
        false_claims=claims,
        per_hour=per_hour(times),
        observation_s=median(seconds) if seconds else None,
        bursts=bursts(times, least_s),
        words=mean(map(count, texts)) if texts else None,
        recent_words=recent,
        different_words=different,
        thirds=thirds([verdict == "reject" for verdict in verdicts]),
        hours=tuple(hours[hour] for hour in range(24)),
        first=times[0] if times else None,
        last=times[-1] if times else None,
    )


# --- the dataset ------------------------------------------------------------------------------------------------------


def _dataset(
    workspace: Workspace,
    usable: pa.Table,
    used: Mapping[str, list[str]],
    answers: pa.Table,
    alike: Iterable[Sequence[str]],
    faces: Iterable[tuple[str, str, float]],
) -> Dataset:
    """What the tables say of the dataset.

    Args:
        workspace: whose.
        usable: rows of the plan whose forgeries can be used.
        used: images in each planned forgery.
        answers: of annotators.
        alike: near-duplicates across splits.
        faces: of one person, across splits, with their cosine similarity.
    """
    from qc.dataset import Dataset

    recipe = workspace.recipe
    names, bases = usable["forgery_id"].to_pylist(), usable["base_id"].to_pylist()
    groups = workspace.groups.read(["id", "identity_group"])
    pristine = workspace.pristine.read(["id", "status", "licence"])
    made = workspace.forgeries.read(["forgery_id", "status"])
    settled = set(made.filter(pc.is_in(made["status"], pa.array(["ok", "rejected"])))["forgery_id"].to_pylist())
    there = set(pristine.filter(pc.equal(pristine["status"], "ok"))["id"].to_pylist())
    described = answers.filter(pc.and_(pc.equal(answers["answer"], "described"), pc.equal(answers["kind"], "pair")))
    with_text = set(described["forgery_id"].to_pylist())
    labels = described["labels"].combine_chunks().drop_null()
    mentioned = labels.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(LABELS)).sum(axis=0).tolist()
    return Dataset(
        forgeries=names,
        methods=usable["method"].to_pylist(),
        splits=usable["split"].to_pylist(),
        groups=usable["identity_group"].to_pylist(),
        bases=bases,
        others=[[image for image in used[name] if image != base] for name, base in zip(names, bases, strict=True)],
        group_of=dict(zip(groups["id"].to_pylist(), groups["identity_group"].to_pylist(), strict=True)),
        alike=[(one, other) for one, other in alike],
        faces=[(one, other, cosine) for one, other, cosine in faces],
        same_person_cosine=recipe.ingest.same_person_cosine,
        licences=dict(zip(pristine["id"].to_pylist(), pristine["licence"].to_pylist(), strict=True)),
        waiting=[name for name, images in used.items() if name not in settled and there.issuperset(images)],
        undescribed=[name for name in names if name not in with_text],
        labels=dict(zip(LABELS, mentioned, strict=True)),
        described=len(labels),
        mix=recipe.mix,
        shares=recipe.split.shares(),
    )


_Splits = Mapping[str, set[str]]
"""Of each image that is in use, by id, the splits that it is in use in."""


def _splits(usable: pa.Table, used: Mapping[str, list[str]]) -> _Splits:
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in zip(usable["forgery_id"].to_pylist(), usable["split"].to_pylist(), strict=True):
        for image in used[name]:
            splits[image].add(split)
    return splits


def _near_duplicates(workspace: Workspace, splits: _Splits, before: Mapping[str, Any]) -> dict[str, Any]:
    """Images in use in different splits that are near-duplicates: {"fingerprint", "pairs"}.

    To compare all takes half a minute for 100,000 images, so it is done only where an image, its split or the threshold
    is another one than the last time.
    """
    bits = workspace.recipe.ingest.near_duplicate_bits
    pristine = _in_use(workspace.pristine.read(["id", "phash"]), splits)
    ids = pristine["id"].to_pylist()
    fingerprint, elsewhere = _compared(bits, ids, splits, b"".join(pristine["phash"].to_pylist()))
    if before.get("fingerprint") == fingerprint:
        return dict(before)
    found = near_duplicates(pristine["phash"], elsewhere, bits) if len(elsewhere) else _NO_PAIRS
    return {
        "fingerprint": fingerprint,
        "pairs": sorted(sorted((one, other)) for one, other in _across(found, ids, splits)),
    }


def _one_person(workspace: Workspace, splits: _Splits, before: Mapping[str, Any]) -> dict[str, Any]:
    """The same of images whose faces are as similar as those of one person, with their cosine, the likest first."""
    least = workspace.recipe.ingest.same_person_cosine
    table = _in_use(workspace.faces.read(["id", "embedding"]), splits)
    ids, faces = table["id"].to_pylist(), embeddings(table["embedding"]) if len(table) else np.empty((0, 1), np.float16)
    fingerprint, elsewhere = _compared(least, ids, splits, faces.reshape(-1).data)
    if before.get("fingerprint") == fingerprint:
        return dict(before)
    found = alike_faces(faces, elsewhere, least) if len(elsewhere) else _NO_PAIRS
    at = {name: number for number, name in enumerate(ids)}
    pairs = []
    for one, other in _across(found, ids, splits):
        cosine = faces[at[one]].astype(np.float32) @ faces[at[other]].astype(np.float32)
        pairs.append((*sorted((one, other)), round(float(cosine), 4)))
    return {"fingerprint": fingerprint, "pairs": sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))}


_NO_PAIRS = np.empty((0, 2), np.int64)


def _in_use(table: pa.Table, splits: _Splits) -> pa.Table:
    """Of a table of ids and a second column the images that are in use and have a value there."""
    return table.filter(pc.and_(pc.is_in(table["id"], pa.array(list(splits), pa.string())), pc.is_valid(table[1])))


def _compared(
    threshold: float, ids: list[str], splits: _Splits, content: bytes | memoryview
) -> tuple[str, NDArray[np.int64]]:
    """Fingerprint of what is compared, and the numbers of the images that are to be compared with all.

    Whatever is near lies in the largest split together, or one of the two is elsewhere.
    """
    where = [" ".join(sorted(splits[image])) for image in ids]
    said = hashlib.blake2b(repr((threshold, ids, where)).encode(), digest_size=12)
    said.update(content)
    most = Counter(where).most_common(1)
    return said.hexdigest(), np.array([i for i, split in enumerate(where) if split != most[0][0]], np.int64)


def _across(found: NDArray[np.int64], ids: list[str], splits: _Splits) -> Iterator[tuple[str, str]]:
    """Of pairs of numbers the ids of those that are in use in different splits."""
    for one, other in found.tolist():
        if len(splits[ids[one]] | splits[ids[other]]) > 1:
            yield ids[one], ids[other]


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "forgeries": len(dataset.forgeries),
        "identity_groups": len(set(dataset.groups)),
        "methods": dict(sorted(Counter(dataset.methods).items())),
        "splits": dict(sorted(Counter(dataset.splits).items())),
        "waiting": len(dataset.waiting),
        "undescribed": len(dataset.undescribed),
        "described": dataset.described,
        "labels": dict(dataset.labels),
    }
