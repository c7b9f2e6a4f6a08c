"""`mmtt qc explain`: every rule's verdict on one row, what became of it, and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmtt_build import images
from mmtt_build.cli import qc_explain as qc_explain  # its command joins the group
from mmtt_build.cli.qc import app
from mmtt_build.errors import ConfigError
from mmtt_build.stages.explain import explain
from mmtt_build.stages.plate import CELL, draw
from mmtt_build.stages.sheet import PAPER
from qc import base
from tests.mmtt_build.small_workspace import small_workspace
from tests.qc.report_rows import HOSTILE, fill


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = small_workspace(tmp_path_factory.mktemp("explain") / "workspace", described=False)
    fill(made, 120)
    return made


def read(path):
    return images.decode_rgb(Path(path).read_bytes())


def said(workspace, *arguments):
    result = CliRunner().invoke(app, ["explain", *map(str, arguments), "-w", str(workspace.root)])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_rule_of_an_answer_has_a_verdict(workspace):
    told = explain(workspace, "p1-00000")
    assert {ruling.rule for ruling in told.rules} == {rule.name for rule in base.load_rules(base.Subject.ANNOTATION)}
    verdicts = {ruling.rule: ruling.verdict for ruling in told.rules}
    assert verdicts["text.original"] == "reject"
    assert verdicts["text.too-long"] == verdicts["time.too-short"] == "pass"
    first = told.rules[0]
    assert first.verdict == "reject" and first.spans, "the severest first"
    (start, end), *_ = first.spans
    assert "original" in HOSTILE[0][start:end]
    short = next(ruling for ruling in told.rules if ruling.rule == "time.too-short")
    assert short.thresholds == {"min_observation_s": 60.0}


def test_the_command_shows_text_rules_and_history(workspace):
    text = said(workspace, "p1-00000")
    assert "[[unlike the original]] image" in text
    assert "text.original" in text and "min_observation_s = 60.0" in text
    assert "by lead: accept: looked at it: fine" in text
    assert f"picture   {workspace.root / 'explain' / 'p1-00000.png'}" in text


def test_nothing_that_was_written_steers_the_terminal(workspace):
    text = said(workspace, "p1-00002")
    assert "\x1b" not in text and "\u202e" not in text and "\x00" not in text
    assert "<U+202E>is drawn from right to left<U+202C> and <U+0000><U+001B>[31m red" in text


def test_what_was_sent_back_keeps_what_was_found(workspace):
    row = workspace.sent_back.read().to_pylist()[0]
    told = explain(workspace, row["annotation_id"])
    assert told.answer.status == "sent-back" and told.answer.text
    assert [ruling.rule for ruling in told.rules if ruling.verdict == "reject"] == [
        rule for rule in row["rules"] if rule in ("text.original", "time.too-short")
    ]
    text = said(workspace, row["annotation_id"])
    assert "counts no more (sent-back)" in text
    assert f"answered anew as {row['annotation_id']}-again: accept" in text
    again = said(workspace, f"{row['annotation_id']}-again")
    assert f"sent back {row['annotation_id']}" in again


def test_a_forgery_has_its_image_rules_and_its_answers(workspace):
    told = explain(workspace, "blendswap-0000")
    assert told.answer is None
    described = workspace.findings.read(["annotation_id", "forgery_id"]).to_pylist()
    assert set(told.answers) == {row["annotation_id"] for row in described if row["forgery_id"] == "blendswap-0000"}
    assert told.image_verdict == "accept"
    assert explain(workspace, "blendswap-0001").image_verdict == "review"


def test_a_control_shows_the_pristine_twice(workspace):
    told = explain(workspace, "p1-00049")
    assert told.answer.kind == "control"
    pristine, shown, mask = told.pictures
    assert np.array_equal(pristine.image, shown.image)
    assert not np.array_equal(mask.image, shown.image)


def test_the_beginning_of_an_id_is_enough_if_one_has_it(workspace):
    again = workspace.sent_back.read(["annotation_id"])["annotation_id"][0].as_py() + "-again"
    assert explain(workspace, again[:-2]).id == again
    with pytest.raises(ConfigError, match="10 ids begin with 'p1-0011'") as several:
        explain(workspace, "p1-0011")
    assert "p1-00110, p1-00111" in several.value.remedy
    with pytest.raises(ConfigError, match="no annotation or forgery 'p1_00004'") as near:
        explain(workspace, "p1_00004")
    assert "p1-00004" in near.value.remedy


def test_json_has_it_all(workspace, tmp_path):
    told = json.loads(said(workspace, "p1-00004", "--json", "--picture", tmp_path / "one.png"))
    assert told["id"] == "p1-00004"
    assert told["answer"]["text"] == HOSTILE[4]
    assert {"rule", "verdict", "message", "spans", "asks", "thresholds"} == set(told["rules"][0])
    assert read(told["picture"]).shape[1] > 3 * CELL


def test_the_picture_underlines_the_words(workspace, tmp_path):
    draw(explain(workspace, "p1-00000"), tmp_path / "marked.png")
    draw(explain(workspace, "p1-00005"), tmp_path / "plain.png")
    marked, plain = (read(tmp_path / name) for name in ("marked.png", "plain.png"))
    below = CELL + 60
    red = [(picture[below:].astype(int) @ [2, -1, -1] > 200).sum() for picture in (marked, plain)]
    assert red[0] > 100 and red[1] == 0
    assert (plain[below:] != PAPER).any(), "the words"


def test_pictures_that_are_not_there(workspace, tmp_path):
    row = workspace.forgeries.read(["forgery_id", "mask"]).to_pylist()[-1]
    path = workspace.resolve(row["mask"])
    kept = path.read_bytes()
    path.write_bytes(kept[:100])
    try:
        told = explain(workspace, row["forgery_id"])
    finally:
        path.write_bytes(kept)
    assert told.pictures[2].image is None and "damaged" in told.pictures[2].missing
    draw(told, tmp_path / "without.png")
    assert read(tmp_path / "without.png").shape[1] > 3 * CELL
