"""The demo: the whole pipeline on drawn portraits, with nothing but the base install."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtt_build import config, parallel, parts
from mmtt_build.errors import ConfigError
from mmtt_build.progress import Progress
from mmtt_build.seeds import rng_for
from mmtt_build.stages.export import export
from mmtt_build.stages.generate import Machine, generate
from mmtt_build.stages.ingest import ingest
from mmtt_build.stages.quality import REPORT, quality
from mmtt_build.stages.sheet import contact_sheet
from mmtt_build.workspace import Workspace

SCRIPTED = "[scripted stand-in, not a human description]"
"""Every stand-in text begins with this."""

ANNOTATORS = (("ann@demo.example", "Ann"), ("ben@demo.example", "Ben"))
"""Made up, e-mail address and name; they get accounts on the demo's annotation server."""

_IMAGES_PER_IDENTITY = 2
"""In the CelebAMask-HQ layout, so that identity groups have more than one image."""

_WORDS = {
    "l_eye": "left eye", "r_eye": "right eye", "l_brow": "left eyebrow", "r_brow": "right eyebrow",
    "nose": "nose", "mouth": "mouth", "u_lip": "upper lip", "l_lip": "lower lip", "skin": "skin", "hair": "hair",
    "l_ear": "left ear", "r_ear": "right ear",
}  # fmt: skip
_LABELS = {
    "l_eye": "eye", "r_eye": "eye", "l_brow": "eyebrow", "r_brow": "eyebrow", "nose": "nose", "mouth": "mouth",
    "u_lip": "lip", "l_lip": "lip", "skin": "skin", "hair": "hair", "l_ear": "ear", "r_ear": "ear",
}  # fmt: skip
_DEFECTS = (
    "{} looks blended in, with a tone that does not match its surroundings",
    "the texture of the {} is too smooth",
    "the shape of the {} is slightly off",
    "the edge of the {} is soft where it should be sharp",
)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the demo's pairs can be annotated.

    Attributes:
        url: of the server.
        annotator: e-mail address to log in with.
        logins: file with the annotators' passwords.
        admin: e-mail address of the administrator.
        access: file with that password.
        tasks: open ones.
    """

    url: str
    annotator: str
    logins: Path
    admin: str
    access: Path
    tasks: int


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo made."""

    release: Path
    sheet: Path
    report: Path
    triplets: int


