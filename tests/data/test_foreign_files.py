"""Files as people bring them: other orders of ids, several faces, EXIF, alpha, blurred maps, names
in two Unicode forms, archives; each is read right, or refused with the way out."""

import shutil
import struct
import sys
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from face_maps import ID, draw_labels, paint, write_native, write_pairs
from PIL import Image

from semfaceedit import prepare
from semfaceedit.data.dataset import open_dataset
from semfaceedit.data.decoding import read_image, read_label_map
from semfaceedit.data.landmarks_file import landmarks_of, read_points
from semfaceedit.data.layouts import SourcePair, find_source
from semfaceedit.data.mask_checks import BISENET_NAMES, blurred, wrong_order
from semfaceedit.data.preparation import locate
from semfaceedit.data.several_faces import face_centres
from semfaceedit.editing.target import read_edited_labels, read_target
from semfaceedit.errors import UserError
from semfaceedit.model.labels import CLASS_NAMES, PALETTE

BISENET_ID = np.array([BISENET_NAMES.index(name) for name in CLASS_NAMES], np.uint8)
LABELS = draw_labels(128)


pytestmark = pytest.mark.usefixtures("cache")


def save(path: Path, values: np.ndarray, **settings) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.ascontiguousarray(values)).save(path, **settings)
    return path


def said(function, *arguments, **settings) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    text = str(error.value)
    assert "\n" not in text
    return text


def pair(folder: Path, labels: np.ndarray = LABELS) -> tuple[Path, Path]:
    return save(folder / "photo.png", paint(labels)), save(folder / "mask.png", labels)


# Ids in another order


def test_bisenet_ids_are_named_and_can_be_told(tmp_path):
    photo, mask = pair(tmp_path)
    right = read_target(photo, mask, 64)
    other = save(tmp_path / "bisenet.png", BISENET_ID[LABELS])
    text = said(read_target, photo, other, 64)
    assert "bisenet.png" in text and "--mask-order bisenet" in text
    told = read_target(photo, other, 64, mask_order="bisenet")
    np.testing.assert_array_equal(told.labels, right.labels)
    np.testing.assert_allclose(told.pose, right.pose)
    assert "--mask-order" in said(read_edited_labels, other, 128, None)


def test_a_set_in_bisenet_order(tmp_path, capsys):
    maps = {f"f{i}": draw_labels(64, 0.2 * (i - 1)) for i in range(3)}
    root = write_pairs(tmp_path / "d", {n: BISENET_ID[m] for n, m in maps.items()}, palette=False)
    command = ["--data", str(root), "--out", str(tmp_path / "p"), "--resolution", "64",
               "--no-align"]  # fmt: skip
    assert prepare.main(command) == 1
    assert "2 more of 3 maps looked at" in capsys.readouterr().err
    assert prepare.main([*command, "--mask-order", "bisenet"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "p" / "labels.npy"), list(maps.values()))


def test_one_odd_map_of_a_set_is_named(tmp_path, capsys):
    maps = {f"f{i}": draw_labels(64, 0.05 * i) for i in range(9)}
    maps["odd"] = BISENET_ID[LABELS[::2, ::2]]
    root = write_pairs(tmp_path / "d", maps, palette=False)
    assert prepare.main(["--data", str(root), "--out", str(tmp_path / "p"), "--resolution", "16",
                         "--no-preview"]) == 0  # fmt: skip
    assert "maps that look wrong: odd" in capsys.readouterr().err


@pytest.mark.parametrize("yaw", [-0.5, 0.0, 0.5])
def test_right_ids_are_not_doubted(yaw):
    for hidden in ((), ("l_eye", "r_eye"), ("nose",), ("u_lip", "l_lip")):
        labels = draw_labels(128, yaw, 0.2, hidden)
        assert not wrong_order(labels) and not blurred(labels)
        assert wrong_order(BISENET_ID[draw_labels(128, yaw)])


@pytest.mark.parametrize("size", [96, 64, 200])
def test_interpolated_maps_are_refused(tmp_path, size):
    photo, _ = pair(tmp_path)
    small = Image.fromarray(LABELS).resize((size, size), Image.Resampling.BILINEAR)
    mask = save(tmp_path / "bilinear.png", np.asarray(small))
    assert "nearest neighbour" in said(read_target, photo, mask, 64)
    sharp = Image.fromarray(LABELS).resize((size, size), Image.Resampling.NEAREST)
    assert not blurred(np.asarray(sharp))


