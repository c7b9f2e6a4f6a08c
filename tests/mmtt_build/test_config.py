import re
import tomllib
from dataclasses import asdict
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtt_build import config
from mmtt_build.errors import ConfigError

DEFAULT = files("mmtt_build").joinpath("data", config.FILE_NAME).read_text("utf-8")


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / config.FILE_NAME
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config.load(path)

    return load


def test_the_commented_recipe_states_every_default(load):
    assert load(DEFAULT) == load("") == config.Recipe()
    assert tomllib.loads(DEFAULT) == asdict(config.Recipe())


def test_values_arrive(load):
    recipe = load(
        '[sources]\nffhq = "/data/ffhq"\n[split]\ntrain = 1\nval = 0.0\ntest = 0\n[mix]\nwarp = 1\n[plan]\nseed = 7\n'
    )
    assert recipe.sources == {"ffhq": "/data/ffhq"}
    assert recipe.split.shares() == {"train": 1.0, "val": 0.0, "test": 0.0}
    assert recipe.mix == {"warp": 1.0}
    assert recipe.plan == config.Plan(seed=7)
    assert isinstance(recipe.split.train, float)


@pytest.mark.parametrize(
    "text", ["plan.seed = 9\nsplit.train = 0.8", "plan = {seed = 9}", "\ufeff[plan]\r\nseed = 9\r\n"]
)
def test_other_ways_of_writing_the_same(load, text):
    assert load(text).plan.seed == 9


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[plan]\nseeds = 1", "line 2: plan.seeds: unknown key", "did you mean 'seed'?"),
        ("[plan]\nxyz = 1", "line 2: plan.xyz: unknown key", "known: seed, per_image, total, sequential"),
        ("\n\n[plans]\nseed = 1", "line 3: plans: unknown key", "did you mean 'plan'?"),
        ("[plan]\nseed = '1'", "line 2: plan.seed: is '1', needs a whole number", "e.g. seed = 10"),
        ("[plan]\nseed = true", "line 2: plan.seed: is True, needs a whole number", "e.g. seed = 10"),
        ("[plan]\nseed = 1.0", "line 2: plan.seed: is 1.0, needs a whole number", "e.g. seed = 10"),
        ("[plan]\nseed = 2026-01-01", "is datetime.date(2026, 1, 1), needs a whole number", "e.g. seed = 10"),
        ("[plan]\nper_image = true", "line 2: plan.per_image: is True, needs a number", "e.g. per_image = 0.5"),
        ("[ingest]\nexclude_known_defects = 1", "is 1, needs true or false", "e.g. exclude_known_defects = true"),
        ("[dataset]\nname = 3", "line 2: dataset.name: is 3, needs a text in quotes", 'e.g. name = "text"'),
        ("plan = 3", "line 1: plan: is 3, needs a table", "write it as [plan]"),
        ("[[plan]]\nseed = 3", "plan: is [{'seed': 3}], needs a table", "write it as [plan]"),
        ("mix = 'warp'", "line 1: mix: is 'warp', needs a table", "write it as [mix]"),
        ("[mix]\nwarp = 'all'", "line 2: mix.warp: is 'all', needs a number", "e.g. warp = 0.5"),
        ("[mix]", "mix: names no method", "e.g. blendswap = 1.0"),
        ("[mix]\nwarp = 0.5\nsplice = 0.6", "line 1: mix: shares sum to 1.1, not 1", "divide each by 1.1"),
        ("[mix]\nwarp = -1", "line 2: mix.warp: is -1", "a share lies between 0 and 1"),
        ("[split]\ntrain = 0.5", "line 1: split: shares sum to 0.7, not 1", "e.g. 0.8, 0.1, 0.1"),
        ("\nsplit.train = 0.5", "line 2: split: shares sum to 0.7, not 1", "e.g. 0.8, 0.1, 0.1"),
        ("\nsplit = {train = 0.5}", "line 2: split: shares sum to 0.7, not 1", "e.g. 0.8, 0.1, 0.1"),
        ("\nplan = {sead = 1}", "line 2: plan.sead: unknown key", "did you mean 'seed'?"),
        ("\nplan.sead = 1", "line 2: plan.sead: unknown key", "did you mean 'seed'?"),
        ('\n"plan"."sead" = 1', "line 2: plan.sead: unknown key", "did you mean 'seed'?"),
        ("[split]\ntrain = 1.2\nval = -0.2", "line 2: split.train: is 1.2", "a share lies between 0 and 1"),
        ("[split]\nval = nan", "line 2: split.val: is nan, needs a finite number", "e.g. val = 0.5"),
        ("[plan]\nper_image = inf", "line 2: plan.per_image: is inf, needs a finite number", "e.g. per_image = 0.5"),
        ("[plan]\nper_image = 1001", "line 2: plan.per_image: is 1001", "between 0 and 1000"),
        ("[plan]\nsequential = 1.5", "line 2: plan.sequential: is 1.5", "between 0 and 1"),
        ("[plan]\nseed = -1", "line 2: plan.seed: is -1", "between 0 and 4.61169e+18"),
        ("[plan]\nseed = 99999999999999999999", "line 2: plan.seed: is a number beyond 64 bits", "e.g. seed = 10"),
        (f"[plan]\nper_image = 1{'0' * 400}", "line 2: plan.per_image: is a number beyond 64 bits", "e.g. per_image"),
        (f"[plan]\nseed = 0x{'f' * 5000}", "line 2: plan.seed: is a number beyond 64 bits", "e.g. seed = 10"),
        ("[ingest]\nnear_duplicate_bits = 200", "line 2: ingest.near_duplicate_bits: is 200", "between 0 and 80"),
        ("[qc]\nmax_words = 0", "line 2: qc.max_words: is 0", "between 1 and 10000"),
        ("[dataset]\nname = 'a/b'", "line 2: dataset.name: is 'a/b'", "letters, digits"),
        ("[dataset]\nname = '../up'", "line 2: dataset.name: is '../up'", "letters, digits"),
        ("[dataset]\nname = ''", "line 2: dataset.name: is ''", "letters, digits"),
        ("[dataset]\nversion = '1'", "line 2: dataset.version: is '1'", "three numbers, e.g. 0.1.0"),
        ("[dataset]\nversion = '١.٠.٠'", "line 2: dataset.version: is '١.٠.٠'", "three numbers, e.g. 0.1.0"),
        ("[dataset]\nlanguage = 'english'", "line 2: dataset.language: is 'english'", "an ISO 639-1 code"),
        ("[plan]\nseed = 1\nseed = 2\n", "not valid TOML: Cannot overwrite a value (at line 3", "texts need quotes"),
        ("[plan]\n[plan]", "not valid TOML: Cannot declare ('plan',) twice (at line 2", "texts need quotes"),
        ("[plan]\nseed = \n", "not valid TOML: Invalid value (at line 2", "texts need quotes"),
        ("[dataset]\nname = faces", "not valid TOML: Invalid value (at line 2", "texts need quotes"),
        (f"[plan]\nseed = 1{'0' * 5000}", "not valid TOML", "texts need quotes"),
        (f"a = {'[' * 5000}", "not valid TOML", "texts need quotes"),
        (b"[plan]\nseed = 1 # \xe9", "is not UTF-8 text", "save it as UTF-8"),
        ("[plan]\nseed = 1".encode("utf-16"), "is not UTF-8 text", "save it as UTF-8"),
    ],
)
def test_every_mistake_has_its_place_value_and_fix(load, text, message, remedy):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert config.FILE_NAME in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_recipe_that_is_absent_or_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


