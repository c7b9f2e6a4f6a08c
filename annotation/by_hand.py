"""Projects as files, for a Label Studio that is reached by its pages only: somebody imports them by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from annotation.tasks import Data, Wanted
from mmtt_build import store

README = """\
Projects for Label Studio, to be made by hand: one per annotator and batch.

For each <title>.tasks.json here, on the server's pages:

1. Projects, Create Project. The name of the project is <title>, letter by letter:
   the answers are known by it.
2. Data Import: upload <title>.tasks.json, once. A file that is uploaded twice makes every task twice.
3. Labeling Setup, Custom template, Code: put the whole of <title>.config.xml in place of what is there.
4. Save. The other settings of a new project are right as they are.
5. Open one task: three pictures must show, and the one of the mask lies over the forged one.
   If they do not, {url} is not served to the annotators' browsers, or without CORS.

The annotator of a project is in its title, by id: <dataset>-<annotator>-b<batch>.
When they are done: Export, JSON, of each project; mmtt annotate import FILE.json reads the answers.
"""


def write(
    folder: Path,
    wanted: Iterable[Wanted],
    *,
    make: Callable[[Sequence[str]], Iterator[Data]],
    url: str,
    step: Callable[[int], None],
) -> list[str]:
    """Writes tasks and page of each project, and how to import them; the same projects give the same bytes.

    Args:
        folder: is made if need be; files of other projects in it are left alone.
        wanted: the projects.
        make: as `tasks.reconcile` takes it.
        url: address of the workspace's folder, for the instructions.
        step: told how many more tasks are in a file.

    Returns:
        Titles of the projects.
    """
    titles = []
    for project in wanted:
        lines = ",\n".join(json.dumps({"data": data}, ensure_ascii=False) for data in make(project.tasks))
        store.write_file(folder / f"{project.title}.tasks.json", f"[\n{lines}\n]\n".encode())
        store.write_file(folder / f"{project.title}.config.xml", f"{project.config}\n".encode())
        titles.append(project.title)
        step(len(project.tasks))
    store.write_file(folder / "README.txt", README.format(url=url).encode())
    return titles