# Colours


def reordered(extra: tuple[int, int, int]) -> Image.Image:
    order = np.unique(LABELS)[::-1]
    index = np.searchsorted(-order.astype(int), -LABELS.astype(int)).astype(np.uint8)
    index[:12, 40:88] = len(order)
    picture = Image.fromarray(index)
    picture.putpalette(np.concatenate([PALETTE[order], [extra]]).astype(np.uint8).tobytes())
    return picture


def test_a_reordered_palette_with_one_more_color(tmp_path):
    path = tmp_path / "reordered.png"
    reordered((0, 0, 200)).save(path)  # nearly hair
    wanted = LABELS.copy()
    wanted[:12, 40:88] = ID["hair"]
    np.testing.assert_array_equal(read_label_map(path), wanted)
    reordered((90, 90, 90)).save(path)
    text = said(read_label_map, path)
    assert "(90, 90, 90) at x 40, y 0" in text and "576 pixels" in text


def test_nearly_right_colors_snap_and_others_are_counted(tmp_path):
    colors = paint(LABELS)
    colors[0, 0] = (0, 0, 1)
    np.testing.assert_array_equal(read_label_map(save(tmp_path / "a.png", colors)), LABELS)
    smooth = Image.fromarray(paint(LABELS)).resize((64, 64), Image.Resampling.BOX)
    text = said(read_label_map, save(tmp_path / "smooth.png", np.asarray(smooth)))
    assert "antialiasing" in text and " pixels with such colours" in text and "at x " in text


def test_transparent_pixels_of_a_map_are_background(tmp_path):
    wanted = np.where(LABELS == ID["hair"], 0, LABELS)
    opaque = np.where(LABELS == ID["hair"], 0, 255).astype(np.uint8)
    erased = save(tmp_path / "erased.png", np.dstack([paint(LABELS), opaque]))
    np.testing.assert_array_equal(read_label_map(erased), wanted)
    grey = save(tmp_path / "grey.png", np.dstack([LABELS, opaque]))
    np.testing.assert_array_equal(read_label_map(grey), wanted)
    picture = Image.fromarray(LABELS)
    picture.putpalette(PALETTE.tobytes())
    picture.save(tmp_path / "palette.png", transparency=ID["hair"])
    np.testing.assert_array_equal(read_label_map(tmp_path / "palette.png"), wanted)


def test_what_is_transparent_in_a_photograph_is_white(tmp_path):
    hidden = np.full((4, 4, 4), (255, 0, 255, 0), np.uint8)
    hidden[0] = (10, 20, 30, 255)
    image = read_image(save(tmp_path / "cutout.png", hidden))
    assert (image[0] == (10, 20, 30)).all() and (image[1:] == 255).all()


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (2.5, "2.5"), (-1, "-1")])
def test_maps_of_floats_hold_whole_numbers(tmp_path, value, shown):
    values = LABELS.astype(np.float32)
    np.testing.assert_array_equal(read_label_map(save(tmp_path / "a.tif", values)), LABELS)
    values[3, 5] = value
    assert f"the label {shown} at x 5, y 3" in said(
        read_label_map, save(tmp_path / "b.tif", values)
    )


# Several faces, and none


def two_faces() -> np.ndarray:
    both = np.zeros((256, 384), np.uint8)
    both[64:192, :128] = LABELS
    both[:, 128:] = draw_labels(256)
    return both


def test_the_largest_of_two_faces_is_taken(tmp_path, capsys):
    assert len(face_centres(LABELS)) == 1 and len(face_centres(two_faces())) == 2
    photo, mask = pair(tmp_path, two_faces())
    found = locate(SourcePair("two", photo, (mask,)))
    alone = locate(
        SourcePair("one", *(lambda p, m: (p, (m,)))(*pair(tmp_path / "b", draw_labels(256))))
    )
    assert found.faces == 2 and alone.faces == 1
    assert found.window.side == pytest.approx(alone.window.side, rel=1e-6)
    assert found.window.left == pytest.approx(alone.window.left + 128)
    read_target(photo, mask, 64)
    assert "shows 2 faces: the largest is taken" in capsys.readouterr().err


