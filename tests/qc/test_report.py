"""The report as a file: what it counts, what it escapes, how large it gets."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from mmtt_build.stages.report import report
from mmtt_build.workspace import Workspace
from qc.report import model
from qc.report.marks import Piece, pieces, visible
from qc.report.render import MAX_ROWS, columns, percent, render
from tests.mmtt_build.small_workspace import small_workspace
from tests.qc.report_rows import GATES, HOSTILE, SCRIPT, fill

LARGEST = 5_000_000
NOTHING = model.Page(
    "empty", None, (), model.Verdicts(), model.Verdicts(), 0, (), (), (), (), (), (), (), (), 0, (), (), 0
)  # fmt: skip


class Reader(HTMLParser):
    """Elements by name with their attributes, and the text that is shown."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._inside = [], [], []
        self.feed(html)
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag not in ("mark", "bdi"):
            self.texts.append(" ")

    def handle_endtag(self, tag):
        if tag in self._inside:
            self._inside.remove(tag)
        if tag not in ("mark", "bdi"):
            self.texts.append(" ")

    def handle_data(self, data):
        if not self._inside:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = small_workspace(tmp_path_factory.mktemp("report") / "workspace", described=False)
    fill(made, 600)
    (made.root / made.forgeries.read(["image"])["image"][0].as_py()).write_bytes(b"\x89PNG no more")
    return made


@pytest.fixture(scope="module")
def html(workspace):
    path = workspace.root / "reports" / "qc.html"
    report(workspace, path, gates=GATES)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def shown(html):
    return Reader(html)


def row(name="a-1", text="The nose.", verdict="reject", findings=(), kind="pair"):
    parts, left_out = pieces(text, [(0, 3)], 800)
    return model.Row(name, kind, verdict, verdict, "warp", "a01", parts, left_out, tuple(findings))


def page(**other):
    return model.Page(**{name: getattr(NOTHING, name) for name in model.Page.__slots__} | other)


def test_it_counts_what_the_tables_have(workspace, shown):
    findings = [row for row in workspace.findings.read().to_pylist() if row["verdict"] is not None]
    rejected = sum(row["verdict"] == "reject" for row in findings)
    assert f"{len(findings):,} answers judged" in shown.text
    assert f"✕ reject {rejected:,} {100 * rejected / len(findings):.1f} %" in shown.text
    original = sum("text.original" in [one["rule"] for one in row["findings"]] for row in findings)
    assert f"text.original ({original:,})" in shown.text
    assert "1 of 5 gates not kept" in shown.text
    assert "agreement on repeats at least 0.4 nothing to count" in shown.text
    assert "dataset.balance warp has 31 % of the forgeries" in shown.text
    assert "image.rectangle the mask is a plain rectangle" in shown.text
    assert "24.5 75 14 4 of 9 0.54" in shown.text
    worst = next(one for one in shown.elements if one[1].get("data-filter") == "annotator")
    assert worst[1]["data-value"] == "a03"


def test_it_says_what_repair_did_and_who_decided(workspace, shown):
    sent = workspace.sent_back.read().to_pylist()
    assert len(sent) > 3
    assert f"all {len(sent)} {-(-len(sent) // 2)} 100 %" in shown.text
    assert f"{sent[0]['annotation_id']}-again ✓ accept" in shown.text
    assert "rules: reject looked at it: fine <script>" in shown.text


def test_every_row_with_findings_is_there_without_a_script(workspace, shown):
    findings = workspace.findings.read().to_pylist()
    ids = {row["annotation_id"] for row in findings if row["findings"] and row["verdict"] is not None}
    rows = [attributes for attributes in shown.all("tr") if "data-verdict" in attributes]
    assert len(rows) == len(ids) + 1, "and one forgery"
    assert all(name in shown.text for name in ids)
    verdicts = [attributes["data-verdict"] for attributes in rows]
    assert verdicts == sorted(verdicts, key=["reject", "review", "accept"].index)


def test_what_annotators_wrote_stays_text(html, shown):
    assert len(shown.all("script")) == 1
    assert all(attributes["src"].startswith("data:image/webp;base64,") for attributes in shown.all("img"))
    assert not any(name.startswith("on") for _, attributes in shown.elements for name in attributes)
    assert SCRIPT in shown.text
    assert "\x00" not in html and "\x1b" not in html and "\u202e" not in html
    assert "<U+202E>is drawn from right to left<U+202C> and <U+0000><U+001B>[31m red" in shown.text
    assert all(text in shown.text for text in (HOSTILE[1], *HOSTILE[3:]))
    for word in ("http:", "https:", "url(", "@import", "src=//"):
        assert word not in re.sub(r"data:image/webp[^\"]*", "", html).replace("https://example.org", "")


