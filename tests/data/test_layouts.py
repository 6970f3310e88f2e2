"""Source folders: what is paired with what, how it is decoded, and bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from face_maps import ID, draw_labels, drawn_maps, paint, write_native, write_pairs
from PIL import Image

from semfaceedit.data import decoding
from semfaceedit.data.dataset import open_dataset
from semfaceedit.data.decoding import merge_parts, read_image, read_label_map
from semfaceedit.data.layouts import BAD_MASKS, POSE_TABLE, find_source
from semfaceedit.errors import UserError
from semfaceedit.model.camera import CELEBAMASKHQ_PITCH
from semfaceedit.model.labels import FLIP_IDS, PALETTE

TABLE = "2\nYaw Pitch Raw\n"


pytestmark = pytest.mark.usefixtures("cache")


def message(error) -> str:
    text = str(error.value)
    assert "\n" not in text and ": " in text
    return text


@pytest.mark.parametrize("palette", [True, False])
def test_id_map_pairs(tmp_path, palette):
    maps = drawn_maps()
    root = write_pairs(tmp_path / "faces", maps, palette=palette)
    dataset = open_dataset(root, resolution=64, align=False)
    assert dataset.names == sorted(maps)
    np.testing.assert_array_equal(dataset.labels, np.stack([maps[n] for n in dataset.names]))
    difference = np.abs(dataset.images.astype(int) - paint(np.asarray(dataset.labels)))
    assert (difference.max(-1) < 64).mean() > 0.97  # all but Lanczos ringing at borders
    assert dataset.info["pose_source"] == ["landmarks"] * 3
    np.testing.assert_allclose(dataset.poses[:, 0], [-0.2, 0, 0.2], atol=0.08)


def test_native_layout_gives_back_the_maps(tmp_path):
    maps = {7: draw_labels(64), 2003: draw_labels(64, 0.3)}
    root = write_native(tmp_path / "faces", maps)
    dataset = open_dataset(root, resolution=64, align=False)
    assert dataset.names == ["7", "2003"]
    np.testing.assert_array_equal(dataset.labels, np.stack(list(maps.values())))
    assert dataset.info["layout"] == "celebamask-hq"


def test_other_spelling_of_the_native_folder(tmp_path):
    root = write_native(tmp_path / "faces", {0: draw_labels(64)})
    (root / "CelebAMask-HQ-mask-anno").rename(root / "CelebAMaskHQ-mask-anno")
    assert len(open_dataset(root, resolution=32)) == 1


def test_later_parts_paint_over_earlier_ones(tmp_path):
    parts = {"skin": (0, 12), "nose": (4, 8), "hair": (6, 16)}
    paths = []
    for name, (first, last) in parts.items():
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, first:last, 2] = 1  # any channel, any value
        paths.append(tmp_path / f"00000_{name}.png")
        Image.fromarray(picture).save(paths[-1])
    row = [1] * 4 + [2] * 2 + [13] * 10
    np.testing.assert_array_equal(merge_parts(reversed(paths)), np.array([row] * 16))


def test_part_modes(tmp_path):
    """Parts are read alike from RGB, RGBA, grey, palette and one-bit files."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 1:7] = 255
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        path = tmp_path / "00000_hair.png"
        Image.fromarray(mask).convert(mode).save(path)
        np.testing.assert_array_equal(merge_parts([path]) == ID["hair"], mask > 0, err_msg=mode)


def test_synthetic_layout_is_not_aligned_and_has_exact_poses(tmp_path):
    maps = {i: FLIP_IDS.astype(np.uint8)[draw_labels(64, 0.1 * i)] for i in range(3)}
    root = write_native(tmp_path / "faces", maps, image_size=64)
    poses = np.array([(0.1 * i, -0.05) for i in range(3)], np.float32)
    np.save(root / "poses.npy", poses)
    (root / "dataset.json").write_text(json.dumps({"format": "semfaceedit-synthetic"}))
    dataset = open_dataset(root, resolution=64)
    np.testing.assert_array_equal(dataset.poses, poses)
    np.testing.assert_array_equal(dataset.labels, np.stack(list(maps.values())))
    assert dataset.info["pose_source"] == ["exact"] * 3 and not dataset.info["aligned"]


def test_poses_join_the_table_by_number(tmp_path):
    root = write_native(tmp_path / "faces", {4: draw_labels(64), 5: draw_labels(64)})
    (root / POSE_TABLE).write_text(TABLE + "4.jpg 10.0 5.0 1.0\n")
    dataset = open_dataset(root, resolution=32)
    assert dataset.info["pose_source"] == ["table", "landmarks"]
    np.testing.assert_allclose(
        np.degrees(dataset.poses[0]), [-10, 5 + CELEBAMASKHQ_PITCH], atol=1e-4
    )


