"""Take in: files that Label Studio exported as JSON become the same rows as a pull makes of its projects.

Every file is read twice. The first time nothing is written: it shows that the files are whole, and when everybody
submitted, which bounds the time spent on a pair. Neither time is more of a file in memory than some hundred tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from annotation import people, submissions
from mmtt_build.errors import ConfigError
from mmtt_build.progress import Progress
from mmtt_build.stages import serve
from mmtt_build.stages.receive import FILE, Arrival, Desk, Summary
from mmtt_build.workspace import Workspace

AT_ONCE = 500
"""Submissions of a shard."""
_PEOPLE = "columns user (the number in the file) and email"


def take_in(
    workspace: Workspace, files: Sequence[Path], *, users: Path | None = None, skip_foreign: bool = False
) -> Summary:
    """Brings what is new in export files into the tables.

    Args:
        workspace: whose tasks.
        files: exported as JSON, of any project with our page.
        users: CSV file with columns user and email: who is behind the numbers in the files. Whoever is neither in it
            nor with an e-mail address in the files is `user-<number>`.
        skip_foreign: leave out tasks of others instead of refusing a file that has some.

    Raises:
        ConfigError: a file is something else, breaks off, or has tasks of others; nothing is written.
    """
    desk = Desk(workspace)
    who = _Who(workspace, users)
    times: dict[str, set[datetime]] = defaultdict(set)
    total = 0
    for path in files:
        foreign: dict[int, str] = {}
        before = total
        for item in submissions.in_file(path):
            if item.name not in desk.of_task:
                foreign[item.task] = item.name
                continue
            total += 1
            if (annotator := who.name(item)) is not None:
                times[annotator].add(item.created_at)
        if foreign and (total == before or not skip_foreign):
            number, name = next(iter(foreign.items()))
            raise ConfigError(
                f"{path} has {len(foreign):,} tasks of no pair of {workspace.root}, "
                f"e.g. task {number} with pair_id {name!r}",
                "-w names another workspace" + ("" if total == before else "; --skip-foreign leaves them out"),
            )
    for annotator, moments in times.items():
        desk.expect(annotator, moments)
    with Progress("import", total, "submissions") as progress:
        for path in files:
            fresh: dict[str, Arrival] = {}
            for item in submissions.in_file(path):
                task = desk.of_task.get(item.name)
                if task is None:
                    continue
                progress.step()
                title = task["project"]
                name = desk.name(item, title)
                if desk.is_news(name, item, FILE):
                    # A file has no versions of models: what began from any prediction is not a person's alone.
                    fresh[name] = Arrival(item, who.name(item), title, item.prediction is not None, source=FILE)
                if len(fresh) == AT_ONCE:
                    desk.write(list(fresh.values()))
                    fresh = {}
            desk.write(list(fresh.values()))
    return desk.summary


class _Who:
    """Who is behind a number or an address."""

    def __init__(self, workspace: Workspace, users: Path | None) -> None:
        folder = serve.local(workspace).data if (workspace.root / serve.POINTER).is_file() else None
        self.ids: Mapping[str, str] = {person.email: name for name, person in people.load(folder).items()}
        self.emails: dict[int, str] = {}
        for line, row in people.read(users, ("user", "email"), _PEOPLE) if users else ():
            if not row["user"].isdecimal():
                raise ConfigError(f"{users}, line {line}: {row['user']!r} is no number of a user", _PEOPLE)
            self.emails[int(row["user"])] = row["email"].lower()

    def name(self, item: submissions.Submitted) -> str | None:
        """Pseudonymous id of who submitted something; None where the account is deleted."""
        email = item.email or self.emails.get(item.user, "")
        return self.ids.get(email) or (f"user-{item.user}" if item.user else None)
