"""Workspaces of any size with no pictures in them, or a few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mmtt_build import images, masks, schema, store
from mmtt_build.records import SIZE
from mmtt_build.workspace import Workspace

GUARD_S = 1.0
"""What the guard asks annotators of a `paired_workspace` for: a minute would make it an hour."""
PICTURES = 16


def synthetic_workspace(root: Path, *, images: int, forgeries: int = 0, forged: bool = False) -> Workspace:
    """A workspace whose tables are full and whose image folders are empty, to measure what tables cost.

    Args:
        root: a new folder.
        images: pristine rows, five to every three identities.
        forgeries: rows to plan.
        forged: gives every planned row a forgery row with status "ok".
    """
    from mmtt_build.stages.plan import plan

    rng = np.random.default_rng(0)
    workspace = Workspace.init(root)
    areas = [50_000, 60_000, 4_000, 0, 900, 900, 1500, 1500, 500, 500, 0, 1500, 1800, 60_000, 0, 0, 0, 12_000, 3000]
    places = np.array([320, 245, 192, 245, 256, 300, 310, 380, 202, 380]) + rng.normal(0, 4, (images, 10))
    skin = np.array([62, 14, 18]) + rng.normal(0, 5, (images, 3))
    names = [f"synthetic-{i:06d}" for i in range(images)]
    pristine = {
        "id": names,
        "source": ["synthetic"] * images,
        "status": ["ok"] * images,
        "licence": ["CC0-1.0"] * images,
        "parts": [f"images/parts/{name}.png" for name in names],
        "part_areas": [areas] * images,
        "points": list(places),
        "skin_lab": list(skin),
        "phash": [rng.bytes(32) for _ in names],
    }
    groups = [f"person-{i * 3 // 5}" for i in range(images)]
    split = {name: ("train", "val", "test")[max(0, int(rng.integers(10)) - 7)] for name in dict.fromkeys(groups)}
    nulls = {field.name: pa.nulls(images, field.type) for field in schema.PRISTINE if field.name not in pristine}
    filled = {name: pa.array(values, schema.PRISTINE.field(name).type) for name, values in pristine.items()}
    workspace.pristine.append(pa.table(filled | nulls).select(schema.PRISTINE.names).cast(schema.PRISTINE))
    workspace.groups.append(
        pa.table({"id": names, "identity_group": groups, "split": [split[g] for g in groups]}, schema.GROUPS)
    )
    if forgeries:
        recipe = root / "mmtt.toml"
        recipe.write_text(recipe.read_text("utf-8").replace("total = 0 ", f"total = {forgeries} "), "utf-8")
        workspace = Workspace(root)
        plan(workspace)
    if forged:
        planned = workspace.plan.read(["forgery_id", "method", "split"])
        made = planned.append_column("status", pa.array(["ok"] * planned.num_rows))
        for field in schema.FORGERIES:
            if field.name not in made.column_names:
                made = made.append_column(field, pa.nulls(made.num_rows, field.type))
        made = made.select(schema.FORGERIES.names).cast(schema.FORGERIES)
        for start in range(0, made.num_rows, 1000):  # as many shards as a long run leaves
            workspace.forgeries.append(made.slice(start, 1000))
    return workspace


def paired_workspace(root: Path, pairs: int, name: str) -> Workspace:
    """A workspace with forged pairs to describe: rows as generate leaves them, and pictures that they share.

    Args:
        root: a new folder.
        pairs: forgeries.
        name: of the dataset.
    """
    workspace = Workspace.init(root)
    recipe = root / "mmtt.toml"
    text = recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"')
    recipe.write_text(text.replace("min_observation_s = 60.0", f"min_observation_s = {GUARD_S}"), "utf-8")
    paths = []
    for number in range(PICTURES):
        mask = np.zeros((SIZE, SIZE), np.bool_)
        mask[100 + number : 300, 128 : 300 + number] = True
        face = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        made = {
            "pristine": images.encode_rgb(face),
            "forged": images.encode_rgb(masks.composite(face, 255 - face, mask)),
            "masks": images.encode_grey(masks.to_grey(mask)),
        }
        paths.append({kind: workspace.image_path(kind, str(number)) for kind in made})
        for kind, data in made.items():
            store.write_file(root / paths[number][kind], data)
    pristine, plan, forgeries = [], [], []
    for number in range(pairs):
        base, of = f"base-{number:06d}", paths[number % PICTURES]
        common = {"forgery_id": f"warp-{number:06d}", "method": "warp", "split": "train"}
        pristine.append({"id": base, "status": "ok", "image": of["pristine"]})
        plan.append(common | {"base_id": base, "identity_group": base, "seed": number, "params": "{}"})
        forgeries.append(
            common | {"status": "ok", "image": of["forged"], "mask": of["masks"], "focus": list(masks.focus(mask))}
        )
    workspace.pristine.append(pristine)
    workspace.plan.append(plan)
    workspace.forgeries.append(forgeries)
    return workspace