def test_the_page_may_run_and_load_nothing_else(html, shown):
    policy = next(a["content"] for a in shown.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in shown.elements)


def test_each_rule_shows_examples_with_pictures(workspace, html, shown):
    assert 30 < len(shown.all("article")) <= 60
    rules = re.findall(r"<h3>(.*?)</h3>", html)
    assert rules[:2] == ["text.original", "time.too-short"]
    assert "image.rectangle" in rules
    assert len(shown.all("img")) > 100
    assert "damaged stored image" in shown.text, "the file that was overwritten"
    assert "shown as forged" in shown.text, "controls"


def test_a_page_stays_small_whatever_the_texts_are():
    found = [model.Said("text.name", "reject", "<&\"'" * 75)] * 8
    rows = [
        row(f"a-{number}", "<" * 10**6 if number < 3 else "<'\u202e" * 600, findings=found) for number in range(4000)
    ]
    made = render(page(rows=tuple(rows), with_findings=4000))
    assert len(made) < LARGEST
    shown = Reader(made.decode())
    count = sum("data-verdict" in attributes for attributes in shown.all("tr"))
    assert 50 < count < MAX_ROWS
    assert f"The {count:,} worst of 4,000 rows with findings" in shown.text
    assert "(999,200 more characters)" in shown.text


def test_no_more_than_the_worst_rows():
    made = render(page(rows=tuple(row(f"a-{number}") for number in range(2500)), with_findings=152_000))
    assert len(made) < LARGEST
    assert made.count(b"data-verdict=") == MAX_ROWS
    assert "The 2,000 worst of 152,000 rows" in Reader(made.decode()).text


def test_a_workspace_without_anything(tmp_path):
    path = tmp_path / "qc.html"
    report(Workspace.init(tmp_path / "workspace"), path, gates=())
    shown = Reader(path.read_text("utf-8"))
    assert "No row has a finding." in shown.text
    assert "Nothing has been judged yet." in shown.text


def test_answers_that_belong_to_nothing(tmp_path):
    """A forgery that there is not, no words, no time: shown, with the reason in place of the picture."""
    workspace = Workspace.init(tmp_path / "workspace")
    finding = {"rule": "row.forgery", "severity": "reject", "message": "forgery 'x' is not here", "spans": []}
    workspace.findings.append(
        [{"annotation_id": "lost", "forgery_id": "x", "verdict": "reject", "judged": "reject", "findings": [finding]}]
    )
    report(workspace, tmp_path / "qc.html", gates=())
    shown = Reader((tmp_path / "qc.html").read_text("utf-8"))
    assert "no such forgery" in shown.text
    assert "lost copy pair · unknown no words row.forgery forgery 'x' is not here" in shown.text


def test_text_is_cut_around_its_first_mark():
    parts, left_out = pieces("a" * 500 + " BAD " + "b" * 500, [(501, 504), (502, 9999)], 90)
    assert [part.text for part in parts if part.marked] == ["BAD " + "b" * 56]
    assert (parts[0], parts[-1]) == (Piece("… "), Piece(" …"))
    assert left_out == 1005 - 90
    assert pieces("nose", [(-5, 2), (1, 3), (9, 12)], 90) == ((Piece("nos", marked=True), Piece("e")), 0)
    assert pieces("", [(0, 4)], 90) == ((), 0)


def test_what_cannot_be_seen_is_made_visible():
    assert visible("a\x1b[2J\u202eb\u2066\x7f\n") == "a<U+001B>[2J<U+202E>b<U+2066><U+007F>\n"
    assert visible("👨‍👩‍👧 左 ü\u00a0") == "👨‍👩‍👧 左 ü\u00a0"


def test_shares_tell_little_from_nothing():
    assert [percent(share).replace("\xa0", " ") for share in (0, 1e-5, 0.075, 0.9999, 1)] == [
        "0 %", "< 0.1 %", "7.5 %", "> 99.9 %", "100 %",
    ]  # fmt: skip


def test_columns_of_a_chart():
    days = [model.Day("2026-11-02", model.Verdicts(6, 2, 2)), model.Day("2026-11-03", model.Verdicts(5, 0, 0))]
    assert columns(days) == "M1 100.0v-100.0h8v100.0zM11 100.0v-50.0h8v50.0z"
    assert columns(days, "review", "reject") == "M1 80.0v-20.0h8v20.0z"
    assert columns(days, "reject", top=0.4) == "M1 100.0v-50.0h8v50.0z"
    assert columns([]) == ""