def test_a_crop_about_the_middle_has_no_pose(tmp_path):
    """Five points that fit no face: the eyes are far above a nose and mouth in one corner."""
    labels = np.ones((200, 200), np.uint8)
    labels[5:9, 5:20] = ID["r_eye"]
    labels[5:9, 180:195] = ID["l_eye"]
    labels[188:192, 4:8] = ID["nose"]
    labels[194:198, 2:8] = ID["mouth"]
    photo, mask = pair(tmp_path, labels)
    found = locate(SourcePair("odd", photo, (mask,)))
    assert found.crop == "centre" and found.landmarks is None
    assert "--no-align" in said(read_target, photo, mask, 64)


def test_a_profile_is_told_the_way_out(tmp_path):
    photo, mask = pair(tmp_path, draw_labels(128, hidden=("l_eye", "l_brow", "r_brow")))
    text = said(read_target, photo, mask, 64)
    assert "mask.png" in text and "--no-align --yaw Y --pitch P" in text
    assert read_target(photo, mask, 64, align=False).pose is None


def test_prepare_refuses_a_set_without_a_face(tmp_path, capsys):
    root = write_pairs(tmp_path / "d", {"a": np.ones((64, 64), np.uint8)})
    command = ["--data", str(root), "--out", str(tmp_path / "p"), "--resolution", "16"]
    assert prepare.main(command) == 1
    assert "in none of its 1 label maps" in capsys.readouterr().err
    assert prepare.main([*command, "--no-align"]) == 0


# EXIF


def damaged_exif(path: Path) -> Path:
    png = path.read_bytes()
    at, bad = png.index(b"IDAT") - 4, b"\0\x08\0\x02\x01\x12\0\x03"
    chunk = struct.pack(">I", len(bad)) + b"eXIf" + bad
    path.write_bytes(png[:at] + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + bad)) + png[at:])
    return path


def test_damaged_exif_says_nothing(tmp_path):
    photo, _ = pair(tmp_path)
    np.testing.assert_array_equal(read_image(damaged_exif(photo)), paint(LABELS))


@pytest.mark.parametrize("more", [40, 0])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_map_of_the_stored_pixels_is_turned_alike(tmp_path, more, orientation):
    upright = np.pad(LABELS, ((0, more), (0, 0)))
    back = {3: 2, 6: 1, 8: 3}[orientation]  # quarter turns from upright to stored
    exif = Image.Exif()
    exif[0x112] = orientation
    photo = save(tmp_path / "p.png", np.rot90(paint(upright), back), exif=exif)
    for turns in (0, back):
        mask = save(tmp_path / f"{turns}.png", np.rot90(upright, turns))
        found = locate(SourcePair("p", photo, (mask,)))
        np.testing.assert_array_equal(found.labels, upright)
        np.testing.assert_array_equal(found.image, paint(upright))


@pytest.mark.parametrize("yaw", [-0.7, -0.5, 0.0])
def test_a_map_of_a_face_on_its_side_is_turned_alike(tmp_path, yaw):
    """Turned to one side, a face has landmarks on its side too, though no upright face's."""
    upright = draw_labels(96, yaw)
    exif = Image.Exif()
    exif[0x112] = 6
    photo = save(tmp_path / "p.png", np.rot90(paint(upright)), exif=exif)
    for turns in (0, 1):
        mask = save(tmp_path / f"{turns}.png", np.rot90(upright, turns))
        np.testing.assert_array_equal(locate(SourcePair("p", photo, (mask,))).labels, upright)


def test_an_undecided_turn_is_said(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x112] = 6
    photo = save(tmp_path / "p.png", np.zeros((32, 32, 3), np.uint8), exif=exif)
    mask = save(tmp_path / "m.png", np.zeros((32, 32), np.uint8))
    locate(SourcePair("p", photo, (mask,)))
    assert "m.png" in (error := capsys.readouterr().err) and "EXIF" in error


def test_whatever_fails_while_decoding_names_the_file(tmp_path, monkeypatch):
    photo, _ = pair(tmp_path)

    def fail(*_):
        raise struct.error("unpack requires 2 bytes")

    monkeypatch.setattr(Image.Image, "load", fail)
    assert "photo.png: cannot be read (unpack" in said(read_image, photo)


# Folders


