"""Groups: which images show one person, and in which split that person is.

Groups are decided when all images are in, in one shard, and never change afterwards: a later image joins the group
that it belongs to. Where faces are analysed, an image is grouped once its face is known and no rule leaves it out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmtt_build.config import SPLITS
from mmtt_build.seeds import fraction
from mmtt_build.workspace import Workspace

BRIDGE = "near-duplicate of images in different splits"
"""Reason of an image that would join identity groups of different splits."""

_BLOCK = 1024
"""Images that are compared at once: two blocks and their products take 8 MB, however many images there are."""
_MANY_PAIRS = 2_000_000
"""Pairs that are held before they are reduced to who belongs together, 32 MB."""

CROWD, CROWD_SHARE = 50, 0.01
"""A cluster of faces above both numbers is hardly one person: CelebA has 35 images of one at most, and in FFHQ a
hundredth would be 700. Two people who look alike join all images of both, hence so few may."""

_log = logging.getLogger(__name__)

Vectors = Callable[[int], NDArray[np.float32]]
"""From a number `start` to a block of vectors, (`_BLOCK` or fewer, D), of the images from `start` on."""


def split_of(identity_group: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of an identity group, by stable hash: the same in every workspace with this seed."""
    at, upto = fraction("split", seed, identity_group), 0.0
    for name in SPLITS:
        upto += shares[name]
        if at < upto:
            return name
    return max(shares, key=lambda name: shares[name])  # float rounding of the sum


def group(workspace: Workspace) -> int:
    """Gives every usable image that has none an identity group and the group's split.

    Images are joined that share an identity of the source dataset, whose perceptual hashes differ in at most
    `near_duplicate_bits`, or whose analysed faces have a cosine similarity of `same_person_cosine` or more; so is
    what is joined by way of a third image (single linkage: no two images above the threshold are ever in two groups).
    A group once written stays; a new image that belongs to older groups of different splits would be a bridge for
    leakage and is excluded.

    Returns:
        Number of images grouped.
    """
    recipe = workspace.recipe
    analysed = bool(recipe.ingest.analysis) or bool(workspace.faces.shards())
    if analysed:
        leave_out_faces(workspace)
    old = workspace.groups.read()
    table = workspace.pristine.read(["id", "status"])
    ids_ok = table["id"].filter(pc.equal(table["status"], "ok"))
    fresh = pc.invert(pc.is_in(ids_ok, old["id"].combine_chunks()))
    if analysed:
        known = pc.is_in(ids_ok, workspace.faces.keys().combine_chunks())
        if waiting := pc.sum(pc.and_(fresh, pc.invert(known))).as_py():
            _log.warning(
                "%s images wait for their face analysis and take no part until then: mmtt build ingest --analysis NAME",
                f"{waiting:,}",
            )
        ids_ok = ids_ok.filter(pc.or_(known, pc.invert(fresh)))
        fresh = pc.invert(pc.is_in(ids_ok, old["id"].combine_chunks()))
    if not pc.any(fresh).as_py():
        return 0
    facts = workspace.pristine.read(["id", "identity", "phash"])
    table = facts.filter(pc.is_in(facts["id"], ids_ok.combine_chunks()))
    ids = table["id"].to_pylist()
    new = np.nonzero(fresh.to_numpy())[0]
    columns = (old[name].to_pylist() for name in old.schema.names)
    assigned = {name: (of, split) for name, of, split in zip(*columns, strict=True)}
    joined = [
        near_duplicates(table["phash"], new, recipe.ingest.near_duplicate_bits),
        _same_identity(table["identity"]),
    ]
    if analysed:
        alike = _same_person(workspace, table["id"], new, recipe.ingest.same_person_cosine)
        _warn_of_crowds(alike, ids, recipe.ingest.same_person_cosine)
        joined.append(alike)
    component = _components(np.concatenate(joined), len(ids))
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.nonzero(np.diff(component[order]))[0] + 1)
    rows: list[dict[str, str]] = []
    bridges: dict[str, str] = {}
    for indices in members:
        names = [ids[i] for i in indices]
        ungrouped = [name for name in names if name not in assigned]
        if not ungrouped:
            continue
        older = sorted({assigned[name] for name in names if name in assigned})
        if len({split for _, split in older}) > 1:
            reason = f"{BRIDGE} ({', '.join(name for name, _ in older)})"
            bridges |= dict.fromkeys(ungrouped, reason)
            continue
        if older:
            identity_group, split = older[0]
        else:
            identity_group = min(names)
            split = split_of(identity_group, recipe.split.shares(), recipe.plan.seed)
        rows += [{"id": name, "identity_group": identity_group, "split": split} for name in ungrouped]
    supersede(workspace, bridges, "excluded")
    workspace.groups.append(rows)
    return len(rows)


def leave_out_faces(workspace: Workspace) -> Counter[str]:
    """Excludes the usable images whose analysed faces break a rule: not one face, too young, or of unknown age.

    The rules are held against the stored analysis each time: a stricter recipe needs no new one, and a run that was
    killed before its exclusions were written loses nothing.

    Returns:
        How many, by the reason without its numbers.
    """
    bar = workspace.recipe.ingest.min_estimated_age
    faces = workspace.faces.read(["id", "count", "scores", "age"])
    broken = pc.not_equal(faces["count"], 1)
    if bar:
        broken = pc.or_(broken, pc.fill_null(pc.less(faces["age"], bar), True))
    faces = faces.filter(broken)
    if not len(faces):
        return Counter()
    usable = workspace.pristine.keys(status="ok")
    reasons: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row in faces.filter(pc.is_in(faces["id"], usable.combine_chunks())).to_pylist():
        if row["count"] == 0:
            kind, numbers = "no face found", ""
        elif row["count"] > 1:
            listed = ", ".join(f"{score:.2f}" for score in row["scores"])
            kind, numbers = "several faces", f": {row['count']} found (scores {listed})"
        elif row["age"] is None:
            kind, numbers = "no age estimate", ""
        else:
            kind, numbers = f"estimated age below {bar}", f": {row['age']}"
        counts[kind] += 1
        reasons[row["id"]] = kind + numbers
    supersede(workspace, reasons, "excluded")
    return counts


