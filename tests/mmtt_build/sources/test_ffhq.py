import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmtt_build import parts
from mmtt_build.errors import SourceError
from mmtt_build.images import decode_rgb, to_size
from mmtt_build.sources.base import Options, describe
from mmtt_build.sources.ffhq import FFHQ, METADATA, UNKNOWN_LICENCE

POINTS = np.random.default_rng(0).uniform(300, 700, (68, 2)).round(2).tolist()


def entry(points=POINTS, size=1024, **metadata):
    meta = {"author": "Jane", "license": "CC BY 2.0", "license_url": "https://l", "photo_url": "https://p", **metadata}
    return {"category": "training", "metadata": meta, "image": {"pixel_size": [size, size], "face_landmarks": points}}


@pytest.fixture
def dataset(tmp_path):
    """Makes a folder of empty image files, of which an adapter reads the names only, and their metadata."""

    def make(entries=None, names=("00000.png",), folder="images1024x1024/00000"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / folder / name).touch()
        if entries is not None:
            text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
            (tmp_path / METADATA).write_bytes(text)
        return tmp_path

    return make


def items(root, **options):
    return {item.name: item for item in FFHQ(root, Options(**options)).items()}


def only(root, **options):
    (item,) = items(root, **options).values()
    return item


def test_drawn_portraits_come_with_everything_across_a_folder_border(portraits):
    root = portraits / "ffhq"
    found = items(root)
    assert list(found) == ["00999", "01000", "01001"]
    assert [item.path.parent.name for item in found.values()] == ["00000", "01000", "01000"]
    for item in found.values():
        facts = describe(item.parts.load(root), to_size(decode_rgb(item.path.read_bytes())))
        assert facts["points"][0] > 256 > facts["points"][2]
        assert (item.official_split, item.licence, item.author) == ("train", "CC0 1.0", "mmtt-build")
        assert item.note == ""


def test_facts_of_the_metadata_arrive(dataset):
    item = only(dataset({"0": entry()}))
    assert (item.author, item.licence, item.licence_url, item.url) == ("Jane", "CC BY 2.0", "https://l", "https://p")
    assert item.official_split == "train"
    assert item.parts.xy == pytest.approx((np.array(POINTS) / 2).ravel())


@pytest.mark.parametrize("folder", [".", "00000", "some/where/else", "images512x512"])
def test_other_layouts_of_the_same_images(dataset, folder):
    item = only(dataset({"0": entry()}, folder=folder))
    assert item.path.name == "00000.png"
    assert item.parts is not None


@pytest.mark.parametrize("name", ["0.png", "00000.jpg", "00000.WEBP"])
def test_other_names_of_the_same_image(dataset, name):
    assert only(dataset({"0": entry()}, [name])).name == "00000"


def test_landmarks_stay_right_on_resized_copies(dataset):
    """The coordinates belong to the 1024 px original, whatever size the file on disk has."""
    small, large = only(dataset({"0": entry(size=512)})), only(dataset({"0": entry(size=1024)}))
    assert np.array(small.parts.xy) == pytest.approx(2 * np.array(large.parts.xy))


def test_thumbnails_beside_the_images_are_no_second_copy(dataset):
    dataset(folder="thumbnails128x128/00000")
    assert only(dataset({"0": entry()})).path.parts[-3] == "images1024x1024"


def test_two_files_of_one_number_are_an_error(dataset):
    dataset(folder="images512x512")
    root = dataset(folder="thumbnails128x128")
    with pytest.raises(
        SourceError, match=r"two images of number 0: images512x512/00000.png and thumbnails128x128/00000.png"
    ):
        FFHQ(root, Options())


def test_a_folder_without_numbered_images_is_an_error(dataset):
    with pytest.raises(SourceError, match="has no image named by its number"):
        FFHQ(dataset(names=["face.png"]), Options())


NO_LANDMARKS = f"no usable face_landmarks in {METADATA}: no part map"


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        ({**entry(), "image": {}}, NO_LANDMARKS),
        ({**entry(), "image": None}, NO_LANDMARKS),
        (entry(None), NO_LANDMARKS),
        (entry("68 points"), NO_LANDMARKS),
        (entry([[1, 2, 3]] * 68), NO_LANDMARKS),
        (entry([1.0, 2.0] * 68), NO_LANDMARKS),
        (entry([[None, 1]] * 68), NO_LANDMARKS),
        (entry(size=0), NO_LANDMARKS),
        (entry(size=-1024), NO_LANDMARKS),
        (entry(size="wide"), NO_LANDMARKS),
        (entry(POINTS[:67]), "67 face_landmarks in .*, needs 68 near the frame"),
        (entry([*POINTS, [1, 1]]), "69 face_landmarks"),
        (entry([["nan", 5], *POINTS[1:]]), "68 face_landmarks in .*, needs 68 near the frame"),
        (entry([[9000, 5], *POINTS[1:]]), "68 face_landmarks in .*, needs 68 near the frame"),
        ([], f"not in {METADATA}"),
        (None, f"not in {METADATA}"),
    ],
)
def test_unusable_landmarks_leave_an_image_without_part_map_and_say_so(dataset, broken, note):
    item = only(dataset({"0": broken}))
    assert item.parts is None
    assert re.match(note, item.note)


def test_null_metadata_is_an_unknown_licence(dataset):
    item = only(dataset({"0": {**entry(), "metadata": None}}))
    assert item.licence == UNKNOWN_LICENCE
    assert item.author is None
    assert item.parts is not None
    empty = only(dataset({"0": entry(author=None, license="", photo_url=7)}))
    assert (empty.licence, empty.author, empty.url) == (UNKNOWN_LICENCE, None, None)