def test_known_bad_masks_are_skipped_and_recorded(tmp_path):
    bad = BAD_MASKS[0]
    root = write_native(tmp_path / "faces", {bad: draw_labels(64), 5: draw_labels(64)})
    # Numbers that are not the data set's own say nothing about a mask.
    assert len(find_source(root).faces) == 2
    (root / POSE_TABLE).write_text(TABLE)
    dataset = open_dataset(root, resolution=32)
    assert dataset.names == ["5"] and dataset.info["skipped"] == {str(bad): "known bad mask"}
    assert len(open_dataset(root, resolution=32, keep_bad_masks=True)) == 2
    pairs = write_pairs(tmp_path / "pairs", {f"{bad:05d}": draw_labels(64), "5": draw_labels(64)})
    assert len(find_source(pairs).faces) == 2
    (pairs / POSE_TABLE).write_text(TABLE)
    source = find_source(pairs)
    assert [face.name for face in source.faces] == ["5"]
    assert source.skipped == {f"{bad:05d}": "known bad mask"}
    assert len(find_source(pairs, keep_bad_masks=True).faces) == 2


def test_color_label_pictures(tmp_path):
    labels = draw_labels(64)
    colors = paint(labels)
    colors[labels == ID["r_brow"]] = (51, 255, 255)  # a variant in circulation
    for name, picture in (("color", colors), ("grey", np.repeat(labels[..., None], 3, -1))):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_label_map(tmp_path / f"{name}.png"), labels)


def test_palettes_in_another_order_are_read_by_color(tmp_path):
    """Picture editors drop and reorder the entries of a palette when they save."""
    labels = draw_labels(64)
    order = np.unique(labels)[::-1]
    picture = Image.fromarray(np.searchsorted(-order.astype(int), -labels.astype(int)).astype("u1"))
    picture.putpalette(PALETTE[order].tobytes())
    picture.save(tmp_path / "edited.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "edited.png"), labels)
    for palette in (bytes(768), np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()):
        picture = Image.fromarray(labels)
        picture.putpalette(palette)  # of no class: the numbers are the ids
        picture.save(tmp_path / "plain.png")
        np.testing.assert_array_equal(read_label_map(tmp_path / "plain.png"), labels)


def test_photographs_of_16_bits(tmp_path):
    grey = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    values = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(values, np.repeat([[[0], [0], [1], [255]]], 3, -1))
    for kind in (np.int32, np.float32):
        Image.fromarray(grey.astype(kind)).save(tmp_path / "grey.tif")
        with pytest.raises(UserError) as error:
            read_image(tmp_path / "grey.tif")
        assert "grey.tif: its pixels have 32 bits" in message(error)
        Image.fromarray(grey.astype(kind)).save(tmp_path / "00000_hair.tif")
        assert (merge_parts([tmp_path / "00000_hair.tif"]) == [[0, 13, 13, 13]]).all()


def test_photographs_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 20, 20))  # blue on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise to view
    picture.save(tmp_path / "phone.png", exif=exif)
    upright = read_image(tmp_path / "phone.png")
    assert upright.shape == (40, 20, 3)
    assert tuple(upright[5, 10]) == (0, 0, 255) and tuple(upright[35, 10]) == (255, 0, 0)
    Image.new("LA", (4, 4), (7, 255)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.full((4, 4, 3), 7))


def test_exchanged_sides_are_set_straight(tmp_path):
    maps = drawn_maps()
    maps["face1"] = FLIP_IDS.astype(np.uint8)[maps["face1"]]
    dataset = open_dataset(write_pairs(tmp_path / "faces", maps), resolution=64, align=False)
    assert dataset.info["sides_exchanged"] == ["face1"]
    np.testing.assert_array_equal(dataset.labels[1], draw_labels(64))


def test_faces_without_landmarks_are_kept(tmp_path):
    maps = drawn_maps(2) | {"blank": np.ones((64, 64), np.uint8)}
    dataset = open_dataset(write_pairs(tmp_path / "faces", maps), resolution=32)
    assert dataset.names == ["blank", "face0", "face1"]
    assert dataset.info["crop"] == ["centre", "eyes", "eyes"]
    assert np.isnan(dataset.poses[0]).all() and np.isfinite(dataset.poses[1:]).all()


def test_numbers_that_are_no_decimals_are_names(tmp_path):
    root = write_pairs(tmp_path / "faces", {"²": draw_labels(64)})
    assert [face.name for face in find_source(root).faces] == ["²"]


def break_image(root: Path) -> str:
    path = root / "images" / "face1.png"
    path.unlink()
    path = path.with_suffix(".jpg")
    Image.fromarray(paint(draw_labels(128))).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    return "face1.jpg"


