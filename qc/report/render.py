"""A report as one HTML file.

What annotators wrote is hostile until proven otherwise: every value is escaped by the template engine, control
characters are made visible, its direction of writing is isolated, and the page's own policy lets the browser load
nothing and run nothing but the script that was put into it here.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qc.report.marks import visible
from qc.report.model import Day, Gate, Page

MAX_ROWS = 2000
"""Rows with findings that a page shows."""
_ROW_BYTES, _EXAMPLE_BYTES = 2_900_000, 1_500_000
"""Of all rows and of all examples: a page stays below 5 MB whatever the texts are."""
_VALUE_CHARACTERS = 2000
"""Of one value on the page; what is longer is no name and no message."""
_MOST_ANNOTATORS = 200

_GATES = {
    "max_rejected": "descriptions rejected",
    "max_review": "descriptions to review",
    "max_rejected_images": "forgeries rejected",
    "min_agreement": "agreement on repeats",
    "dataset": "rules on the dataset",
}


def render(page: Page) -> bytes:
    """The report as UTF-8 HTML, less than 5 MB."""
    engine = _engine()
    style, script = (files("qc.report").joinpath(name).read_text("utf-8") for name in ("style.css", "page.js"))
    row, example = engine.get_template("row.html"), engine.get_template("example.html")
    rows = _within(_ROW_BYTES, (row.render(row=one) for one in islice(page.rows, MAX_ROWS)))
    examples = _within(
        _EXAMPLE_BYTES,
        (
            example.render(example=one, first=not at or page.examples[at - 1].rule != one.rule)
            for at, one in enumerate(page.examples)
        ),
    )
    found = [rule for rule in page.rules if rule.found]
    text = engine.get_template("page.html").render(
        page=page, style=Markup(style), script=Markup(script), style_hash=_hash(style), script_hash=_hash(script),
        rows=Markup("").join(map(Markup, rows)), shown=len(rows), examples=Markup("").join(map(Markup, examples)),
        found=found, silent=[rule for rule in page.rules if not rule.found],
        most_rejected=max((day.verdicts.share("reject") for day in page.days), default=0.0),
        failed=[gate for gate in page.gates if not gate.kept], annotators=page.annotators[:_MOST_ANNOTATORS],
        gate=next((gate for gate in page.gates if gate.name == "max_rejected"), None),
    )  # fmt: skip
    return text.encode()


@cache
def _engine() -> Environment:
    engine = Environment(
        loader=PackageLoader("qc.report", ""), autoescape=True, undefined=StrictUndefined, finalize=_finalize,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    engine.filters |= {
        "number": lambda value: f"{value:,}",
        "percent": percent,
        "command": lambda name: f"mmtt qc explain {shlex.quote(name)}",
        "gate_name": lambda gate: _GATES.get(gate.name, gate.name),
        "gate_value": lambda gate: _amount(gate, gate.value),
        "gate_limit": _limit,
        "columns": columns,
        "data_uri": lambda webp: Markup(f"data:image/webp;base64,{base64.b64encode(webp).decode()}"),
    }
    return engine


def percent(share: float) -> str:
    """A share in percent, as precisely as it takes to tell it from nothing and from all."""
    if 0 < share < 0.0005:
        return "< 0.1\u00a0%"
    if 0.9995 < share < 1:
        return "> 99.9\u00a0%"
    return f"{share * 100:.{int(0 < share < 1)}f}\u00a0%"


def columns(days: Sequence[Day], verdict: str = "", below: str = "", top: float | None = None) -> str:
    """Columns, ten units wide, one for each day, as the path of a picture 100 units high.

    Args:
        days: one after the other.
        verdict: whose number is drawn; "" draws all.
        below: verdict on whose columns these stand.
        top: share of the day that is at the top, of 0 to 1; None draws numbers, the largest day at the top.
    """
    largest = max((day.verdicts.total for day in days), default=0)
    found = []
    for number, day in enumerate(days):
        whole = largest if top is None else day.verdicts.total * top
        height, under = (_height(day, name, whole) for name in (verdict or "total", below))
        if height:
            found.append(f"M{number * 10 + 1} {100 - under:.1f}v{-height:.1f}h8v{height:.1f}z")
    return "".join(found)


def _height(day: Day, name: str, whole: float) -> float:
    return 100 * float(getattr(day.verdicts, name)) / whole if name and whole else 0.0


def _amount(gate: Gate, value: float | bool | None) -> str:
    if value is None:
        return "nothing to count"
    if isinstance(value, bool):
        return "kept" if value else "not kept"
    return f"{value:.2f}" if gate.name == "min_agreement" else percent(value)


def _limit(gate: Gate) -> str:
    if isinstance(gate.limit, bool):
        return "none may reject it" if gate.limit else "may reject it"
    if gate.name.startswith("min_"):
        return f"at least {gate.limit:g}"
    return f"at most {gate.limit * 100:g}\u00a0%"


def _finalize(value: Any) -> Any:
    """What becomes of every value before it is escaped."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return visible(value if len(value) <= _VALUE_CHARACTERS else value[:_VALUE_CHARACTERS] + " …")


def _within(most: int, parts: Iterable[str]) -> list[str]:
    """The first parts that are together no more than so many bytes."""
    kept, size = [], 0
    for part in parts:
        size += len(part.encode())
        if size > most:
            break
        kept.append(part)
    return kept


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
