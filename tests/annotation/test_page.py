"""The page without a server: what the configuration asks for, and what a result means."""

import re
import tomllib
from importlib import resources
from xml.etree import ElementTree

import pytest

from annotation import page
from mmtt_build import parts
from mmtt_build.errors import ConfigError

WORDS = tomllib.loads(resources.files("annotation.page").joinpath("words.toml").read_text("utf-8"))


def tags(xml, name):
    return list(ElementTree.fromstring(xml).iter(name))


def control(xml, name):
    (found,) = [tag for tag in ElementTree.fromstring(xml).iter() if tag.get("name") == name]
    return found


def region(name, **value):
    return {"from_name": name, "to_name": "pair", "type": "choices", "value": value}


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("language", page.LANGUAGES)
def test_the_page_offers_the_21_labels_in_official_order_with_the_sides_of_pairs(language, blind):
    aliases = [choice.get("alias") for choice in control(page.config(language, blind=blind), "parts")]
    assert tuple(dict.fromkeys(alias.partition(".")[0] for alias in aliases)) == parts.LABELS
    sided = {alias for alias in aliases if "." in alias}
    assert sided == {f"{label}.{side}" for label in page.answer.PAIRED for side in ("left", "right")}


@pytest.mark.parametrize("language", page.LANGUAGES)
def test_every_choice_has_a_key_and_a_text_of_its_own(language):
    choices = tags(page.config(language, blind=True), "Choice")
    assert len({choice.get("hotkey") for choice in choices}) == len(choices)
    assert len({choice.get("value") for choice in choices}) == len(choices)
    assert len({choice.get("alias") for choice in choices}) == len(choices)


def test_results_do_not_depend_on_the_language():
    english, chinese = (page.config(language) for language in page.LANGUAGES)
    assert [c.get("alias") for c in tags(english, "Choice")] == [c.get("alias") for c in tags(chinese, "Choice")]
    assert [c.get("value") for c in tags(english, "Choice")] != [c.get("value") for c in tags(chinese, "Choice")]


def test_languages_have_the_same_words_and_all_labels():
    assert set(WORDS) == set(page.LANGUAGES)
    assert len({frozenset(table) for table in WORDS.values()}) == 1
    assert all(tuple(table["labels"]) == parts.LABELS for table in WORDS.values())
    assert len({len(table["guideline"]) for table in WORDS.values()}) == 1


def test_the_guideline_tells_the_limit():
    assert "At most 95 words" in control(page.config("en", max_words=95), "rules").get("value")
    assert "95" in control(page.config("zh", max_words=95), "rules").get("value")


def test_the_style_sheet_survives_the_editors_reading_of_xml():
    """It leaves '&gt;' as it is; a '<' would end the sheet."""
    assert not re.search("[<>&]", control_text(page.config()))


def control_text(xml):
    (style,) = tags(xml, "Style")
    return style.text


def test_every_variable_of_the_page_is_in_the_task():
    data = page.task("p", pristine="a", forged="b", mask="c")
    for blind in (False, True):
        used = set(re.findall(r"\$(\w+)", page.config(blind=blind)))
        assert used - set(page.NOTES) == set(data) - {"pair_id"}  # notes are of single tasks, and may be absent


def test_the_blind_pass_shows_one_image_until_it_is_answered():
    xml = ElementTree.fromstring(page.config(blind=True))
    shown = {
        view.get("visibleWhen"): {tag.get("name") for tag in view.iter() if tag.get("name")}
        for view in xml.iter("View")
        if view.get("whenTagName") == "first"
    }
    assert shown["choice-unselected"] == {"alone"}
    assert "$mask" not in control(page.config(blind=True), "alone").get("value")
    assert {"pair", "parts", "description", "answer"} <= {
        tag.get("name")
        for view in xml.iter("View")
        if view.get("visibleWhen") == "choice-selected"
        for tag in view.iter()
    }


def test_there_is_no_page_in_another_language():
    with pytest.raises(ConfigError, match=r"'fr'.*\n.*en, zh"):
        page.config("fr")


def test_a_description_is_read_with_its_labels_and_sides():
    answer = page.read(
        [
            region("parts", choices=["eye.left", "nose", "eyebrow.right", "eye.right"]),
            region("description", text=["The left eye\nis <b>blurred</b> & small \U0001f600"]),
        ]
    )
    assert answer.answer == "described"
    assert [parts.LABELS[i] for i, on in enumerate(answer.labels) if on] == ["eye", "nose", "eyebrow"]
    assert answer.sides == {"eye": ("left", "right"), "eyebrow": ("right",)}
    assert answer.text == "The left eye\nis <b>blurred</b> & small \U0001f600"
    assert answer.first is None


def test_texts_added_one_by_one_are_one_text():
    assert page.read([region("description", text=["one", "two"])]).text == "one\ntwo"


@pytest.mark.parametrize("said", ["nothing-visible", "broken-pair"])
def test_honest_answers_are_answers(said):
    answer = page.read([region("first", choices=["none"]), region("answer", choices=[said])])
    assert (answer.answer, answer.first, answer.text, sum(answer.labels)) == (said, "none", "", 0)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (region("parts", choices=["eye"]), "eye"),
        (region("parts", choices="nose"), "nose"),
        (region("parts", choices=[]), "parts"),
        (region("answer", choices=["fine"]), "fine"),
        (region("description", choices=["nose"]), "description"),
        (region("sentiment", choices=["good"]), "sentiment"),
        ({"type": "relation"}, "relation"),
    ],
)
def test_what_the_page_does_not_make_is_named(made, named):
    with pytest.raises(page.BadResult, match=named):
        page.read([made])
