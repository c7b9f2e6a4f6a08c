"""A small finished workspace, written row by row: what ingest, plan, generate, annotate and audit would leave."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmtt_build import images, masks, parts, store
from mmtt_build.records import SIZE
from mmtt_build.workspace import Workspace

KINDS = (
    ("blendswap", "face-swap", {"colour": 0.5}),
    ("sdxl", "inpaint-diffusion", {"prompt": "a face"}),
    ("warp", "attribute-edit", {"attribute": "smile"}),
    ("patchfill", "inpaint-classical", {}),
    ("mat", "inpaint-transformer", {}),
)
SPLITS = ("train", "train", "train", "val", "test")


def small_workspace(root: Path, forgeries: int = 15, described: bool = True) -> Workspace:
    """Fifteen forgeries of fifteen people: each kind in each split, every second base from FFHQ."""
    workspace = Workspace.init(root)
    recipe = root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace('"my-dataset"', '"small"'), "utf-8")
    pristine, plan, made, annotations, findings = [], [], [], [], []
    for number in range(forgeries):
        split = SPLITS[number % 5]
        method, family, params = KINDS[number // 5 % 5]
        base = person(workspace, number)
        donor = person(workspace, number, donor=True)
        pristine += [base, donor]
        name = f"{method}-{number:04d}"
        plan.append(
            {
                "forgery_id": name,
                "method": method,
                "family": family,
                "split": split,
                "identity_group": base["id"],
                "base_id": base["id"],
                "source_id": donor["id"] if family == "face-swap" else None,
                "parent_id": None,
                "seed": 10**12 + number,
                "params": json.dumps(params),
            }
        )
        made.append(forge(workspace, name, method, split, number))
        if described:
            annotations.append(annotation(name, f"a-{number:04d}", f"The nose of face {number} is blurred, ünnatural."))
            findings.append(finding(annotations[-1]))
    workspace.pristine.append(pristine)
    workspace.plan.append(plan)
    workspace.forgeries.append(made)
    workspace.annotations.append(annotations)
    workspace.findings.append(findings)
    return workspace


def person(workspace: Workspace, number: int, donor: bool = False) -> dict[str, Any]:
    source = "ffhq" if number % 2 else "celebamask-hq"
    name = f"{source}-{number:05d}{'-donor' if donor else ''}"
    path = workspace.image_path("pristine", name)
    store.write_file(workspace.root / path, images.encode_rgb(picture(number)))
    return {
        "id": name,
        "source": source,
        "status": "ok",
        "author": f"Zoë {number}, photographer" if number % 2 else None,
        "licence": f"CC BY 2.0{' (donor)' if donor else ''}" if number % 2 else "research only",
        "licence_url": "https://creativecommons.org/licenses/by/2.0/" if number % 2 else None,
        "url": f"https://example.org/{number}" if number % 2 else None,
        "original": f"images/{number}.png",
        "image": path,
    }


def picture(number: int) -> images.Image:
    """(512, 512, 3) uint8: a gradient with some noise, another one per number."""
    ramp = np.linspace(0, 200, SIZE, dtype=np.float32)
    noise = np.random.default_rng(number).integers(0, 40, (SIZE, SIZE, 3))
    return (ramp[:, None, None] * (1 + number % 3) / 3 + noise).astype(np.uint8)


def forge(workspace: Workspace, name: str, method: str, split: str, number: int) -> dict[str, Any]:
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[100 : 200 + number, 150:300] = True
    image = masks.composite(picture(number), 255 - picture(number), mask)
    files = {
        "image": (workspace.image_path("forged", name), images.encode_rgb(image)),
        "mask": (workspace.image_path("masks", name), images.encode_grey(masks.to_grey(mask))),
    }
    if method == "blendswap":
        files["part_map"] = (workspace.image_path("parts", name), images.encode_grey(mask * np.uint8(number % 19)))
    for path, data in files.values():
        store.write_file(workspace.root / path, data)
    return {
        "forgery_id": name,
        "status": "ok",
        "method": method,
        "split": split,
        **{kind: path for kind, (path, _) in files.items()},
        **{f"{kind}_crc": zlib.crc32(data) for kind, (_, data) in files.items()},
        "mask_origin": "process",
        "parts": ["nose", "l_eye", "r_brow"],
        "mask_area": np.float32(mask.mean()),
        "changed_share": np.float32(0.99),
        "mean_change": np.float32(61.5),
    }


def annotation(forgery: str, name: str, text: str, **other: Any) -> dict[str, Any]:
    return {
        "annotation_id": name,
        "forgery_id": forgery,
        "answer": "described",
        "description": text,
        "language": "en",
        "labels": parts.label_vector(["nose"]),
        "annotator": "annotator-07",
        "observation_s": np.float32(75.5),
        "origin": "human",
    } | other


def finding(of: Mapping[str, Any], verdict: str = "accept") -> dict[str, Any]:
    return {
        "annotation_id": of["annotation_id"],
        "forgery_id": of["forgery_id"],
        "verdict": verdict,
        "findings": [],
    }
