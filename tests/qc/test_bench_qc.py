"""`mmtt bench qc`, small: what it says of which rule, and what it judges."""

from __future__ import annotations

from statistics import mean

from mmtt_build.stages.bench.qc import descriptions, rules
from qc.base import Subject, load_rules
from qc.mentions import mentions


def test_every_rule_has_its_line_beside_the_published_one() -> None:
    lines: list[str] = []
    rules(lines.append, texts=100, pictures=3)
    figures = {line[2:28].strip(): line[28:].split() for line in "\n".join(lines).splitlines() if line.startswith("  ")}
    of_descriptions = [rule.name for rule in load_rules(Subject.ANNOTATION)]
    for name in ("published rule", "all rules", "read: mentions", "copies, of all", *of_descriptions):
        assert name in figures, name
    assert figures["decoding the mask, OpenCV"][1] == "1.00x"
    for name in ("rules, 3 of a base", "rules, one of a base", "rules, every pixel", "1 process"):
        assert float(figures[name][0].replace(",", "")) > 0, name
    assert any("1,000 texts" in line for line in lines)


def test_descriptions_are_like_the_published_ones_and_all_different() -> None:
    texts = list(descriptions(0, 2000))
    assert texts[500:600] == list(descriptions(500, 100))
    assert len(set(texts)) > 1990
    assert 22 <= mean(len(text.split()) for text in texts) <= 32
    found = [mentions(text) for text in texts]
    assert mean(map(len, found)) > 2
    assert {True, False} == {mention.negated for of_text in found for mention in of_text}
