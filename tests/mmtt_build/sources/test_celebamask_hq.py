from itertools import pairwise

import cv2
import numpy as np
import pytest

from mmtt_build import parts
from mmtt_build.errors import BadImage, SourceError
from mmtt_build.images import decode_rgb, to_size
from mmtt_build.sources.base import Options, PartMasks, describe
from mmtt_build.sources.celebamask_hq import CelebAMaskHQ, known_defects


def items(root, **options):
    return {item.name: item for item in CelebAMaskHQ(root, Options(**options)).items()}


@pytest.fixture
def dataset(tmp_path):
    """Makes a dataset folder of empty files, of which an adapter reads the names only."""

    def make(numbers=(0,), mapping=None, identities=None):
        images = tmp_path / "CelebA-HQ-img"
        images.mkdir()
        for number in numbers:
            (images / f"{number}.jpg").touch()
        if mapping is not None:
            (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(mapping)
        if identities is not None:
            (tmp_path / "identity_CelebA.txt").write_text(identities)
        return tmp_path

    return make


def mapping(*pairs):
    head = "idx        orig_idx   orig_file\n"
    return head + "".join(f"{number:<11}{original - 1:<11}{original:06d}.jpg\n" for number, original in pairs)


def write_mask(path, mask, grey=False):
    pixels = mask.astype(np.uint8) * 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))


def box(top, bottom, left, right, shape=(512, 512)):
    mask = np.zeros(shape, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def load(tmp_path):
    """Writes part masks by name and flattens them as the adapter does."""

    def load(grey=False, **masks):
        files = {}
        for name, mask in masks.items():
            files[name] = tmp_path / f"00000_{name}.png"
            write_mask(files[name], mask, grey)
        return PartMasks(files).load(tmp_path)

    return load


def test_drawn_portraits_come_with_everything_across_a_folder_border(portraits):
    root = portraits / "celebamask-hq"
    found = items(root)
    assert list(found) == ["01998", "01999", "02000", "02001"]
    for name, item in found.items():
        assert item.path.name == f"{int(name)}.jpg"
        labels = item.parts.load(root)
        image = to_size(decode_rgb(item.path.read_bytes()))
        facts = describe(labels, image)
        assert facts["points"][0] > 256 > facts["points"][2]  # the subject's left eye is in the right half
        for left, right in (("l_brow", "r_brow"), ("l_ear", "r_ear")):
            columns = [np.nonzero(parts.select(labels, [part]))[1] for part in (left, right)]
            if all(map(len, columns)):
                assert columns[0].mean() > 256 > columns[1].mean()
        assert item.official_split in {"train", "val", "test"}
        assert item.licence.startswith("CelebAMask-HQ: non-commercial")
    assert {part.parent.name for part in found["01999"].parts.files.values()} == {"0"}
    assert {part.parent.name for part in found["02000"].parts.files.values()} == {"1"}
    assert found["01998"].identity == found["01999"].identity == "celeba-1"
    assert len({item.identity for item in found.values()}) == 3


def test_images_come_in_numeric_order_and_other_files_are_passed_over(dataset):
    root = dataset([10, 9, 2, 29999])
    for name in ("README.txt", "x.jpg", "3.txt", "²5.jpg", "٣.jpg", "-4.jpg", "1.5.jpg"):
        (root / "CelebA-HQ-img" / name).touch()
    assert list(items(root)) == ["00002", "00009", "00010", "29999"]
    assert len(CelebAMaskHQ(root, Options())) == 4


def test_two_files_of_one_number_are_an_error(dataset):
    root = dataset([7])
    (root / "CelebA-HQ-img/00007.png").touch()
    with pytest.raises(SourceError, match=r"two images of number 7: 00007.png and 7.jpg"):
        CelebAMaskHQ(root, Options())


def test_a_folder_that_is_another_dataset_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="has no folder CelebA-HQ-img"):
        CelebAMaskHQ(tmp_path, Options())
    with pytest.raises(SourceError, match="is not a folder"):
        CelebAMaskHQ(tmp_path / "absent", Options())


def test_partition_has_celebas_borders(dataset):
    root = dataset(range(6), mapping(*enumerate([1, 162_770, 162_771, 182_637, 182_638, 202_599])))
    assert [item.official_split for item in items(root).values()] == ["train", "train", "val", "val", "test", "test"]