def break_mask_ids(root: Path) -> str:
    labels = draw_labels(64)
    labels[0, 0] = 19
    Image.fromarray(labels).save(root / "masks" / "face1.png")
    return "face1.png: holds the label 19"


def break_aspect(root: Path) -> str:
    Image.fromarray(draw_labels(64)[:48]).save(root / "masks" / "face1.png")
    return "face1.png: 64x48"


def break_mask_color(root: Path) -> str:
    picture = paint(draw_labels(64))
    picture[0, 0] = (100, 2, 3)
    Image.fromarray(picture).save(root / "masks" / "face1.png")
    return "face1.png: the colour (100, 2, 3) at x 0, y 0"


def remove_mask(root: Path) -> str:
    (root / "masks" / "face1.png").unlink()
    return "face1.png: has no mask"


def remove_image(root: Path) -> str:
    (root / "images" / "face1.png").unlink()
    return "face1.png: has no image"


def two_images(root: Path) -> str:
    shutil.copy(root / "images" / "face1.png", root / "images" / "face1.webp")
    return "face1.webp: face1.png has the same name"


def broken_link(root: Path) -> str:
    path = root / "images" / "face1.png"
    path.unlink()
    path.symlink_to(root / "nowhere.png")
    return "face1.png: cannot be read (No such file"


def no_pairs(root: Path) -> str:
    for path in [*root.glob("images/*"), *root.glob("masks/*")]:
        path.unlink()
    return "faces: holds no pairs"


def no_masks(root: Path) -> str:
    shutil.rmtree(root / "masks")
    return "faces: has images/ but none of masks/"


def no_layout(root: Path) -> str:
    shutil.rmtree(root / "images")
    return "faces: no known layout"


def no_folder(root: Path) -> str:
    shutil.rmtree(root)
    return "faces: no such folder"