def supersede(workspace: Workspace, reasons: Mapping[str, str], status: str) -> None:
    """Writes rows that take the place of the named images' rows, with another status and its reason."""
    if not reasons:
        return
    table = workspace.pristine.read()
    rows = table.filter(pc.is_in(table["id"], pa.array(list(reasons)))).to_pylist()
    workspace.pristine.append([row | {"status": status, "reason": reasons[row["id"]]} for row in rows])


def _same_identity(identities: pa.ChunkedArray) -> NDArray[np.int64]:
    """Pairs, (n, 2), of row numbers with one identity of the source dataset."""
    first: dict[str, int] = {}
    pairs = [
        (first.setdefault(identity, index), index)
        for index, identity in enumerate(identities.to_pylist())
        if identity is not None
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_duplicates(hashes: pa.ChunkedArray, new: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Pairs, (n, 2), of row numbers, at least one of them new, whose 256-bit hashes differ in at most `bits` bits.

    With bits as +1 and -1 the product of two hashes is 256 - 2 x distance.
    """
    order = np.concatenate([np.setdiff1d(np.arange(len(hashes)), new), new])
    packed = np.frombuffer(b"".join(hashes.to_pylist()), np.uint8).reshape(-1, 32)[order]

    def signs(start: int) -> NDArray[np.float32]:
        return np.unpackbits(packed[start : start + _BLOCK], axis=1).astype(np.float32) * 2 - 1

    return order[_close(signs, len(order), len(new), 256 - 2 * bits)]


def _same_person(
    workspace: Workspace, ids: pa.ChunkedArray, new: NDArray[np.int64], cosine: float
) -> NDArray[np.int64]:
    """Pairs, (n, 2), of row numbers, at least one of them new, whose faces' embeddings are as similar as `cosine`."""
    faces = workspace.faces.read(["id", "embedding"])
    faces = faces.filter(pc.is_valid(faces["embedding"]))
    at = pc.index_in(faces["id"], ids.combine_chunks())
    faces, at = faces.filter(pc.is_valid(at)), at.drop_null().to_numpy()
    return at[alike_faces(embeddings(faces["embedding"]), np.nonzero(np.isin(at, new))[0], cosine)]


def embeddings(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """Embeddings of faces, (N, D), of a column without nulls."""
    flat: NDArray[np.float16] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1)


def alike_faces(faces: NDArray[np.float16], new: NDArray[np.int64], cosine: float) -> NDArray[np.int64]:
    """Pairs, (n, 2), of row numbers, at least one of them new, whose embeddings are as similar as `cosine`.

    Args:
        faces: embeddings of length 1, (N, D).
        new: row numbers.
        cosine: least similarity.
    """
    order = np.concatenate([np.setdiff1d(np.arange(len(faces)), new), new])

    def block(start: int) -> NDArray[np.float32]:
        return faces[order[start : start + _BLOCK]].astype(np.float32)

    return order[_close(block, len(order), len(new), cosine)]


def _close(vectors: Vectors, count: int, new: int, least: float) -> NDArray[np.int64]:
    """Pairs, (n, 2), among `count` vectors, of which the last `new` are new, whose product is at least `least`.

    Exhaustive and exact; at least one of a pair is new. Matrix products are what a CPU does fastest: 100,000 new
    hashes take 67 s of one core, once, and as many embeddings 99 s. Where more than `_MANY_PAIRS` are close,
    pairs that join the same images are returned in their place: memory stays bounded even if all are one person.
    """
    found: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    held = 0
    for start in range(count - new, count, _BLOCK):
        rows = vectors(start)
        for other in range(0, start + len(rows), _BLOCK):
            pairs = np.argwhere(rows @ vectors(other).T >= least) + np.array((start, other))
            found.append(pairs[pairs[:, 1] < pairs[:, 0]])
            held += len(found[-1])
            if held > _MANY_PAIRS:
                component = _components(np.concatenate(found), count)
                _, first = np.unique(component, return_index=True)
                pairs = np.column_stack([np.arange(count), first[component]])
                found = [pairs[pairs[:, 0] != pairs[:, 1]]]
                held = len(found[0])
    return np.concatenate(found)


def _components(pairs: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Number of the connected component, (count,), of each image under pairs, (n, 2)."""
    from scipy.sparse import coo_array  # here: half a second of import that worker processes do not need
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1])


def _warn_of_crowds(alike: NDArray[np.int64], ids: list[str], cosine: float) -> None:
    """Says so where look-alikes have chained many images into one person."""
    sizes = np.bincount(_components(alike, len(ids)), minlength=1)
    if (largest := int(sizes.max())) > max(CROWD, CROWD_SHARE * len(ids)):
        _log.warning(
            "%s of %s images are one person by their faces (similarity %g or more): look at them, and if they are "
            "not, raise [ingest] same_person_cosine and delete tables/groups before anything is planned",
            f"{largest:,}",
            f"{len(ids):,}",
            cosine,
        )