def test_identities_follow_the_mapping(dataset):
    root = dataset(
        [0, 1, 2, 3], mapping((0, 119_614), (1, 99), (2, 5)), "000099.jpg 2880\n119614.jpg 2880\n000006.jpg 1\n"
    )
    assert [item.identity for item in items(root).values()] == ["celeba-2880", "celeba-2880", None, None]
    assert [item.official_split for item in items(root).values()] == ["train", "train", "train", None]


def test_identities_may_lie_elsewhere(dataset, tmp_path):
    root = dataset([0], mapping((0, 7)))
    elsewhere = tmp_path / "people.txt"
    elsewhere.write_text("000007.jpg 12\n")
    assert items(root, identities=elsewhere)["00000"].identity == "celeba-12"
    with pytest.raises(SourceError, match=r"absent.txt does not exist"):
        items(root, identities=tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"identities": "000007.jpg 12\n"}, "needs CelebA-HQ-to-CelebA-mapping.txt"),
        ({"mapping": "idx orig_idx orig_file\n0 6\n"}, "line 2: '0 6'"),
        ({"mapping": "0 6 seven.jpg\n"}, "line 1: '0 6 seven.jpg'"),
        ({"mapping": mapping((0, 7)), "identities": "000007.jpg 12\n000008.jpg\n"}, "line 2: '000008.jpg'"),
        ({"mapping": mapping((0, 7)), "identities": "000007.jpg twelve\n"}, "line 1: '000007.jpg twelve'"),
    ],
)
def test_damaged_annotation_files_are_named_by_line(dataset, given, message):
    with pytest.raises(SourceError, match=message):
        items(dataset(**given))


def test_an_annotation_file_that_is_no_text_is_named(dataset):
    root = dataset()
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(SourceError, match=r"mapping\.txt is not a text file"):
        items(root)


def test_known_defects_are_left_out_unless_asked_for(dataset):
    root = dataset([234, 235, 404, 500])
    excluded = {name: item.excluded for name, item in items(root).items()}
    assert excluded == {
        "00234": "",
        "00235": "known defect: duplicate of 234",
        "00404": "known defect: mouth and lips missing from the masks",
        "00500": "",
    }
    assert not any(item.excluded for item in items(root, exclude_known_defects=False).values())
    assert 4790 in known_defects()
    assert 234 not in known_defects()


@pytest.mark.parametrize("name", ["500", "500.jpg"])
def test_the_exclusion_list_knows_numbers_and_file_names(dataset, name):
    found = items(dataset([234, 500]), exclude=frozenset([name]))
    assert found["00500"].excluded == f"exclusion list names {name}"
    assert not found["00234"].excluded


@pytest.mark.parametrize("grey", [False, True])
def test_grey_and_rgb_masks_read_the_same(load, grey):
    labels = load(grey, skin=box(100, 400, 100, 400), hair=box(50, 150, 100, 400))
    assert labels[200, 200] == parts.INDEX["skin"]
    assert labels[120, 200] == parts.INDEX["hair"]
    assert parts.areas(labels)[parts.INDEX["hair"]] == 100 * 300


def test_later_classes_lie_on_top_in_the_datasets_order(load):
    whole = box(0, 512, 0, 512)
    names = parts.CLASSES[1:]
    for first, second in pairwise(names):
        labels = load(**{second: whole, first: whole})
        assert np.unique(labels).tolist() == [parts.INDEX[second]]


def test_earring_and_ear_necklace_and_neck_are_told_apart(load):
    labels = load(ear_r=box(0, 10, 0, 10), r_ear=box(20, 30, 0, 10), neck_l=box(40, 50, 0, 10), neck=box(60, 70, 0, 10))
    assert [parts.CLASSES[labels[row, 5]] for row in (5, 25, 45, 65)] == ["ear_r", "r_ear", "neck_l", "neck"]


def test_masks_of_another_size_are_scaled(load):
    small = load(skin=box(50, 200, 50, 200, (256, 256)))
    assert np.array_equal(small > 0, box(100, 400, 100, 400))
    mixed = load(skin=box(100, 400, 100, 400), nose=box(400, 600, 400, 600, (1024, 1024)))
    assert np.array_equal(mixed == parts.INDEX["nose"], box(200, 300, 200, 300))


