from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_workspace import small_workspace

from mmtt_build import images, masks, triplets
from mmtt_build.errors import ReleaseError
from mmtt_build.stages.export import export
from mmtt_build.triplets import Triplets
from mmtt_build.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small_workspace(tmp_path_factory.mktemp("triplets"))
    rows = workspace.annotations.read().to_pylist()
    unanswered = [row | {"answer": "nothing-visible"} for row in rows if row["forgery_id"] == "sdxl-0005"]
    workspace.annotations.append(unanswered)
    return workspace


@pytest.fixture(scope="module")
def release(workspace: Workspace) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mmtt_build.stages.export.SHARD_BYTES", 2_000_000)
        patched.setattr(triplets, "ROW_GROUP_BYTES", 700_000)
        return export(workspace, undescribed=True).path


def test_items_are_what_was_stored(release: Path, workspace: Workspace) -> None:
    made = {row["forgery_id"]: row for row in workspace.forgeries.read().to_pylist()}
    data = Triplets(release)
    assert len(list((release / "data").glob("train-*"))) > 1
    assert len(data) == 9
    seen = set()
    for index in range(len(data)):
        item = data[index]
        stored = made[item["id"]]
        seen.add(item["id"])
        image = images.decode_stored((workspace.root / stored["image"]).read_bytes())
        mask = images.decode_stored((workspace.root / stored["mask"]).read_bytes(), grey=True)
        assert item["image"].dtype == np.uint8 and np.array_equal(item["image"], image)
        assert item["mask"].dtype == np.bool_ and np.array_equal(item["mask"], masks.from_grey(mask))
        assert item["method"] == stored["method"]
        assert item["labels"].dtype == np.uint8 and item["labels"].shape == (21,)
    assert len(seen) == 9


def test_order_is_the_order_of_the_files(release: Path) -> None:
    data = Triplets(release, "train")
    files = sorted((release / "data").glob("train-*"))
    names = [name for path in files for name in pq.read_table(path)["forgery_id"].to_pylist()]
    assert [data[i]["id"] for i in range(9)] == names
    assert [data[i]["id"] for i in (-1, -9, 4)] == [names[8], names[0], names[4]]
    for index in (9, -10):
        with pytest.raises(IndexError):
            data[index]
    assert [item["id"] for item in data] == names  # iteration ends


def test_texts_and_instructions(release: Path) -> None:
    items = {item["id"]: item for item in Triplets(release)}
    item = items["blendswap-0000"]
    assert item["text"] == "The nose of face 0 is blurred, ünnatural." and item["described"]
    assert item["instruction"] == (
        "These facial areas may be manipulated by AI: nose. Please describe the specific issues in these areas."
    )
    bare = items["sdxl-0005"]
    assert bare["text"] == "" and not bare["described"] and not bare["labels"].any()
    assert bare["instruction"] == (
        "Facial areas may be manipulated by AI. Please describe the specific issues in these areas."
    )
    two = triplets.instruction([1, 0, 1] + [0] * 18)
    assert two.startswith("These facial areas may be manipulated by AI: eye, lip. ")


def test_transform_has_the_last_word(release: Path) -> None:
    assert Triplets(release, transform=lambda item: item["image"].shape)[0] == (512, 512, 3)


def test_a_split_that_is_not_there_is_named(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"'dev'[\s\S]*it has test, train, val"):
        Triplets(release, "dev")
    with pytest.raises(ReleaseError, match="name a release folder"):
        Triplets(tmp_path)


def test_only_the_row_group_of_the_row_is_read(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, group: int, **options: object) -> object:
        read.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    data = Triplets(release)
    assert read == []
    rows = [data[i]["id"] for i in (0, 0, 1, 0)]
    assert len(read) == 1 and rows[0] == rows[1] == rows[3] != rows[2]
    data[8]
    assert len(read) == 2


def test_it_can_be_pickled_after_use(release: Path) -> None:
    data = Triplets(release)
    first = data[3]["id"]
    copied = pickle.loads(pickle.dumps(data))
    assert copied[3]["id"] == first and len(copied) == 9
    assert len(pickle.dumps(data)) < 5000  # no pixels travel


def ids(data: Triplets) -> list[str]:
    return [data[i]["id"] for i in range(len(data))]


def test_a_spawned_process_opens_the_files_for_itself(release: Path) -> None:
    data = Triplets(release)
    here = ids(data)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ids, (data,)) == here


def test_tensors(release: Path) -> None:
    torch = pytest.importorskip("torch")
    plain, item = Triplets(release)[2], Triplets(release, torch=True)[2]
    assert item["image"].shape == (3, 512, 512) and item["image"].dtype == torch.float32
    assert torch.equal((item["image"] * 255).round().to(torch.uint8), torch.from_numpy(plain["image"]).permute(2, 0, 1))
    assert item["image"].min() >= 0 and item["image"].max() <= 1
    assert item["mask"].shape == (1, 512, 512) and item["mask"].dtype == torch.float32
    assert torch.equal(item["mask"][0] > 0.5, torch.from_numpy(plain["mask"]))
    assert item["labels"].shape == (21,) and item["labels"].dtype == torch.float32


# The test process has threads (Arrow's, OpenCV's), and forking one that has is what is tested.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_loader_with_two_workers_reads_everything(release: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    triplets = Triplets(release, torch=True)
    expected = ids(triplets)  # used here first, so that open files are there to be inherited
    loader = data.DataLoader(triplets, batch_size=2, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert [name for batch in batches for name in batch["id"]] == expected
    assert batches[0]["image"].shape == (2, 3, 512, 512)
    assert batches[0]["labels"].shape == (2, 21)
    assert len(batches[0]["text"]) == 2


def test_reading_does_not_import_torch(release: Path) -> None:
    script = (
        "import sys; from mmtt_build.triplets import Triplets\n"
        "Triplets(sys.argv[1])[0]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(release)], check=True)