BREAKS = [
    break_image, break_mask_ids, break_aspect, break_mask_color, remove_mask, remove_image,
    two_images, broken_link, no_pairs, no_masks, no_layout, no_folder,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_bad_pairs(tmp_path, cache, damage):
    root = write_pairs(tmp_path / "faces", drawn_maps())
    expected = damage(root)
    with pytest.raises(UserError) as error:
        open_dataset(root, resolution=32)
    assert expected in message(error)
    assert not cache.exists() or not list(cache.iterdir())  # nothing half-made stays behind


def native_without_parts(root: Path) -> str:
    for path in root.glob("CelebAMask-HQ-mask-anno/0/00001_*"):
        path.unlink()
    return "1.jpg: has no mask"


def native_without_image(root: Path) -> str:
    (root / "CelebA-HQ-img" / "1.jpg").unlink()
    return "00001_skin.png: has no image"


def native_with_a_stray_part(root: Path) -> str:
    folder = root / "CelebAMask-HQ-mask-anno" / "0"
    shutil.copy(folder / "00001_skin.png", folder / "00001_beard.png")
    return "00001_beard.png: not a part file"


def native_with_parts_of_two_sizes(root: Path) -> str:
    path = root / "CelebAMask-HQ-mask-anno" / "0" / "00001_hair.png"
    Image.open(path).resize((32, 32)).save(path)
    return "00001_hair.png: 32x32"


def native_without_masks(root: Path) -> str:
    shutil.rmtree(root / "CelebAMask-HQ-mask-anno")
    return "no CelebAMask-HQ-mask-anno/"


def native_with_a_name(root: Path) -> str:
    (root / "CelebA-HQ-img" / "1.jpg").rename(root / "CelebA-HQ-img" / "anna.jpg")
    return "anna.jpg: the name is not a number"


def native_with_no_whole_number(root: Path) -> str:
    (root / "CelebA-HQ-img" / "1.jpg").rename(root / "CelebA-HQ-img" / "1².jpg")
    return "1².jpg: the name is not a number"


def native_with_one_number_twice(root: Path) -> str:
    shutil.copy(root / "CelebA-HQ-img" / "1.jpg", root / "CelebA-HQ-img" / "00001.png")
    return "1.jpg: 00001.png has the same number"


def native_with_a_part_of_no_number(root: Path) -> str:
    folder = root / "CelebAMask-HQ-mask-anno" / "0"
    (folder / "00001_skin.png").rename(folder / "0000²_skin.png")
    return "0000²_skin.png: not a part file"


def native_with_a_table_of_bytes(root: Path) -> str:
    (root / POSE_TABLE).write_bytes(b"\xff\xfe\n\n")
    return f"{POSE_TABLE}: cannot be read"


def native_with_a_broken_table(root: Path) -> str:
    (root / POSE_TABLE).write_text(TABLE + "0.jpg 1.0\n")
    return f"{POSE_TABLE}: line 3"


def synthetic_without_poses(root: Path) -> str:
    (root / "dataset.json").write_text(json.dumps({"format": "semfaceedit-synthetic"}))
    return "poses.npy: cannot be read"


def synthetic_with_too_few_poses(root: Path) -> str:
    synthetic_without_poses(root)
    np.save(root / "poses.npy", np.zeros((1, 2), np.float32))
    return "poses.npy: shape (1, 2)"


def synthetic_with_empty_poses(root: Path) -> str:
    synthetic_without_poses(root)
    (root / "poses.npy").write_bytes(b"")
    return "poses.npy: cannot be read"


def synthetic_without_an_end(root: Path) -> str:
    np.save(root / "poses.npy", np.zeros((2, 2), np.float32))
    document = {"format": "semfaceedit-synthetic", "complete": False}
    (root / "dataset.json").write_text(json.dumps(document))
    return "faces: `synthesize` was stopped before it had finished"


NATIVE_BREAKS = [
    native_without_parts, native_without_image, native_with_a_stray_part,
    native_with_parts_of_two_sizes, native_without_masks, native_with_a_name,
    native_with_no_whole_number, native_with_one_number_twice, native_with_a_part_of_no_number,
    native_with_a_table_of_bytes, native_with_a_broken_table, synthetic_without_poses,
    synthetic_with_too_few_poses, synthetic_with_empty_poses, synthetic_without_an_end,
]  # fmt: skip


@pytest.mark.parametrize("damage", NATIVE_BREAKS, ids=lambda damage: damage.__name__)
def test_bad_native_data(tmp_path, damage):
    root = write_native(tmp_path / "faces", {0: draw_labels(64), 1: draw_labels(64)})
    expected = damage(root)
    with pytest.raises(UserError) as error:
        open_dataset(root, resolution=32)
    assert expected in message(error)


def test_native_files_merge_to_their_label_maps(real_faces):
    root = real_faces / "native_layout_derived"
    source = find_source(root)
    lines = (root / "index.tsv").read_text().splitlines()[1:]
    origins = dict(line.split("\t") for line in lines)
    assert len(source.faces) == 11
    for face in source.faces:
        folder, _, name = origins[face.name].rpartition("/")
        origin = read_label_map(real_faces / folder / "masks" / f"{name}.png")
        np.testing.assert_array_equal(merge_parts(face.masks), origin)


def test_color_pictures_match_their_index_maps(real_faces):
    root = real_faces / "sean_celebahq256"
    for path in sorted((root / "labels_color").iterdir()):
        labels = read_label_map(path)
        assert PALETTE[labels].shape == (*labels.shape, 3)
        index = read_label_map(root / "labels_index" / f"{path.stem}.png")
        if labels.shape == index.shape:
            np.testing.assert_array_equal(labels, index)


def test_tables_and_maps_join_on_real_files(real_faces, tmp_path):
    root = tmp_path / "sean"
    shutil.copytree(real_faces / "sean_celebahq256/images", root / "images")
    shutil.copytree(real_faces / "sean_celebahq256/labels_index", root / "labels_index")
    shutil.copy(real_faces / "celebamaskhq_meta" / POSE_TABLE, root)
    dataset = open_dataset(root, resolution=64)
    assert dataset.info["pose_source"] == ["table"] * 7 and dataset.info["crop"] == ["eyes"] * 7


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_huge_photographs_are_read_smaller(tmp_path, monkeypatch, suffix):
    """Left half red, right half blue, stored on its side: 6 times too large for one piece."""
    upright = np.zeros((120, 80, 3), np.uint8)
    upright[:, :40, 0] = upright[:, 40:, 2] = 250
    stored = Image.fromarray(np.rot90(upright).copy())
    exif = stored.getexif()
    exif[274] = 6  # turn by 90 degrees clockwise
    path = tmp_path / f"large.{suffix}"
    stored.save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    monkeypatch.setattr(decoding, "MOST_PIXELS", 1600)
    small = read_image(path)
    height = {"jpg": 30, "png": 40}[suffix]  # JPEG decodes at halves and quarters
    assert small.shape == (height, -(-height * 2 // 3), 3)
    assert small[15, 4, 0] > 200 > 60 > small[15, 4, 2]
    assert small[15, -5, 2] > 200 > 60 > small[15, -5, 0]
    monkeypatch.setattr(decoding, "LARGEST_PICTURE", 9000)
    with pytest.raises(UserError, match="large.*: 120x80 pixels are more than 0 million"):
        read_image(path)


def test_pillows_own_limit_is_left_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "plain.png"
    Image.new("RGB", (20, 20)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_image(path).shape == (20, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == 50