def test_a_mask_that_cannot_be_one_is_named(load, tmp_path):
    with pytest.raises(BadImage, match=r"part mask 00000_skin.png: part map of 256x200 pixels"):
        load(skin=box(50, 100, 50, 100, (200, 256)))
    files = {"nose": tmp_path / "00000_nose.png"}
    files["nose"].write_bytes(b"")
    with pytest.raises(BadImage, match=r"part mask 00000_nose.png: empty file"):
        PartMasks(files).load(tmp_path)
    files["nose"].unlink()
    files["nose"].symlink_to("/etc/hostname")
    with pytest.raises(BadImage, match=r"part mask 00000_nose.png: path leaves the source folder"):
        PartMasks(files).load(tmp_path)


def test_without_any_mask_file_there_is_no_map(tmp_path):
    assert PartMasks({"skin": tmp_path / "absent.png"}).load(tmp_path) is None


FACE = {
    "skin": box(100, 450, 120, 400),
    "nose": box(220, 300, 240, 272),
    "r_eye": box(200, 215, 170, 210),
    "l_eye": box(200, 215, 300, 340),
    "u_lip": box(340, 352, 210, 300),
    "l_lip": box(352, 366, 210, 300),
}
IMAGE = np.full((512, 512, 3), (200, 150, 120), np.uint8)


def test_facts_of_a_plausible_face(load):
    facts = describe(load(**FACE), IMAGE)
    assert facts["points"] == pytest.approx([319.5, 207, 189.5, 207, 255.5, 259.5, 299, 352.5, 210, 352.5])
    assert facts["part_areas"][parts.INDEX["nose"]] == 80 * 32
    lightness, a, b = facts["skin_lab"]
    assert 60 < lightness < 70
    assert a > 5
    assert b > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r_eye": FACE["l_eye"], "l_eye": FACE["r_eye"]}, "the subject's left eye lies left of the right one"),
        ({"l_eye": box(400, 415, 300, 340)}, "an eye lies below the mouth"),
        ({name: box(0, 0, 0, 0) for name in FACE}, "skin covers 0.0% of the frame"),
        ({"skin": box(100, 110, 100, 110)}, "skin covers 0.0% of the frame"),
        ({"skin": box(0, 512, 0, 512)}, "skin covers 9[0-9.]+% of the frame"),
    ],
)
def test_part_maps_that_cannot_be_a_face_are_refused(load, changes, message):
    with pytest.raises(BadImage, match=message):
        describe(load(**{**FACE, **changes}), IMAGE)


@pytest.mark.parametrize("absent", ["l_eye", "nose"])
def test_a_face_that_lacks_a_part_has_no_points(load, absent):
    assert describe(load(**{n: m for n, m in FACE.items() if n != absent}), IMAGE)["points"] == []


def test_a_mouth_of_any_kind_gives_the_corners(load):
    without = {name: mask for name, mask in FACE.items() if "lip" not in name}
    assert describe(load(**without), IMAGE)["points"] == []
    points = describe(load(**without, mouth=box(340, 360, 220, 290)), IMAGE)["points"]
    assert points[6:] == [289.0, 349.5, 220.0, 349.5]


@pytest.mark.shared
def test_official_demo_samples_have_the_subjects_sides(shared):
    root = shared / "samples/celebamask_hq_demo"
    found = items(root)
    assert list(found) == ["00000", "00001", "00002", "00003"]
    for number, item in enumerate(found.values()):
        labels = item.parts.load(root)
        official = cv2.imread(str(root / f"labels_19/{number}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(labels, official)
        facts = describe(labels, to_size(decode_rgb(item.path.read_bytes())))
        assert facts["points"][0] > 300
        assert facts["points"][2] < 212


@pytest.mark.shared
def test_the_official_mapping_file_is_read(shared, dataset):
    head = (shared / "samples/dataset_formats/CelebA-HQ-to-CelebA-mapping.head.txt").read_text("utf-8")
    root = dataset([0, 1], head)
    assert all(item.official_split for item in items(root).values())
