"""Pull: what annotators submitted becomes rows, and what they changed or took back is noticed.

The guard tells of all projects at once where something changed; without it every project is asked. A project is read
from shortly before the last change that is known, and as a whole where that is faster, or where the server then counts
other submissions than we do. `mmtt_build.stages.receive` says what becomes of what is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from annotation import people, session, submissions, tasks
from mmtt_build.progress import Progress
from mmtt_build.seeds import digest
from mmtt_build.stages import serve
from mmtt_build.stages.receive import Arrival, Desk, Summary
from mmtt_build.workspace import Workspace

OVERLAP = timedelta(minutes=5)
"""Read again before the last known change: requests that overlap are not committed in the order of their times."""
AT_ONCE = 4
"""Projects that are asked at the same time for what is new."""
WHOLE = 0.4
"""Share of new submissions from which reading all of a project is faster: 250 a second against 100 of a listing."""

Items = dict[str, submissions.Submitted]


def pull(workspace: Workspace, *, only: Collection[str] | None = None, line: session.Line | None = None) -> Summary:
    """Brings what is new on the server into the tables.

    Args:
        workspace: whose tasks.
        only: titles of the projects to look into; None takes all.
        line: to the server, for whoever keeps one; None makes one.

    Raises:
        ServerError: there is no server, or it does not do what it is asked; pulling again goes on.
    """
    connection = serve.connection(workspace)
    line = line or session.Line()
    desk = Desk(workspace)
    titles: dict[str, set[str]] = defaultdict(set)
    for row in desk.of_task.values():
        if only is None or row["project"] in only:
            titles[row["annotator"]].add(row["project"])
    with line.open(connection, "mmtt annotate pull") as client:
        line.projects = found = tasks.projects(client, (title for of in titles.values() for title in of))
        desk.summary.missing = sorted(set().union(*titles.values()) - set(found))
        ids = {person.email: name for name, person in people.load(serve.local(workspace, make=True).data).items()}
        run = _Run(client, line, desk, found, desk.live(), ids)
        moved = run.moved()
        few = run.few(moved, hinted=only is not None)
        total = sum(found[title].submitted - len(run.live.get(title, ())) for title in moved)
        with Progress("pull", max(total, 0), "submissions") as progress:
            for annotator in sorted(titles):  # one annotator's work fits into memory, and has one time line
                mine = sorted(titles[annotator] & moved)
                arrivals, gone = run.take(mine, few)
                if arrivals or gone:
                    desk.write(arrivals, gone)
                progress.step(count=len(arrivals))
    return desk.summary


@dataclass(slots=True)
class _Run:
    client: Any
    line: session.Line
    desk: Desk
    found: Mapping[str, tasks.Found]
    live: Mapping[str, Mapping[str, datetime]]
    ids: Mapping[str, str]
    changed: Mapping[int, tuple[int, Mapping[int, datetime]]] | None = None
    sure: bool = False

    def moved(self) -> set[str]:
        """Titles of the projects in which something may be new."""
        there = {title for title in self.found if self.found[title].submitted or self.live.get(title)}
        self.changed = submissions.changed(self.client)
        return there if self.changed is None else {title for title in there if not self._agrees(title, {})}

    def _agrees(self, title: str, items: Items) -> bool:
        """Whether what is known and what was read is all that the server has, as far as it tells."""
        known = {**self.live.get(title, {}), **{name: item.updated_at for name, item in items.items()}}
        if self.changed is None:
            return len(known) == self.found[title].submitted
        count, latest = self.changed.get(self.found[title].number, (0, {}))
        times = {int(name.rpartition("-")[2]): at for name, at in known.items()}
        return count == len(known) and latest.items() <= times.items()

    def few(self, titles: Iterable[str], hinted: bool) -> dict[str, Items]:
        """What is new in the projects in which only little is, by title; after a hint it is little."""
        new = {title: self.found[title].submitted - len(self.live.get(title, ())) for title in sorted(titles)}
        some = [title for title, count in new.items() if hinted or count <= WHOLE * self.found[title].submitted]
        now = datetime.now(UTC)

        def read(title: str) -> Items:
            # A clock that was ahead for a while must not hide what came after it was put right.
            last = max((at for at in self.live.get(title, {}).values() if at <= now), default=None)
            return self._named(
                title, submissions.listed(self.client, self.found[title].number, last and last - OVERLAP)
            )

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(some, pool.map(read, some), strict=True))

    def _named(self, title: str, items: Iterable[submissions.Submitted]) -> Items:
        return {self.desk.name(item, title): item for item in items}

    def _name(self, user: int) -> str:
        """Pseudonymous id of a user of the server, by number; for whoever came lately users are asked for once more."""
        email = self.line.once(session.users).get(user)
        if email is None and not self.sure:
            email = self.line.once(session.users, anew=True).get(user)
            self.sure = True
        return self.ids.get(email or "", f"user-{user}")

    def take(self, titles: Iterable[str], few: Mapping[str, Items]) -> tuple[list[Arrival], list[str]]:
        """What is news in one annotator's projects, and the ids of what is gone from them."""
        fresh: list[tuple[str, submissions.Submitted]] = []
        gone: list[str] = []
        for title in titles:
            project, there = self.found[title], set(self.live.get(title, ()))
            items = few.get(title)
            if items is None or not self._agrees(title, items):
                items = self._named(title, submissions.exported(self.client, project.number))
                gone += sorted(there - set(items))
            fresh += [(title, item) for name, item in items.items() if self.desk.is_news(name, item)]
        if not fresh:
            return [], gone
        seen_at = submissions.served(self.client, min(item.created_at for _, item in fresh) - OVERLAP)
        pages = {title: digest(self.found[title].config)[:8] for title in {title for title, _ in fresh}}
        begun = {title for title, item in fresh if item.prediction is not None}
        drafts = {title: submissions.drafts(self.client, self.found[title].number) for title in begun}
        arrivals = [
            Arrival(
                item, self._name(item.user) if item.user else None, title,
                item.prediction is not None and item.prediction in drafts[title],
                seen_at.get((item.user, item.task)), label_studio=self.line.release, page=pages[title],
            )
            for title, item in fresh
        ]  # fmt: skip
        return arrivals, gone