def test_images_the_metadata_does_not_name_come_last(dataset):
    root = dataset({"2": entry(), "7": entry(), "x": entry()}, [f"{n:05d}.png" for n in range(3)])
    found = items(root)
    assert list(found) == ["00002", "00000", "00001"]
    assert found["00000"].note == f"not in {METADATA}: no landmarks, no part map"
    assert found["00002"].note == ""


def test_without_metadata_every_image_says_so(dataset):
    item = only(dataset())
    assert item.note == f"no {METADATA}"
    assert item.licence == UNKNOWN_LICENCE
    assert only(dataset(), licence="CC0-1.0").licence == "CC0-1.0"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>404</html>",
        b"\xff\xfe\x00",
        json.dumps({"0": entry()}).encode()[:-40],
        b'{"0": {"image": NaN}}',
        b'{"0": 1' + b"0" * 400 + b"}",
    ],
)
def test_damaged_metadata_stops_the_run_with_one_line(dataset, text):
    with pytest.raises(SourceError, match="is damaged") as caught:
        items(dataset(text))
    assert "\n" not in caught.value.message
    assert "download it again" in caught.value.remedy


def aging(tmp_path, *lines, head="image_number,age_group,age_group_confidence,gender"):
    path = tmp_path / "ffhq_aging_labels.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_every_age_group_under_twenty_is_left_out(dataset, tmp_path):
    groups = ["0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120"]
    csv = aging(tmp_path, *(f"{n},{group},0.9,male" for n, group in enumerate(groups)))
    root = dataset(names=[f"{n:05d}.png" for n in range(10)])
    excluded = {item.name: item.excluded for item in items(root, aging_csv=csv).values()}
    assert [bool(reason) for reason in excluded.values()] == [True] * 5 + [False] * 5
    assert excluded["00004"] == "age group 15-19 begins below 20"
    stricter = items(root, aging_csv=csv, min_age=30)
    assert stricter["00005"].excluded == "age group 20-29 begins below 30"


@pytest.mark.parametrize(
    ("lines", "head"),
    [
        (["0,adult,1,f"], "image_number,age_group,age_group_confidence,gender"),
        (["0"], "image_number,age_group"),
        ([",0-2"], "image_number,age_group"),
        (["0,0-2"], "number,group"),
    ],
)
def test_damaged_age_labels_are_an_error_rather_than_an_included_child(dataset, tmp_path, lines, head):
    with pytest.raises(SourceError, match=r"ffhq_aging_labels\.csv") as caught:
        FFHQ(dataset(), Options(aging_csv=aging(tmp_path, *lines, head=head)))
    assert "needs the columns image_number and age_group" in caught.value.remedy


def test_the_same_labels_say_who_wears_glasses(dataset, tmp_path):
    lines = ("0,20-29,None", "1,20-29,Normal", "2,20-29,Dark", "3,20-29,", "4,20-29", "5,20-29,Odd")
    csv = aging(tmp_path, *lines, head="image_number,age_group,glasses")
    root = dataset({str(n): entry() for n in range(7)}, names=[f"{n:05d}.png" for n in range(7)])
    found = [item.parts.glasses for item in items(root, aging_csv=csv).values()]
    assert found == [False, True, True, None, None, None, None]


def test_age_labels_may_begin_with_a_byte_order_mark_and_must_exist(dataset, tmp_path):
    csv = aging(tmp_path, "0,0-2", head="\ufeffimage_number,age_group")
    assert only(dataset(), aging_csv=csv).excluded
    with pytest.raises(SourceError, match="does not exist"):
        FFHQ(dataset(), Options(aging_csv=tmp_path / "absent.csv"))


@pytest.mark.parametrize("name", ["7", "00007", "00007.png"])
def test_the_exclusion_list_knows_numbers_stems_and_file_names(dataset, name):
    assert only(dataset(names=["00007.png"]), exclude=frozenset([name])).excluded == f"exclusion list names {name}"


def test_memory_does_not_grow_with_the_metadata(tmp_path):
    """The resident peak of two processes that read 500 and 5,000 entries (a real file has 70,000)."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mmtt_build.sources.base import Options\n"
        "from mmtt_build.sources.ffhq import FFHQ\n"
        "assert sum(item.parts is not None for item in FFHQ(Path(sys.argv[1]), Options()).items()) == 1\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for count in (500, 5000):
        root = tmp_path / str(count)
        root.mkdir()
        (root / "00000.png").touch()
        one = json.dumps({**entry(), "in_the_wild": {"face_landmarks": POINTS}})
        (root / METADATA).write_text("{" + ", ".join(f'"{n}": {one}' for n in range(count)) + "}")
        done = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        size_kb = (root / METADATA).stat().st_size // 1024
    assert size_kb > 10_000
    assert peaks[1] - peaks[0] < 4000  # kB


@pytest.mark.shared
def test_the_documented_entry_is_read(shared, dataset):
    text = (shared / "samples/dataset_formats/ffhq-dataset-v2.entry0.json").read_bytes()
    item = only(dataset(text))
    assert item.author == "Jeremy Frumkin"
    assert item.licence.startswith("Attribution-NonCommercial")
    assert item.parts is None


def test_landmark_maps_use_our_classes(dataset, portraits):
    item = next(iter(items(portraits / "ffhq").values()))
    labels = item.parts.load(portraits / "ffhq")
    assert labels.shape == (512, 512)
    assert parts.areas(labels)[parts.INDEX["skin"]] > 20_000


def test_a_licence_named_by_the_user_is_for_images_that_name_none(portraits: Path) -> None:
    licences = {item.licence for item in FFHQ(portraits / "ffhq", Options(licence="mine")).items()}
    assert licences == {"CC0 1.0"}
