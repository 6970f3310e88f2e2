"""The packed cache, batches and the order of samples."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from face_maps import ID, draw_labels, drawn_maps, write_pairs
from PIL import Image

from semfaceedit.data import packing
from semfaceedit.data.dataset import (
    MOST_REPEATS,
    FaceDataset,
    flip_labels,
    open_dataset,
    sample_order,
)
from semfaceedit.data.packing import pack_dataset
from semfaceedit.errors import UserError
from semfaceedit.model.labels import FLIP_IDS, GROUP_OF_CLASS, one_hot

pytestmark = pytest.mark.usefixtures("cache")


def random_dataset(count: int = 6, size: int = 16) -> FaceDataset:
    generator = np.random.default_rng(0)
    return FaceDataset(
        images=generator.integers(0, 256, (count, size, size, 3)).astype(np.uint8),
        labels=generator.integers(0, 19, (count, size, size)).astype(np.uint8),
        poses=generator.normal(size=(count, 2)).astype(np.float32),
        names=[str(i) for i in range(count)],
        resolution=size,
        info={},
    )


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


def message(error) -> str:
    text = str(error.value)
    assert "\n" not in text and ": " in text
    return text


@pytest.mark.parametrize("resolution", [16, 8, 2])
def test_batch_is_area_downsampled(resolution):
    dataset = random_dataset()
    batch = dataset.batch([4, 1], [False, False], resolution)
    images = torch.from_numpy(dataset.images[[4, 1]]).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.from_numpy(dataset.labels[[4, 1]])
    expected = torch.nn.functional.avg_pool2d(images, 16 // resolution)
    torch.testing.assert_close(batch.images, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.semantics, one_hot(labels, resolution), atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.poses, torch.from_numpy(dataset.poses[[4, 1]]))
    assert batch.images.dtype == batch.semantics.dtype == batch.poses.dtype == torch.float32
    assert batch.images.is_contiguous() and batch.semantics.is_contiguous()


def test_flipped_samples():
    dataset = random_dataset()
    kept = dataset.batch([2, 3], [False, False], 8)
    both = dataset.batch([2, 3], [False, True], 8)
    torch.testing.assert_close(both.images[0], kept.images[0])
    torch.testing.assert_close(both.images[1], kept.images[1].flip(-1))
    torch.testing.assert_close(both.semantics[0], kept.semantics[0])
    torch.testing.assert_close(both.semantics[1], kept.semantics[1].flip(-1)[FLIP_IDS.tolist()])
    torch.testing.assert_close(both.poses[1], kept.poses[1] * torch.tensor([-1.0, 1.0]))


def test_flip_moves_the_left_eye_to_the_right_id():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 1, 3] = ID["l_eye"]
    flipped = flip_labels(labels)
    assert flipped[0, 1, 0] == ID["r_eye"] and (flipped > 0).sum() == 1


def test_flipping_twice_is_the_identity():
    labels = random_dataset().labels
    np.testing.assert_array_equal(flip_labels(flip_labels(labels)), labels)


def test_unknown_poses_stay_unknown():
    dataset = random_dataset()
    dataset.poses[:] = np.nan
    assert dataset.batch([0, 1], [False, True], 16).poses.isnan().all()


def test_batch_leaves_the_arrays_alone():
    dataset = random_dataset()
    before = dataset.images.copy(), dataset.labels.copy(), dataset.poses.copy()
    dataset.batch([0, 1], [True, True], 8).images.zero_()
    for array, copy in zip((dataset.images, dataset.labels, dataset.poses), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("resolution", [0, 3, 32])
def test_batch_refuses_resolutions_that_do_not_divide(resolution):
    with pytest.raises(ValueError, match="does not divide"):
        random_dataset().batch([0], [False], resolution)


def test_every_epoch_is_a_permutation():
    indices, flips = sample_order(3, np.ones(7), 0, 21)
    for epoch in range(3):
        assert sorted(indices[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert len(np.unique(indices.reshape(3, 7), axis=0)) == 3
    assert flips.dtype == bool and 0 < flips.sum() < 21


@pytest.mark.parametrize("start", [0, 5, 13, 700])
@pytest.mark.parametrize("repeats", [np.ones(7), np.array([1, 2.4, 1, 8, 1.5, 1, 1])])
def test_order_depends_on_the_position_only(start, repeats):
    indices, flips = sample_order(1, repeats, 0, 760)
    part, part_flips = sample_order(1, repeats, start, 60)
    np.testing.assert_array_equal(part, indices[start : start + 60])
    np.testing.assert_array_equal(part_flips, flips[start : start + 60])


def test_seeds_give_different_orders():
    one, other = (sample_order(seed, np.ones(50), 0, 50)[0] for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_half_of_the_samples_are_flipped():
    assert abs(sample_order(0, np.ones(1000), 0, 10_000)[1].mean() - 0.5) < 0.02


def test_an_epoch_repeats_faces_as_asked():
    repeats = np.array([1, 2.5, 1, 4, 1.25])  # 9.75: epochs of 10
    epochs = sample_order(2, repeats, 0, 4000)[0].reshape(400, 10)
    counts = np.stack([np.bincount(epoch, minlength=5) for epoch in epochs])
    wanted = repeats * 10 / 9.75
    assert (counts >= np.floor(wanted)).all() and (counts <= np.ceil(wanted)).all()
    assert counts.min() == 1
    np.testing.assert_allclose(counts.mean(0), wanted, atol=0.1)  # 4 standard errors at most


def test_faces_of_rare_classes_are_repeated():
    dataset = random_dataset(count=10)
    dataset.labels[:] = ID["skin"]
    dataset.labels[3, 5, 5] = dataset.labels[4, 0, 1] = ID["eye_g"]  # a fifth of the faces
    dataset.labels[4, 2, 2] = ID["hat"]  # a tenth
    dataset.labels[:6, 9] = ID["ear_r"]  # common enough
    expected = np.ones(10)
    expected[3], expected[4] = 0.5 / 0.2, 0.5 / 0.1
    np.testing.assert_allclose(dataset.repeats(0.5), expected)
    np.testing.assert_array_equal(dataset.repeats(0), np.ones(10))
    assert dataset.repeats(1).max() == MOST_REPEATS


def test_the_order_refuses_faces_that_never_come():
    with pytest.raises(ValueError, match="repeats"):
        sample_order(0, np.array([1, 0.5]), 0, 4)


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff")
    dataset = open_dataset(write_pairs(tmp_path / "faces", {name: draw_labels(64)}), resolution=32)
    assert dataset.names == [name]


def test_second_opening_decodes_nothing(tmp_path, cache, monkeypatch):
    root = write_pairs(tmp_path / "faces", drawn_maps())
    before = tree(root)
    first = open_dataset(root, resolution=32)
    assert tree(root) == before  # the source is only read
    assert [path.name.split("-")[:2] for path in cache.iterdir()] == [["faces", "32"]]
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    second = open_dataset(root, resolution=32)
    np.testing.assert_array_equal(first.images, second.images)
    assert isinstance(second.images, np.memmap) and not second.images.flags.writeable


def test_changed_source_makes_a_new_cache(tmp_path, cache):
    root = write_pairs(tmp_path / "faces", drawn_maps())
    open_dataset(root, resolution=32)
    open_dataset(root, resolution=16)
    assert len(list(cache.iterdir())) == 2
    os.utime(root / "masks" / "face1.png", ns=(1, 1))
    open_dataset(root, resolution=32)
    assert len(list(cache.iterdir())) == 3


def test_given_cache_folder_follows_the_source(tmp_path):
    root, packed = write_pairs(tmp_path / "faces", drawn_maps(2)), tmp_path / "packed"
    assert len(open_dataset(root, resolution=32, cache=packed)) == 2
    write_pairs(root, drawn_maps(3))
    assert len(open_dataset(root, resolution=32, cache=packed)) == 3
    assert len(open_dataset(packed, resolution=16)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "packed"]


def test_dataset_json(tmp_path):
    dataset = open_dataset(write_pairs(tmp_path / "faces", drawn_maps()), resolution=32)
    info = dataset.info
    assert info["format"] == "semfaceedit-packed" and info["version"] == 1
    assert tuple(info["group_of_class"]) == GROUP_OF_CLASS and info["count"] == 3
    data = np.ascontiguousarray(dataset.images).tobytes()
    assert info["sha256"]["images.npy"] == hashlib.sha256(data).hexdigest()


def test_pack_takes_other_sources(tmp_path):
    source = random_dataset()
    items = zip(source.names, source.images, source.labels, source.poses, strict=True)
    pack_dataset(items, 6, 16, tmp_path / "packed", {"layout": "procedural"})
    dataset = open_dataset(tmp_path / "packed", resolution=8)
    for name in ("images", "labels", "poses"):
        np.testing.assert_array_equal(getattr(dataset, name), getattr(source, name))
    assert dataset.names == source.names and dataset.info["layout"] == "procedural"


def packed_folder(tmp_path: Path) -> Path:
    root = write_pairs(tmp_path / "faces", drawn_maps())
    open_dataset(root, resolution=32, cache=tmp_path / "packed")
    return tmp_path / "packed"


def test_packed_at_another_resolution(tmp_path):
    folder = packed_folder(tmp_path)
    assert open_dataset(folder, resolution=16).resolution == 32
    with pytest.raises(UserError) as error:
        open_dataset(folder, resolution=64)
    assert folder.name in message(error) and "--resolution 64" in message(error)


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "version", "mismatch"])
def test_damaged_packed_folder(tmp_path, damage):
    folder = packed_folder(tmp_path)
    path = folder / "labels.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "mismatch":
        np.save(path, np.zeros((2, 32, 32), np.uint8))
    else:
        info = json.loads((folder / "dataset.json").read_text()) | {"version": 99}
        (folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(UserError) as error:
        open_dataset(folder, resolution=32)
    assert folder.name in message(error)


def test_full_disk_is_seen_before_the_work(tmp_path, cache, monkeypatch):
    root = write_pairs(tmp_path / "faces", drawn_maps())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    with pytest.raises(UserError) as error:
        open_dataset(root, resolution=32)
    assert str(cache) in message(error) and "no space left" in message(error)


def test_disk_that_fills_up_keeps_the_older_packed_data(tmp_path, monkeypatch):
    source, out = random_dataset(), tmp_path / "packed"

    def items():
        return zip(source.names, source.images, source.labels, source.poses, strict=True)

    pack_dataset(items(), 6, 16, out, {})
    before = tree(tmp_path)
    append = packing._ArrayWriter.append
    calls = []

    def fill_up(self, item):
        calls.append(1)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, item)

    monkeypatch.setattr(packing._ArrayWriter, "append", fill_up)
    with pytest.raises(UserError) as error:
        pack_dataset(items(), 6, 16, out, {})
    assert str(out) in message(error) and "no space left" in message(error)
    assert tree(tmp_path) == before


def test_pack_refuses_folders_of_others(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is not packed data"):
        pack_dataset(iter(()), 0, 16, tmp_path, {})
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_cache_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "packed", tmp_path / "file" / "deeper" / "packed"):
        with pytest.raises(UserError) as error:
            pack_dataset(iter(()), 0, 16, out, {})
        assert f"{out}: cannot be written" in message(error)


PACK_AND_DIE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from semfaceedit.data import packing
out, place = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    print("there", flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if place != "wait" else sys.stdin.read()
if place == "between":
    replace = os.replace
    packing.os.replace = lambda source, target: (replace(source, target), die())
def items():
    yield "a", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), np.zeros(2, np.float32)
    if place != "between":
        die()
packing.pack_dataset(items(), 1, 8, out, {})
"""