_NUMBER = re.compile(r"(?<==) *[-\d.]+")
_VALUES = st.sampled_from(
    [
        "nan",
        "-inf",
        "true",
        "''",
        "[]",
        "{}",
        "1e400",
        "-0",
        "0x10",
        "10" * 2500,
        "1979-05-27",
        "[[1]]",
        "{a.b=1}",
        "'''",
    ]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_recipe_loads_or_is_a_config_error(tmp_path_factory, data):
    text = DEFAULT
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["insert", "cut", "value", "line", "bytes"]))
        at = data.draw(st.integers(0, len(text)))
        if kind == "insert":
            text = text[:at] + data.draw(st.text(st.characters(codec="utf-8"), max_size=5)) + text[at:]
        elif kind == "cut":
            text = text[:at] + text[at + data.draw(st.integers(1, 200)) :]
        elif kind == "value":
            text = _NUMBER.sub(lambda match: data.draw(_VALUES), text, count=data.draw(st.integers(1, 3)))
        elif kind == "line":
            lines = text.splitlines(keepends=True) or [""]
            text += data.draw(st.sampled_from(lines))
        else:
            text = text[:at] + data.draw(st.sampled_from("[]{}=.'\"\n#")) + text[at:]
    path = tmp_path_factory.mktemp("recipe") / config.FILE_NAME
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(config.load(path), config.Recipe)
    except ConfigError as error:
        assert error.remedy
