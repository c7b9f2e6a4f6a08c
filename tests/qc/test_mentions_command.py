"""`mmtt qc mentions` and `mmtt qc rules`, as commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def mmtt(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    script = "from mmtt_build.cli.app import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], input=given, capture_output=True, check=False)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]


def test_one_text() -> None:
    text = "The left eye is larger, the nose looks natural."
    assert lines(mmtt("qc", "mentions", text)) == [
        {
            "text": text,
            "parts": ["eye", "nose"],
            "mentions": [
                {"label": "eye", "start": 9, "end": 12, "side": "left", "negated": False},
                {"label": "nose", "start": 28, "end": 32, "side": None, "negated": True},
            ],
        }
    ]


def test_a_file_of_texts_in_its_order(tmp_path: Path) -> None:
    texts = [
        "Her brows are missing.",
        "",
        "没有眉毛",
        "a\nb \u2028 chin",
        "=cmd|' /C calc'!A0",
        "lone \ud83d lip",
        "mouth",
    ]
    rows = [json.dumps(text) if i % 2 else json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "texts.jsonl").write_text("\ufeff" + "\r\n".join([*rows, ""]), "utf-8")
    found = lines(mmtt("qc", "mentions", "--file", str(tmp_path / "texts.jsonl")))
    assert [row["text"] for row in found] == texts
    assert [row["parts"] for row in found] == [["eyebrow"], [], ["eyebrow"], ["chin"], [], ["lip"], ["mouth"]]
    piped = "\n".join(rows).encode()
    assert lines(mmtt("qc", "mentions", "--file", "-", given=piped)) == found
    assert lines(mmtt("qc", "mentions", "-", given=piped)) == found


def test_the_published_rule() -> None:
    (row,) = lines(mmtt("qc", "mentions", "--official", "Her brow, no nose, a blending line"))
    assert row["parts"] == ["nose", "forehead", "wrinkle"]
    assert {mention["negated"] for mention in row["mentions"]} == {False}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('"fine"\n{"caption": "x"}\n', "utf-8")
    (tmp_path / "worse.jsonl").write_bytes(b"\xff\xfe\n")
    for arguments, message in (
        ((), b"give a text or --file"),
        (("nose", "--file", "x.jsonl"), b"give a text or --file"),
        (("--file", str(tmp_path / "none.jsonl")), b"cannot be read: No such file"),
        (("--file", str(tmp_path / "bad.jsonl")), b"bad.jsonl, line 2: no text"),
        (("--file", str(tmp_path / "worse.jsonl")), b"worse.jsonl, line 1: not JSON"),
        (("--language", "fr", "nez"), b"no lexicon of the language 'fr'"),
    ):
        done = mmtt("qc", "mentions", *arguments)
        assert (done.returncode, message in done.stderr, b"Traceback" in done.stderr) == (2, True, False), done.stderr


def test_the_rules_are_listed() -> None:
    listed = mmtt("qc", "rules").stdout.decode()
    assert {"text.original", "text.language", "text.personal", "time.too-short"} <= set(listed.split())
