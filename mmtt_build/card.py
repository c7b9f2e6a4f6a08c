"""The dataset card of a release: `data/card.md` filled with what the rows say. Same rows, same text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from string import Template

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import config, images, mmtt_json, schema
from mmtt_build.parts import LABELS
from mmtt_build.triplets import features

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Upper bounds of the Hugging Face size categories."""


def _yaml(columns: pa.Schema) -> Iterator[str]:
    for name, feature in features(columns).items():
        yield f"  - name: {name}"
        if feature["_type"] == "Image":
            yield "    dtype: image"
        elif feature["_type"] == "Value":
            yield f"    dtype: {feature['dtype']}"
        else:
            yield f"    sequence: {feature['feature']['dtype']}"
            if "length" in feature:
                yield f"    length: {feature['length']}"


def text(
    recipe: config.Recipe,
    version: str,
    rows: pa.Table,
    licences: Mapping[str, int],
    columns: pa.Schema,
    *,
    json_layout: bool,
) -> str:
    """The card, as Markdown with a YAML header.

    Args:
        recipe: of the workspace: name, language, terms, QC thresholds.
        version: of the release.
        rows: the release's rows; at least `split`, `method`, `family`, `mask_area`, `description`,
            `description_origin` and `identity_group`.
        licences: number of source images per licence.
        columns: of the Parquet files.
        json_layout: whether the release has the MMTT-JSON layout.
    """
    present = set(rows["split"].to_pylist())
    splits = [name for name in config.SPLITS if name in present]
    size = next((label for bound, label in _SIZES if rows.num_rows < bound), "1M<n<10M")
    origins = Counter(rows["description_origin"].to_pylist())
    template = Template(files("mmtt_build").joinpath("data", "card.md").read_text(encoding="utf-8"))
    return template.substitute(
        name=recipe.dataset.name,
        version=version,
        language=recipe.dataset.language,
        terms=recipe.dataset.terms,
        size_category=size,
        data_files="\n".join(f'  - split: {name}\n    path: "data/{name}-*.parquet"' for name in splits),
        features="\n".join(_yaml(columns)),
        rows=f"{rows.num_rows:,}",
        notices=_notices(origins),
        first_split=splits[0],
        split_columns=" | ".join(splits),
        split_rules="---:|" * len(splits),
        licences=_table((name, f"{n:,}") for name, n in sorted(licences.items())),
        counts=_table(_counts(rows, splits)),
        facts=_table(_facts(rows, splits)),
        areas=_table(_areas(rows)),
        descriptions=_descriptions(recipe.qc, origins),
        labels=", ".join(LABELS),
        schema_version=schema.SCHEMA_VERSION,
        layout=_LAYOUT if json_layout else "",
        road=images.ROAD,
        pristine=(
            "The column `pristine` holds the base image of each row."
            if schema.PRISTINE_IMAGE.name in columns.names
            else "The pristine base images are not part of this release."
        ),
    )


def _notices(origins: Mapping[str | None, int]) -> str:
    notices = []
    if scripted := origins.get("scripted", 0):
        notices.append(
            f"> **{scripted:,} descriptions are scripted stand-ins, not human work.** A program wrote them to try out "
            "the pipeline (`description_origin` is `scripted`). Do not train on them, and do not call them annotations."
        )
    if drafted := origins.get("draft-edited", 0):
        notices.append(
            f"> **{drafted:,} descriptions began as a model's draft** that a person was shown and changed or left as "
            "it was (`description_origin` is `draft-edited`). They are for studies of drafting, and are not human text."
        )
    if bare := origins.get(None, 0):
        notices.append(
            f"> **{bare:,} rows have no accepted description**: `description` and `labels` are null there. "
            "They serve detection and localisation only."
        )
    return "".join(f"{notice}\n\n" for notice in notices)


def _descriptions(qc: config.Qc, origins: Mapping[str | None, int]) -> str:
    described = sum(n for origin, n in origins.items() if origin)
    if not described:
        return "This release has no descriptions."
    kinds = {
        "human": "written by people, in their own words",
        "draft-edited": "drafted by a model and edited by people",
        "scripted": "scripted stand-ins",
    }
    made = ", ".join(f"{origins[origin]:,} {kind}" for origin, kind in kinds.items() if origins.get(origin))
    return (
        f"{described:,} descriptions: {made}. Only descriptions that quality control accepted are here. Its rules ask\n"
        f"for at least {qc.min_observation_s:g} s of observation and at most {qc.max_words} words. "
        "Annotators are pseudonymous ids."
    )


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _across(counts: Mapping[str, int], splits: list[str]) -> list[str]:
    return [*(f"{counts.get(split, 0):,}" for split in splits), f"{sum(counts.values()):,}"]


def _counts(rows: pa.Table, splits: list[str]) -> Iterator[list[str]]:
    cells = Counter(zip(*(rows[name].to_pylist() for name in ("method", "family", "split")), strict=True))
    for method, family in sorted({(method, family) for method, family, _ in cells}):
        yield [method, family, *_across({split: cells[method, family, split] for split in splits}, splits)]
    yield ["**all**", "", *_across(Counter(rows["split"].to_pylist()), splits)]


def _facts(rows: pa.Table, splits: list[str]) -> Iterator[list[str]]:
    described = rows.filter(pc.is_valid(rows["description"]))
    pairs = rows.group_by(["split", "identity_group"]).aggregate([])
    yield ["triplets", *_across(Counter(rows["split"].to_pylist()), splits)]
    yield ["described", *_across(Counter(described["split"].to_pylist()), splits)]
    yield ["identity groups", *_across(Counter(pairs["split"].to_pylist()), splits)]


def _areas(rows: pa.Table) -> Iterator[list[str]]:
    methods = sorted(set(rows["method"].to_pylist()))
    for method in [*methods, "all"]:
        of = rows if method == "all" else rows.filter(pc.equal(rows["method"], method))
        area = of["mask_area"].to_numpy().astype(np.float64)
        yield [method, *(f"{share:.1%}" for share in (*np.quantile(area, (0.05, 0.5, 0.95)), area.mean()))]


_LAYOUT = f"""
The folder `mmtt/` holds the same rows in the layout of the published MMTT:
`{"`, `".join(mmtt_json.FILES.values())}` and the image and mask files that they name,
relative to `mmtt/`. The prefix of `image_id` is `sd` for diffusion inpainting, `mat` for transformer inpainting
and `e4s` for every face swap, whatever its method; an attribute edit has its attribute as the prefix. Classical
inpainting has the method's name, because the published data has nothing of its kind; a reader that knows only the
published prefixes takes it for an attribute edit. Rows without a description have an empty caption and no label set.
"""
