import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.diffusion import prompts
from generators.diffusion.prompts import MAX_TOKENS, tokens
from mmtt_build.errors import ConfigError
from mmtt_build.parts import CLASSES

OURS = prompts.load()
PARTS = CLASSES[1:]
FAMILIES = {family.name: family for family in OURS.families}

REFUSED = re.compile(
    r"""\b( man|men|woman|women|male|female|masculine|feminine|he|she|his|her|boy|girl|lady|gentleman
    | child|children|kids?|baby|infant|toddler|teen|teenage|teenager|young|youthful|school|minor
    | asian|african|european|caucasian|latin[oa]|hispanic|indian|arab|jewish|muslim|oriental|exotic|ethnic|race|tribal
    | nude|naked|nudity|topless|sexy|seductive|lingerie|cleavage
    | blood|bloody|wound|bruised?|burn|burned|injury|gore|corpse|dead|ugly|fat
    | celebrity|famous|president|actor|actress
    | no|not|without )\b""",
    re.VERBOSE,
)

SMALL = """
templates = ["a photo of a person with {phrase}"]
negative = "cartoon"
[eyes]
parts = ["l_eye", "r_eye"]
negative = "crossed eyes"
[eyes.attributes]
blue-eyes = [{ one = "a blue eye", both = "blue eyes" }]
[skin]
parts = ["skin"]
[skin.attributes]
freckles = ["freckles"]
[beard]
parts = ["skin"]
beside = ["u_lip", "l_lip"]
share = 0.5
[beard.attributes]
stubble = ["short stubble"]
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "ours.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return prompts.load(path)

    return load


def drawn(parts, count=1, source=OURS):
    rng = np.random.default_rng(0)
    return [source.choose(rng, parts) for _ in range(count)]


def phrases(family):
    return {text for ways in family.attributes.values() for phrase in ways for text in (phrase.one, phrase.both)}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_a_plan_can_draw_has_eight_prompts_and_more(part):
    found = drawn([part], 400)
    assert len({prompt.text for prompt in found}) >= 8 * len(OURS.templates)
    assert len({prompt.attribute for prompt in found}) >= 8
    (family,) = (f for f in OURS.families if part in f.parts and not f.beside)
    assert {prompt.attribute for prompt in found} <= set(family.attributes)
    assert {prompt.negative for prompt in found} == {f"{OURS.negative}, {family.negative}"}


@pytest.mark.parametrize("family", OURS.families, ids=lambda family: family.name)
def test_every_family_has_eight_attributes_and_a_negative(family):
    assert len(family.attributes) >= 8
    assert family.negative


def test_distinct_texts_are_as_many_as_the_documentation_says():
    texts = {t.format(phrase=p) for t in OURS.templates for family in OURS.families for p in phrases(family)}
    said = prompts.Prompts.choose.__doc__
    per_template = len(texts) // len(OURS.templates)
    assert f"{len(texts):,} distinct texts ({per_template} phrases in\n" in said
    assert f"{len(OURS.templates)} templates) and {len(OURS.families)} distinct negatives" in said


@pytest.mark.parametrize("name", ["eyebrows", "eyes", "ears"])
def test_one_side_reads_as_one_and_both_as_two(name):
    family = FAMILIES[name]
    ways = [phrase for several in family.attributes.values() for phrase in several]
    assert all(phrase.one.startswith(("a ", "an ")) for phrase in ways)
    assert not any(phrase.both.startswith(("a ", "an ")) for phrase in ways)
    left, right = family.parts
    assert drawn([left, "nose"], 50) == drawn([right, "nose"], 50)
    for parts, which in (([left, "nose"], "one"), ([left, right, "nose"], "both")):
        texts = [prompt.text for prompt in drawn(parts, 100)]
        asked = [getattr(phrase, which) for phrase in ways]
        assert all(any(f"with {phrase} and " in text for phrase in asked) for text in texts)


def test_a_beard_is_for_some_of_the_edits_of_skin_and_mouth_alone():
    slugs = set(FAMILIES["beard"].attributes)
    for parts in (["skin"], ["skin", "nose"], ["u_lip", "l_lip", "mouth"], ["u_lip", "hair"]):
        assert not any(slugs & set(prompt.attribute.split("+")) for prompt in drawn(parts, 200))
    for parts in (["skin", "u_lip"], ["mouth", "skin"], ["skin", "u_lip", "l_lip"]):
        found = [set(prompt.attribute.split("+")) for prompt in drawn(parts, 400)]
        assert 60 < sum(bool(slugs & attributes) for attributes in found) < 140  # a quarter, within four sigma
        assert not any(slugs & attributes and attributes & set(FAMILIES["skin"].attributes) for attributes in found)


@settings(deadline=None)
@given(st.integers(0, 2**63), st.lists(st.sampled_from(PARTS), min_size=1, max_size=18))
def test_any_parts_give_a_prompt_that_fits_and_is_the_same_again(seed, parts):
    prompt = OURS.choose(np.random.default_rng(seed), parts)
    assert prompt == OURS.choose(np.random.default_rng(seed), sorted(set(parts)))
    assert tokens(prompt.text) <= MAX_TOKENS
    assert tokens(prompt.negative) <= MAX_TOKENS
    assert prompt.negative.startswith(OURS.negative)
    slugs = prompt.attribute.split("+")
    named = [f for f in OURS.families if set(slugs) & set(f.attributes)]
    assert len(named) == len(slugs)
    assert all(set(f.parts) & set(parts) for f in named)
    assert all(any(phrase in prompt.text for phrase in phrases(f)) for f in named)
    assert len(slugs) >= min(4, len({f.parts for f in OURS.families if set(f.parts) & set(parts)}))


def test_every_family_is_named_now_and_then_when_all_are_called_for():
    found = {slug for prompt in drawn(PARTS, 1000) for slug in prompt.attribute.split("+")}
    assert found == {slug for family in OURS.families for slug in family.attributes}


def test_another_generator_another_prompt():
    texts = {OURS.choose(np.random.default_rng(seed), ["l_eye", "skin"]).text for seed in range(50)}
    assert len(texts) > 40


def test_refused_words_are_found():
    assert REFUSED.search("a young face")
    assert REFUSED.search("no")
    assert not REFUSED.search("a gap between the front teeth")


def test_the_texts_are_plain_and_fit_to_be_published():
    everything = [*OURS.templates, *(p for family in OURS.families for p in phrases(family))]
    for text in everything:
        assert text.isascii()
        assert text == text.lower()
        assert not REFUSED.search(text), text
        assert "  " not in text
    for phrase in everything[len(OURS.templates) :]:
        assert not re.search(r"[,.;{}]| and a | with ", phrase), phrase
    assert OURS.negative.isascii()
    assert all(f.negative.isascii() for f in OURS.families)


def test_unknown_parts_are_a_bug_and_unserved_ones_give_none(load):
    with pytest.raises(ValueError, match="no parsing classes: l_foot"):
        OURS.choose(np.random.default_rng(0), ["l_foot", "l_eye"])
    assert OURS.choose(np.random.default_rng(0), ["background"]) is None
    assert OURS.choose(np.random.default_rng(0), []) is None
    small = load(SMALL)
    assert small.choose(np.random.default_rng(0), ["hair"]) is None
    (prompt,) = drawn(["hair", "r_eye"], source=small)
    assert prompt == prompts.Prompt("a photo of a person with a blue eye", "cartoon, crossed eyes", "blue-eyes")


def test_a_file_of_a_lab(load):
    small = load(SMALL)
    both = {prompt.text.removeprefix("a photo of a person with ") for prompt in drawn(["l_eye", "r_eye"], 9, small)}
    assert both == {"blue eyes"}
    found = {prompt.attribute for prompt in drawn(["skin", "l_lip"], 60, small)}
    assert found == {"freckles", "stubble"}
    assert {prompt.attribute for prompt in drawn(["skin", "l_lip"], 60, load(SMALL.replace("0.5", "0")))} == {
        "freckles"
    }
    (prompt,) = drawn(["skin", "l_eye"], source=load("\ufeff" + SMALL.replace('negative = "crossed eyes"\n', "")))
    assert (prompt.text, prompt.negative) == ("a photo of a person with a blue eye and freckles", "cartoon")
    without = load(SMALL.replace('negative = "cartoon"\n', ""))
    assert [prompt.negative for prompt in drawn(["l_eye"], source=without)] == ["crossed eyes"]


def test_a_letter_of_another_script_counts_as_a_word():
    assert tokens("close-up") == 4
    assert tokens("厚い眉") == 5
    assert tokens("it's, well") == 7


@pytest.mark.parametrize(
    ("old", "new", "message", "remedy"),
    [
        ('templates = ["a photo of a person with {phrase}"]', "", "templates: missing", "add templates = ..."),
        ('["a photo of a person with {phrase}"]', "[]", "templates: is [], needs a list", '["one text", "another"]'),
        ('["a photo of a person with {phrase}"]', '"{phrase}"', "templates: is '{phrase}', needs a list", "e.g. ["),
        ("{phrase}", "freckles", "templates[0]: is 'a photo of a person with freckles'", "needs {phrase} once"),
        ("{phrase}", "{phrase} {phrase}", "templates[0]: is", "needs {phrase} once"),
        ("{phrase}", "{phrase} {0}", "templates[0]: is", "no other braces"),
        ('negative = "cartoon"', "negative = 3", "negative: is 3, needs a text in quotes", 'e.g. "'),
        ('negative = "cartoon"', f'negative = "{"x, " * 40}x"', "may take 102 tokens", "at most 75"),
        ('negative = "cartoon"', 'negatives = "x"', "negatives: is 'x', needs a table", "did you mean 'negative'?"),
        ('negative = "cartoon"', "nose = 1", "nose: is 1, needs a table", "a family is a table: [nose]"),
        (SMALL[SMALL.index("[eyes]") :], "", "families: there is none", "[eyes.attributes]"),
        ('parts = ["l_eye", "r_eye"]', "", "eyes.parts: missing", "add parts = ..."),
        ('"r_eye"]', '"r_eyes"]', "eyes.parts: 'r_eyes' is no part of a face", "did you mean 'r_eye'?"),
        ('"r_eye"]', '"tail"]', "eyes.parts: 'tail' is no part of a face", "parsing classes: skin, nose"),
        ('"r_eye"]', '"background"]', "eyes.parts: 'background' is no part of a face", "parsing classes"),
        ('"r_eye"]', '"l_eye"]', "eyes.parts: is ['l_eye', 'l_eye']", "name each part once"),
        ('"r_eye"]', "7]", "eyes.parts[1]: is 7, needs a text in quotes", "e.g."),
        ('"r_eye"]', '"skin"]', "skin.parts: part 'skin' is in eyes.parts already", "keep it in one place"),
        ('negative = "crossed eyes"', 'negativ = "x"', "eyes.negativ: unknown key", "did you mean 'negative'?"),
        ('negative = "crossed eyes"', 'xyz = "x"', "eyes.xyz: unknown key", "known: parts, attributes, negative"),
        ('negative = "crossed eyes"', 'negative = "a\\nb"', "eyes.negative: is 'a\\nb'", "one line of text"),
        ('negative = "crossed eyes"', f'negative = "{"x " * 50}x"', "eyes.negative:", "at most 75"),
        ('negative = "crossed eyes"', "share = 0.5", "eyes: has one of 'beside' and 'share'", "needs both"),
        ("share = 0.5", "", "beard: has one of 'beside' and 'share'", "needs both"),
        ("share = 0.5", "share = 1.5", "beard.share: is 1.5", "between 0 and 1"),
        ("share = 0.5", "share = nan", "beard.share: is nan", "between 0 and 1"),
        ("share = 0.5", "share = true", "beard.share: is True", "between 0 and 1"),
        ('"u_lip", "l_lip"]', '"lip"]', "beard.beside: 'lip' is no part of a face", "did you mean"),
        (
            '["skin"]\nbeside',
            '["nose"]\nbeside',
            "beard.parts: no other family has 'nose'",
            "add one without 'beside'",
        ),
        ('[skin.attributes]\nfreckles = ["freckles"]', "", "skin.attributes: missing", "add attributes"),
        ('freckles = ["freckles"]', "", "skin.attributes: is {}, needs a table of attributes", "[skin.attributes]"),
        ('freckles = ["freckles"]', "freckles = []", "skin.attributes.freckles: is [], needs a list", "e.g."),
        ('["freckles"]', '"freckles"', "skin.attributes.freckles: is 'freckles', needs a list", "e.g."),
        ('["freckles"]', '[""]', "skin.attributes.freckles[0]: is ''", "one line of text"),
        ('["freckles"]', '[" freckles"]', "skin.attributes.freckles[0]: is ' freckles'", "nothing around it"),
        ('["freckles"]', '["{x}"]', "skin.attributes.freckles[0]: is '{x}'", "braces belong into templates"),
        ('["freckles"]', '["Freckles", "freckles"]', "phrase 'freckles' is in skin.attributes.freckles", "one place"),
        ('["freckles"]', '["short stubble"]', "phrase 'short stubble' is in skin.attributes.freckles", "one place"),
        ('["freckles"]', f'["{"so " * 60}freckled"]', "skin.attributes.freckles: 'a photo of", "fewer words"),
        ('["freckles"]', '[{ one = "a", both = "b" }]', "in a family of 1 parts", "write a plain text"),
        (', both = "blue eyes"', "", "eyes.attributes.blue-eyes[0].both: missing", "add both"),
        (', both = "blue eyes"', ', two = "x", both = "y"', "blue-eyes[0].two: unknown key", "known: one, both"),
        ('"blue eyes"', "3", "eyes.attributes.blue-eyes[0].both: is 3", 'e.g. "thick'),
        ("freckles =", '"Freckles+" =', "skin.attributes: attribute 'Freckles+'", "small letters, digits"),
        ("stubble =", "freckles =", "attribute 'freckles' is in skin.attributes.freckles already", "one place"),
        ("[skin]", "[eyes]", "not valid TOML: Cannot declare ('eyes',) twice", "texts need quotes"),
    ],
)
def test_every_mistake_has_its_place_value_and_fix(load, old, new, message, remedy):
    assert old in SMALL
    with pytest.raises(ConfigError) as caught:
        load(SMALL.replace(old, new, 1))
    assert "ours.toml" in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_files_that_are_no_text_or_absent(load, tmp_path):
    with pytest.raises(ConfigError, match=r"ours.toml is not UTF-8 text"):
        load(b'templates = ["\xe9"]')
    with pytest.raises(ConfigError, match=r"absent.toml cannot be read: No such file"):
        prompts.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        prompts.load(tmp_path)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(f"a = {'[' * 5000}")


def test_our_file_ships_with_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    assert "*/*.toml" in project["tool"]["setuptools"]["package-data"]["generators"]