def test_all_broken_pictures_are_named_or_skipped(tmp_path, capsys):
    root = write_pairs(tmp_path / "d", {f"f{i:02}": draw_labels(32) for i in range(12)})
    for i in (1, 5, 7):
        (root / "images" / f"f{i:02}.png").write_bytes(b"no picture")
    command = ["--data", str(root), "--out", str(tmp_path / "p"), "--resolution", "16"]
    assert prepare.main(command) == 1
    error = capsys.readouterr().err
    assert "3 of 12 faces" in error and all(f"f{i:02}.png" in error for i in (1, 5, 7))
    assert prepare.main([*command, "--skip-bad"]) == 0
    assert "9 faces" in (error := capsys.readouterr().err) and "skipped: f01, f05, f07" in error
    packed = open_dataset(tmp_path / "p", resolution=16)
    assert set(packed.info["skipped"]) == {"f01", "f05", "f07"} and len(packed) == 9


def test_names_in_two_unicode_forms(tmp_path):
    root = write_pairs(tmp_path / "d", {unicodedata.normalize("NFC", "müller"): LABELS})
    mask = root / "masks" / f"{unicodedata.normalize('NFC', 'müller')}.png"
    mask.rename(mask.with_name(f"{unicodedata.normalize('NFD', 'müller')}.png"))
    assert len(find_source(root).faces) == 1


def test_tiff_and_bmp_photographs_are_read(tmp_path):
    root = write_pairs(tmp_path / "d", {"a": LABELS, "b": LABELS})
    for name, suffix in (("a", ".tif"), ("b", ".BMP")):
        with Image.open(root / "images" / f"{name}.png") as picture:
            picture.save(root / "images" / f"{name}{suffix}")
        (root / "images" / f"{name}.png").unlink()
    assert len(find_source(root).faces) == 2


def test_what_lies_there_under_another_suffix_is_named(tmp_path):
    root = write_pairs(tmp_path / "d", {"a": LABELS})
    (root / "masks" / "a.png").rename(root / "masks" / "a.jpg")
    text = said(find_source, root)
    assert "a.png: has no mask (masks/a.jpg" in text and "save it as PNG" in text
    (root / "masks" / "a.jpg").rename(root / "masks" / "ab.png")
    assert "the nearest name is masks/ab.png" in said(find_source, root)


def test_heic_names_its_reader(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install pillow-heif" in said(read_image, path)


@pytest.mark.parametrize("variant", ["nested", "merged", "sub-folders", "endings"])
def test_variants_of_known_layouts(tmp_path, variant):
    root = tmp_path / "d"
    if variant == "nested":
        write_native(root / "CelebAMask-HQ", {0: LABELS, 3: LABELS})
    elif variant == "merged":
        write_pairs(root, {"0": LABELS, "3": LABELS})
        (root / "images").rename(root / "CelebA-HQ-img")
        (root / "masks").rename(root / "CelebAMask-HQ-mask")
    elif variant == "sub-folders":
        write_pairs(root, {"00000": LABELS, "01000": LABELS})
        for path in [*root.glob("*/*.png")]:
            inner = path.parent / f"{path.stem[:2]}000"
            inner.mkdir(exist_ok=True)
            path.rename(inner / path.name)
    else:
        write_pairs(root, {"0": LABELS, "3": LABELS})
        for path in [*root.glob("masks/*.png")]:
            path.rename(path.with_name(f"{path.stem}_mask.png"))
    source = find_source(root)
    assert len(source.faces) == 2
    np.testing.assert_array_equal(locate(source.faces[0]).labels, LABELS)


def test_an_archive_is_to_be_extracted(tmp_path):
    shutil.make_archive(str(tmp_path / "d"), "zip", write_pairs(tmp_path / "d", {"a": LABELS}))
    assert "extract the archive" in said(find_source, tmp_path / "d.zip")


def test_encodings_of_landmarks(tmp_path):
    source = find_source(write_pairs(tmp_path / "d", {"a": LABELS}))
    path, line = tmp_path / "l.txt", "a 1 2 3 4 5 6 7 8 9 10\n"
    path.write_text(line, encoding="utf-8-sig")
    assert list(landmarks_of(read_points(path), source, path)) == ["a"]
    path.write_text(line, encoding="utf-16")
    assert "text of UTF-16: save it as UTF-8" in said(read_points, path)