def draw_portraits(folder: Path, count: int, *, seed: int = 0, workers: int = 0) -> None:
    """Draws portraits, half in the CelebAMask-HQ layout (two of each person) and half in FFHQ's; CC0.

    Args:
        folder: gets the folders `celebamask-hq` and `ffhq`.
        count: portraits in all.
        seed: another seed, other people.
        workers: processes; 0 takes all cores.
    """
    from mmtt_build.portraits import write_celebamask_hq, write_ffhq

    first = seed * 1_000_000
    celeba = range(first, first + count // 2)
    ffhq = range(first + 500_000, first + 500_000 + count - count // 2)
    people = [first + (s - first) // _IMAGES_PER_IDENTITY for s in celeba]
    cores = workers or parallel.cores()
    with Progress("draw", count, "portraits") as progress:
        write_celebamask_hq(folder / "celebamask-hq", celeba, identities=people, workers=cores, advance=progress.step)
        write_ffhq(folder / "ffhq", ffhq, workers=cores, advance=progress.step)


def demo(
    folder: Path, *, portraits: int = 40, forgeries: int = 60, workers: int = 0, say: Callable[[str], None]
) -> Result:
    """Draws, ingests, plans, forges, describes (scripted), audits, exports and draws a contact sheet.

    A folder that the demo was started in before is continued.

    Args:
        folder: becomes the workspace.
        portraits: to draw.
        forgeries: to make, all four weights-free methods alike.
        workers: processes; 0 takes all cores.
        say: gets one line per step.

    Raises:
        ConfigError: the folder holds something else.
    """
    workspace = _workspace(folder, forgeries)
    say(f"1/6 draw {portraits} portraits (CC0), in the layouts of CelebAMask-HQ and FFHQ")
    draw_portraits(folder / "sources", portraits, workers=workers)
    say("2/6 ingest them through both adapters")
    from mmtt_build.sources.base import Options

    read = ingest(workspace, "portraits", folder / "sources", Options(), workers=workers)
    say(f"    {read.ok + read.known} images, {read.failed} failed")
    say(f"3/6 plan and forge {forgeries} with blendswap, splice, warp and patchfill")
    made = generate(workspace, machine=Machine(workers=workers))
    say("    " + (", ".join(f"{n} {status}" for status, n in sorted(made.outcomes.items())) or "made already"))
    say("4/6 write scripted stand-ins for the descriptions (marked as such), and judge them and the forgeries")
    stand_in(workspace)
    judged = quality(workspace, report=folder / REPORT, workers=workers)
    counts = judged.answers.verdicts
    say("    " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("accept", "review", "reject")))
    release = folder / "releases" / f"{workspace.recipe.dataset.name}-{workspace.recipe.dataset.version}"
    say(f"5/6 export to {release}")
    if not (release / "manifest.json").is_file():
        export(workspace, workers=workers)
    sheet = folder / "contact-sheet.png"
    say(f"6/6 draw {sheet}")
    contact_sheet(workspace, sheet)
    return Result(release, sheet, folder / REPORT, counts["accept"])


def desk(folder: Path, *, port: int | None = None, image_port: int | None = None, say: Callable[[str], None]) -> Desk:
    """Starts a Label Studio for the demo's workspace, which it installs if need be, and gives the pairs to annotators.

    The scripted stand-ins are nobody's words, so every pair needs a description. A server that runs is used, and what
    it has is not sent again.

    Args:
        folder: the demo's workspace.
        port: of Label Studio, as `annotation.server.Server.start` takes it.
        image_port: of the images, likewise.
        say: gets a line now and then.

    Raises:
        ConfigError: a port is taken, or the environment names a lab's server, which is no place for a demo.
        ServerError: the server does not come up; running again goes on.
    """
    from annotation import accounts, environment
    from annotation.access import FILE_NAME, from_environment
    from mmtt_build.stages import serve
    from mmtt_build.stages.push import push

    if lab := from_environment():
        raise ConfigError(f"{lab.origin} names a server of yours, {lab.url}", "unset it: the demo starts its own")
    workspace = Workspace(folder)
    server = serve.local(workspace, make=True)
    environment.make(server.environment, say)
    settings, variables = serve.guarded(workspace, server)
    started = server.start(port=port, image_port=image_port, guard=settings, variables=variables, say=say)
    try:
        people = folder / "annotators.csv"
        people.write_text("".join(f"{email},{name}\n" for email, name in ANNOTATORS), "utf-8")
        pushed = push(workspace, annotators=people)
    except BaseException:
        if started:
            server.stop()
        raise
    access = server.access
    return Desk(
        access.url, ANNOTATORS[0][0], server.data / accounts.FILE_NAME, access.username, server.data / FILE_NAME,
        pushed.open,
    )  # fmt: skip


def _workspace(folder: Path, forgeries: int) -> Workspace:
    marker = "# made by `mmtt demo`\n"
    recipe = folder / config.FILE_NAME
    if recipe.exists():
        if not recipe.read_text("utf-8").startswith(marker):
            raise ConfigError(f"{folder} is a workspace of yours", "name another folder: mmtt demo DIR")
        return Workspace(folder)
    workspace = Workspace.init(folder)
    text = recipe.read_text("utf-8")
    for key, value in {
        "name": '"mmtt-demo"',
        "terms": '"CC0-1.0: drawn portraits, no person is shown; descriptions are scripted stand-ins."',
        "total": str(forgeries),
        "blendswap": "0.3",
        "splice": "0.2",
        "patchfill": "0.25",
        "warp": "0.25",
    }.items():
        text = re.sub(rf"(?m)^{key} = \S.*?(?=\s+#|$)", f"{key} = {value}", text, count=1)
    recipe.write_text(marker + text, "utf-8")
    return workspace


def stand_in(workspace: Workspace) -> int:
    """Writes a scripted description for every forgery that has none, and says in the row that no human wrote it.

    Returns:
        Number of rows written.
    """
    described = set(workspace.annotations.keys().to_pylist())
    made = workspace.forgeries.read(["forgery_id", "status", "parts"]).to_pylist()
    rows = [
        row
        for forgery in made
        if forgery["status"] == "ok" and (row := _describe(forgery))["annotation_id"] not in described
    ]
    workspace.annotations.append(rows)
    return len(rows)


def _describe(forgery: dict[str, Any]) -> dict[str, Any]:
    rng = rng_for("stand-in", forgery["forgery_id"])
    named = [part for part in forgery["parts"] if part in _WORDS and part != "skin"] or ["skin"]
    chosen = sorted(rng.permutation(named)[:3].tolist(), key=named.index)
    clauses = [_DEFECTS[int(rng.integers(len(_DEFECTS)))].format(_WORDS[part]) for part in chosen]
    clauses = [clause if clause.startswith("the ") else f"the {clause}" for clause in clauses]
    return {
        "annotation_id": f"scripted-{forgery['forgery_id']}",
        "forgery_id": forgery["forgery_id"],
        "answer": "described",
        "description": f"{SCRIPTED} " + "; ".join(clauses).capitalize() + ".",
        "language": "en",
        "labels": parts.label_vector(_LABELS[part] for part in chosen),
        "annotator": "scripted",
        "observation_s": None,
        "origin": "scripted",
    }