def pack_and_die(out: Path, place: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", PACK_AND_DIE, str(out), place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "there\n"
    return process


def pack_drawn(out: Path) -> None:
    source = random_dataset()
    items = zip(source.names, source.images, source.labels, source.poses, strict=True)
    pack_dataset(items, 6, 16, out, {})


def test_what_a_killed_process_left_is_removed(tmp_path):
    out, other = tmp_path / "packed", tmp_path / ".packed.12345678"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pack_and_die(out, "wait") as working, pack_and_die(out, "while") as killed:
        killed.wait()
        assert len(list(tmp_path.glob(".packed.*"))) == 3
        pack_drawn(out)
        assert len(list(tmp_path.glob(".packed.*"))) == 2  # the living process keeps its own
        working.communicate("")
    assert working.returncode == 0 and len(open_dataset(out, resolution=8)) == 1
    assert sorted(tmp_path.iterdir()) == [other, out]


def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    out = tmp_path / "packed"
    pack_drawn(out)
    with pack_and_die(out, "between") as killed:
        killed.wait()
    assert not out.exists()
    monkeypatch.setattr(packing, "_check_space", lambda *_: pytest.fail("stopped here"))
    with pytest.raises(pytest.fail.Exception):
        pack_drawn(out)
    assert len(open_dataset(out, resolution=16)) == 6 and list(tmp_path.iterdir()) == [out]


def test_interrupted_packing_leaves_nothing(tmp_path):
    source = random_dataset()

    def items():
        yield source.names[0], source.images[0], source.labels[0], source.poses[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(items(), 6, 16, tmp_path / "packed", {})
    assert not list(tmp_path.iterdir())
