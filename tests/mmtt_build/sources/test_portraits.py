import pytest

from mmtt_build.errors import SourceError
from mmtt_build.sources.base import Options
from mmtt_build.sources.portraits import Portraits


def test_both_layouts_are_read_under_one_licence(portraits):
    source = Portraits(portraits, Options(exclude_known_defects=True))
    found = {item.name: item for item in source.items()}
    assert list(found) == ["c01998", "c01999", "c02000", "c02001", "f00999", "f01000", "f01001"]
    assert len(source) == 7
    assert {item.licence for item in found.values()} == {"CC0-1.0"}
    assert not any(item.excluded or item.official_split or item.url for item in found.values())
    assert found["c01998"].identity == found["c01999"].identity
    assert all(item.parts for item in found.values())


def test_one_layout_is_enough(portraits, tmp_path):
    (tmp_path / "ffhq").symlink_to(portraits / "ffhq")
    assert [item.name for item in Portraits(tmp_path, Options()).items()] == ["f00999", "f01000", "f01001"]


def test_a_folder_without_portraits_says_how_to_draw_them(tmp_path):
    with pytest.raises(SourceError, match="has no drawn portraits") as caught:
        Portraits(tmp_path, Options())
    assert caught.value.remedy == f"mmtt portraits {tmp_path}"
