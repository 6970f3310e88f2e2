"""Back into the photograph: what did not change keeps its pixels, and what the file says stays."""

import dataclasses
import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import write_checkpoint
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from semfaceedit import transfer as command
from semfaceedit.data.align import Window, crop
from semfaceedit.editing import composition, photograph_file
from semfaceedit.editing import paste as paste_module
from semfaceedit.editing.composition import Pasted
from semfaceedit.editing.deep_png import with_low_bytes
from semfaceedit.editing.guided import blur, guided_coefficients, spread
from semfaceedit.editing.new_shapes import PATCH, details, soft_classes
from semfaceedit.editing.oklab import oklab, srgb
from semfaceedit.editing.paste import check_paste, paste, paste_to_file
from semfaceedit.editing.photograph_file import read_original
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.recolour import followed, group_change, recoloured
from semfaceedit.editing.refit import EditedFace, EditSettings
from semfaceedit.editing.source_photograph import find_photograph, likeness, window_on
from semfaceedit.editing.target import SourceCrop, SourcePhotograph
from semfaceedit.errors import UserError
from semfaceedit.model.codes import Film
from semfaceedit.outputs import is_own

SIZE = (560, 480)  # of the photograph, upright
WINDOW = Window(90.0, 40.0, 384.0)
ORIENTATION, MAKER, SOFTWARE = 0x112, 0x10F, 0x131


@pytest.fixture(scope="module", autouse=True)
def small():
    """Renderings and outlines of few pixels: fast, and coarser than the photograph."""
    kept = paste_module.WORKING, paste_module.RENDERED
    paste_module.WORKING, paste_module.RENDERED = 192, 64
    yield
    paste_module.WORKING, paste_module.RENDERED = kept


def picture_of(editor) -> np.ndarray:
    """A photograph that shows a face in WINDOW, with fine grain: (H, W, 3) uint8."""
    side = int(WINDOW.side)
    output = editor.generate(5, pose=(0.2, -0.1), resolution=128).output.image
    shown = ((output[0].movedim(0, -1).clamp(-1, 1) + 1) * 127.5).byte().numpy()
    pixels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    face = np.asarray(Image.fromarray(shown).resize((side, side)))
    pixels[40 : 40 + side, 90 : 90 + side] = face
    grain = np.random.default_rng(0).normal(0, 8, pixels.shape[:2])[..., None]
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pixels(editor) -> np.ndarray:
    return picture_of(editor)


def project_of(editor, path: Path | None, window: Window = WINDOW) -> FaceProject:
    face = editor.generate(5, pose=(0.2, -0.1), resolution=64).project
    known = None if path is None else SourcePhotograph.of(path)
    return dataclasses.replace(face, crop=SourceCrop(window, *SIZE, known))


def recoloured_face(editor, project: FaceProject, region: str = "hair") -> EditedFace:
    """With the look of another face, more marked than untrained weights have it."""
    other = editor.generate(2, resolution=64).project
    look = other.appearance
    marked = dataclasses.replace(look, frequencies=4 * look.frequencies, phases=4 * look.phases)
    other = dataclasses.replace(other, appearance=marked)
    return editor.transfer(project, other, what="appearance", region=[region])


def photo_file(path: Path, pixels: np.ndarray, **settings) -> Path:
    Image.fromarray(pixels).save(path, **settings)
    return path


def pasted_edit(editor, project, edited, pixels, window: Window = WINDOW) -> Pasted:
    return paste(editor.generator, project, edited.project, edited.region, pixels, window)


@pytest.fixture(scope="module")
def change(editor, pixels):
    """A recoloured face, and the photograph with it."""
    project = project_of(editor, None)
    edited = recoloured_face(editor, project)
    return project, edited, pasted_edit(editor, project, edited, pixels)


def test_outside_the_region_no_pixel_changes(change, pixels):
    _, _, pasted = change
    assert 0.01 < pasted.region.mean() < 0.6
    assert np.array_equal(pasted.pixels[~pasted.region], pixels[~pasted.region])
    changed = (pasted.pixels != pixels).any(-1)
    assert np.array_equal(pasted.region, changed)  # what `--paste` says of its share is so
    beyond = np.ones(pixels.shape[:2], bool)
    beyond[40:424, 90:474] = False
    assert pasted.region[beyond].mean() < 0.1  # where its colours go on


def test_inside_it_goes_the_way_of_the_rendering(change, pixels):
    _, edited, pasted = change
    asked = oklab((edited.after.image + 1) / 2) - oklab((edited.before.image + 1) / 2)
    asked = asked.movedim(1, -1)[edited.region[:, 0]].mean(0)
    region = torch.from_numpy(pasted.region)
    found = [oklab(torch.from_numpy(p).movedim(-1, 0)[None].float() / 255)
             for p in (pixels, pasted.pixels)]  # fmt: skip
    moved = (found[1] - found[0])[0].movedim(0, -1)[region].mean(0)
    assert float(asked.norm()) > 0.005
    assert float(moved @ asked / (moved.norm() * asked.norm())) > 0.8
    assert 0.3 < float(moved.norm() / asked.norm()) < 1.7


def test_details_of_the_photograph_stay(change, pixels):
    """The grain that the rendering does not have is there afterwards."""
    _, _, pasted = change
    inner = torch.from_numpy(pasted.region)[None, None].float()
    inner = blur(inner, 6.0)[0, 0].numpy() > 0.98
    details = []
    for shown in (pixels, pasted.pixels):
        grey = torch.from_numpy(shown).float().mean(-1)[None, None]
        details.append((grey - blur(grey, 2.0))[0, 0].numpy()[inner])
    assert np.corrcoef(*details)[0, 1] > 0.9


def test_a_new_shape_is_blended_in(editor, pixels, monkeypatch):
    monkeypatch.setattr(paste_module, "STRANDS", ())  # hair would keep the photograph's colours
    monkeypatch.setattr(paste_module, "displacements", lambda *_: None)  # and parts move
    project = project_of(editor, None)
    labels = project.labels.copy()
    labels[:24, :24] = 14  # the class by which these weights show hair
    edited = editor.edit(
        project, labels, settings=EditSettings(iterations=40, perceptual_weight=0,
                                               learning_rate=1e-2)
    )  # fmt: skip
    pasted = pasted_edit(editor, project, edited, pixels)
    rows = torch.nn.functional.interpolate(edited.region.float(), size=384)[0, 0].numpy() > 0
    reach = blur(torch.from_numpy(rows)[None, None].float(), 10.0)[0, 0].numpy() > 1e-4
    allowed = np.zeros(pixels.shape[:2], bool)
    allowed[40:424, 90:474] = reach
    assert pasted.region.any() and not (pasted.region & ~allowed).any()
    shown = np.asarray(Image.fromarray(pasted.pixels).crop((90, 40, 474, 424)).resize((64, 64)))
    wanted = (edited.after.labels[0] == 14) & (edited.before.labels[0] != 14)
    rgb = [((o.image[0].movedim(0, -1) + 1) * 127.5).numpy() for o in (edited.before, edited.after)]
    way = (rgb[1] - rgb[0])[wanted.numpy()]
    was = np.asarray(Image.fromarray(pixels).crop((90, 40, 474, 424)).resize((64, 64)))
    gone = (shown.astype(float) - was)[wanted.numpy()]
    assert wanted.sum() > 4 and 0.3 < (gone * way).sum() / (way * way).sum() < 1.2


def test_what_moves_is_the_photograph_and_the_rest_stays(pixels, monkeypatch):
    """A field that leads seven pixels to the right and three up in the middle of the crop: there
    the photograph is shifted, exactly; around, where the field is nothing, no pixel changes."""
    monkeypatch.setattr(composition, "STRIP", 5000)  # several strips
    field = torch.zeros(1, 2, 32, 32)
    field[:, :, 10:22, 12:20] = torch.tensor([7.0, -3.0]).view(1, 2, 1, 1) * 2 / WINDOW.side
    pasted = composition.composed(pixels, WINDOW, [], None, field)
    inside = slice(40 + 132, 40 + 252), slice(90 + 156, 90 + 228)  # beyond the field's own border
    shifted = np.roll(pixels, (3, -7), (0, 1))
    assert (pasted.pixels[inside] == shifted[inside]).all() and pasted.region[inside].all()
    assert (pasted.pixels[~pasted.region] == pixels[~pasted.region]).all()
    rows, columns = np.nonzero(pasted.region)
    assert rows.min() >= 40 + 108 and rows.max() < 40 + 276  # a texel of the field is 12 pixels
    assert columns.min() >= 90 + 132 and columns.max() < 90 + 252


def test_a_chain_of_edits_brings_all_of_them(editor, pixels, tmp_path):
    """The second edit, of a saved face, is pasted with the first, without --photograph."""
    path = photo_file(tmp_path / "photo.png", pixels)
    project = project_of(editor, path)
    once = recoloured_face(editor, project)
    assert once.project.origin is not None
    once.project.save(tmp_path / "once.safetensors")
    read = FaceProject.load(tmp_path / "once.safetensors")
    assert np.array_equal(read.origin.labels, project.labels)
    assert torch.equal(read.as_inverted().appearance.phases, project.appearance.phases)
    twice = recoloured_face(editor, read, "face")
    out = tmp_path / "out.png"
    assert check_paste(twice.project, out) == path
    pasted = paste_to_file(editor.generator, read, twice, path, out)
    alone = pasted_edit(editor, project, once, pixels)
    bare = dataclasses.replace(twice, project=dataclasses.replace(twice.project, origin=None))
    whole = pasted_edit(editor, project, bare, pixels)
    assert np.array_equal(pasted.pixels, whole.pixels)
    second = pasted_edit(editor, read, bare, pixels)
    only = alone.region & ~second.region
    assert only.sum() > 100
    assert np.abs(pasted.pixels[only].astype(int) - pixels[only]).mean() > 1
    # a project without a photograph has nothing to remember
    assert recoloured_face(editor, editor.generate(5, resolution=64).project).project.origin is None


def test_a_damaged_origin_is_refused(editor, tmp_path):
    project = recoloured_face(editor, project_of(editor, None)).project
    wrong = dataclasses.replace(project.origin, labels=np.full_like(project.labels, 30))
    dataclasses.replace(project, origin=wrong).save(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="before its edits"):
        FaceProject.load(tmp_path / "a.safetensors")


def half(size: int = 96) -> torch.Tensor:
    """The left half of a square, (1, 1, size, size) bool."""
    return (torch.arange(size) < size // 2).expand(1, 1, size, size)


def test_black_hair_grows_lighter_without_its_noise():
    """The last bits of black are no strands; what is nearly black stays dark; skin has no halo."""
    inside = half()
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, 3, 96, 96))) / 255
    photo = torch.where(inside, noise, torch.tensor([0.8, 0.6, 0.5])[:, None, None]).float()
    change = torch.zeros(1, 3, 96, 96)
    change[:, 0] = 0.5
    own = group_change(photo, inside, inside, change, torch.ones(1, 1, 96, 96), side=96, even=True)
    made = recoloured(photo, [own.maps])
    hair = made[..., 10:86, 8:40]
    assert float(hair.std((2, 3)).max()) < 3 * float(noise.std())
    assert float(noise.mean()) < float(hair.mean()) < 0.4
    assert float((made - photo)[..., 52:].abs().max()) < 0.03


def test_rounding_is_no_new_shape(editor, pixels, change):
    """Offsets that differ in their last bits, as older files have them."""
    project, edited, pasted = change
    shape = edited.project.geometry
    near = Film(shape.frequencies * (1 + 3e-7), shape.phases * (1 + 3e-7))
    rounded = dataclasses.replace(edited.project, geometry=near)
    again = paste(editor.generator, project, rounded, edited.region, pixels, WINDOW)
    assert np.array_equal(again.region, pasted.region)


def test_a_group_is_followed_beyond_the_crop():
    """Through like colours from the crop's edge, fading; not through others."""
    photo = torch.full((1, 3, 128, 128), 0.8)
    photo[..., 20:60, 32:96] = torch.tensor([0.4, 0.2, 0.1])[
        :, None, None
    ]  # crosses the upper edge
    photo[..., 100:110, :20] = torch.tensor([0.4, 0.2, 0.1])[:, None, None]  # elsewhere
    known = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    known[..., 32:96, 32:96] = True
    inside = known & (photo[:, :1] < 0.5)
    found = followed(photo, inside, known)[0, 0]
    assert float(found[28, 40:90].min()) > 0.5 > 0.1 > float(found[12, 40:90].max())
    assert float(found[22, 64]) < float(found[30, 64])
    assert float(found[100:110, :20].max()) < 0.05


def test_details_are_those_of_the_photograph():
    """Stripes of the source go on in the target, as strong as they were."""
    stripes = 0.1 * torch.sign(torch.sin(torch.arange(128) * 1.5)).expand(1, 3, 128, 128) + 0.5
    source = half(128)
    target = ~source & (torch.arange(128) < 100).view(-1, 1)
    found = details(stripes, source, target)
    assert float(found[~target.expand_as(found)].abs().max()) == 0
    inner = found[0, 0, 20:80, 74:118]
    assert 0.5 < float(inner.std()) / 0.1 < 1.5
    assert float(inner.std(1).mean()) > 2 * float(inner.std(0).mean())  # across, not along
    none = details(stripes, torch.zeros_like(source), target)
    assert float(none.abs().max()) == 0
    assert float(details(stripes, source, torch.zeros_like(source)).abs().max()) == 0


@pytest.mark.parametrize("corner", [40, 41])
def test_details_of_a_source_as_wide_as_one_patch(corner):
    """Wherever it lies, it has a place to take details from."""
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    side = max(8, 2 * round(PATCH * 256 / 2))
    source, target = torch.zeros(2, 1, 1, 256, 256, dtype=torch.bool)
    source[..., corner : corner + side, corner : corner + side] = True
    target[..., 150:200, 150:200] = True
    found = details(noise, source, target)[target.expand(1, 3, -1, -1)]
    assert 0.5 < float(found.std() / noise.std()) < 1.5


def test_what_has_no_details_is_said(editor, pixels, tmp_path, capsys, monkeypatch):
    """A class that grows is soft where the photograph shows it nowhere as wide as a patch."""
    size = 96
    wide = 2 * round(PATCH * size / 2) + 2
    own = torch.ones(1, 1, size, size, dtype=torch.long)
    own[..., :wide, :wide] = 13  # as wide as a patch
    own[..., -8:, -8:-5] = 11  # narrow
    shown = own.clone()
    shown[..., 40:60, 10:30], shown[..., 40:60, 40:60] = 13, 11
    shown[..., 40:60, 70:90], shown[..., 80:81, 10:20] = 14, 15  # shown nowhere; and hardly larger
    assert soft_classes(shown, own, shown != own) == [11, 14]
    assert soft_classes(own, own, own != own) == []

    monkeypatch.setattr(paste_module, "soft_classes", lambda *_: [11])
    path = photo_file(tmp_path / "photo.png", pixels)
    project = project_of(editor, path)
    labels = project.labels.copy()
    labels[:24, :24] = 14
    quick = EditSettings(iterations=40, perceptual_weight=0, learning_rate=1e-2)
    edited = editor.edit(project, labels, settings=quick)
    paste_to_file(editor.generator, project, edited, path, tmp_path / "out.png")
    assert "new places of u_lip are as soft" in " ".join(capsys.readouterr().err.split())


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER], exif[SOFTWARE] = orientation, "a camera", "its program"
    exif.get_ifd(0x8769)[0x829A] = 0.01  # exposure time
    return exif


@pytest.mark.parametrize(
    ("suffix", "orientation"), [("png", 1), ("png", 6), ("tif", 5), ("tif", 6), ("jpg", 5)]
)
def test_what_the_file_says_stays(editor, pixels, tmp_path, suffix, orientation, capsys):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turn = {1: lambda p: p, 6: lambda p: np.rot90(p), 5: lambda p: np.swapaxes(p, 0, 1)}
    stored = np.ascontiguousarray(turn[orientation](pixels))
    path = photo_file(tmp_path / "photo.png", stored, exif=exif_of(orientation),
                      icc_profile=profile, dpi=(300, 300))  # fmt: skip
    project = project_of(editor, path)
    assert project.crop.photograph.orientation == orientation
    assert (project.crop.photograph.width, project.crop.photograph.height) == SIZE
    out = tmp_path / f"out.{suffix}"
    edited = recoloured_face(editor, project)
    pasted = paste_to_file(editor.generator, project, edited, path, out)
    with Image.open(out) as picture:
        assert picture.info["icc_profile"] == profile
        assert [round(float(value)) for value in picture.info["dpi"]] == [300, 300]
        exif = picture.getexif()
        # TIFF is written upright
        assert exif[ORIENTATION] == (1 if suffix == "tif" else orientation)
        assert (exif[MAKER], exif[SOFTWARE]) == ("a camera", "its program")
        assert float(exif.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
        shown = np.asarray(picture)
    if suffix == "tif":
        shown = turn[orientation](shown)
    assert shown.shape == stored.shape
    differs = (shown != stored).any(-1)
    region = turn[orientation](pasted.region)
    said = capsys.readouterr().err
    if suffix == "jpg":
        assert "compressed anew" in said
        assert np.abs(shown.astype(int) - stored)[~region].mean() < 6
    else:
        assert differs.any() and not differs[~region].any() and "anew" not in said
    # a second time it may replace its own work, but not what was changed since
    paste_to_file(editor.generator, project, edited, path, out)
    Image.fromarray(stored[::-1]).save(out)
    with pytest.raises(UserError, match="did not write it"):
        check_paste(project, out)


def test_transparency_stays(editor, pixels, tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, pixels.shape[:2], np.uint8)
    path = photo_file(tmp_path / "photo.png", np.dstack([pixels, alpha]))
    project, out = project_of(editor, path), tmp_path / "out.png"
    pasted = paste_to_file(editor.generator, project, recoloured_face(editor, project), path, out)
    shown = np.asarray(Image.open(out))
    assert np.array_equal(shown[..., 3], alpha)
    assert np.array_equal(shown[~pasted.region][:, :3], pixels[~pasted.region])
    with pytest.raises(UserError, match="name a .png"):
        check_paste(project, tmp_path / "out.jpg")


@pytest.mark.parametrize(
    "suffix, transparent",
    [("jpg", False), ("png", False), ("tif", False), ("png", True), ("tif", True)],
)
def test_a_grey_photograph_stays_grey(editor, pixels, tmp_path, suffix, transparent):
    grey = pixels.mean(-1).astype(np.uint8)
    values = np.dstack([grey, grey // 2 + 1]) if transparent else grey
    path, out = photo_file(tmp_path / "photo.png", values), tmp_path / f"out.{suffix}"
    project = project_of(editor, path)
    pasted = paste_to_file(editor.generator, project, recoloured_face(editor, project), path, out)
    with Image.open(out) as picture:
        assert picture.mode == ("LA" if transparent else "L")
        shown = np.asarray(picture)
    shown = shown[..., 0] if transparent else shown
    if suffix != "jpg":
        assert np.array_equal(shown[~pasted.region], grey[~pasted.region])
    assert (shown != grey).any()
    check_paste(project, out)  # it is known as ours


def test_a_photograph_of_greys_in_rgb_stays_grey(editor, pixels, tmp_path):
    grey = np.repeat(pixels.mean(-1, keepdims=True).astype(np.uint8), 3, 2)
    path, out = photo_file(tmp_path / "photo.png", grey), tmp_path / "out.png"
    project = project_of(editor, path)
    pasted = paste_to_file(editor.generator, project, recoloured_face(editor, project), path, out)
    with Image.open(out) as picture:
        assert picture.mode == "RGB"
        shown = np.asarray(picture)
    assert np.array_equal(shown, pasted.pixels)
    assert np.array_equal(shown[..., 0], shown[..., 1])
    assert np.array_equal(shown[..., 0], shown[..., 2])
    assert (shown != grey).any()


@pytest.mark.parametrize("source", ["jpg", "png", "tif"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_xmp_stays(pixels, tmp_path, source, suffix):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>credit</a></x:xmpmeta>'
    info, tags = PngImagePlugin.PngInfo(), TiffImagePlugin.ImageFileDirectory_v2()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    tags[700], tags.tagtype[700] = xmp, 1
    settings = {"jpg": {"xmp": xmp}, "png": {"pnginfo": info}, "tif": {"tiffinfo": tags}}
    path = photo_file(tmp_path / f"photo.{source}", pixels[:40, :40], **settings[source])
    out = tmp_path / f"out.{suffix}"
    photograph_file.save_like(out, pixels[:40, :40], read_original(path))
    with Image.open(out) as picture:
        picture.load()
        found = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    assert (found.encode() if isinstance(found, str) else found) == xmp


def test_jpeg_keeps_its_subsampling(editor, pixels, tmp_path):
    path = photo_file(tmp_path / "photo.jpg", pixels, quality=90, subsampling=1)
    project, out = project_of(editor, path), tmp_path / "out.jpg"
    paste_to_file(editor.generator, project, recoloured_face(editor, project), path, out)
    assert read_original(out).subsampling == 1


def test_sixteen_bits_are_said_to_be_lost(editor, pixels, tmp_path, capsys):
    path = tmp_path / "photo.tif"
    grey = pixels.mean(-1).astype(np.uint16) * 256
    Image.fromarray(grey).save(path)
    project = project_of(editor, path)
    edited = recoloured_face(editor, project)
    for name, said in (("out.tif", "has 16 bits a channel, of which eight were kept: name a .png"),
                       ("out.png", "")):  # fmt: skip
        paste_to_file(editor.generator, project, edited, path, tmp_path / name)
        error = capsys.readouterr().err
        assert said in error and ("16 bits" in error) == bool(said)
    pasted = read_original(tmp_path / "out.png").finest
    assert pasted.dtype == np.uint16 and (pasted[0, 0] == grey[0, 0]).all()


def deep_png(values: np.ndarray, filters: tuple[int, ...]) -> bytes:
    """A PNG of 16 bits with pixels (H, W, C), after the specification, byte by byte; row y has
    filters[y % len(filters)]."""
    height, width, channels = values.shape
    step = 2 * channels
    raw = values.astype(">u2").tobytes()
    rows = [raw[y * step * width :][: step * width] for y in range(height)]
    packed = bytearray()
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        packed.append(kind)
        for x, value in enumerate(row):
            left = row[x - step] if x >= step else 0
            up = rows[y - 1][x] if y else 0
            corner = rows[y - 1][x - step] if y and x >= step else 0
            near = left + up - corner
            paeth = min((left, up, corner), key=lambda v: abs(near - v))
            predicted = (0, left, up, (left + up) // 2, paeth)[kind]
            packed.append((value - predicted) % 256)
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(packed))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_read_and_written(tmp_path, channels):
    """Of every kind of PNG, through all filters; turned as the file says; what is ours is known."""
    values = np.random.default_rng(channels).integers(0, 1 << 16, (12, 7, channels), np.uint16)
    path, out = tmp_path / "deep.png", tmp_path / "out.png"
    path.write_bytes(deep_png(values, (0, 1, 2, 3, 4)))
    original = read_original(path)
    colours = values[..., : channels - (channels % 2 == 0)]
    assert original.finest.dtype == np.uint16 and (original.finest == colours).all()
    assert (original.pixels == colours >> 8).all() and original.deep
    if channels % 2 == 0:
        assert (original.alpha == values[..., -1]).all()
    exif = exif_of(6)
    original = dataclasses.replace(original, exif=exif, turn=Image.Transpose.ROTATE_270)
    photograph_file.save_like(out, original.finest, original)
    assert is_own(out)
    again = read_original(out)
    assert again.turn == Image.Transpose.ROTATE_270 and again.grey == (channels < 3)
    assert (again.finest == colours).all()
    if channels % 2 == 0:
        assert (again.alpha == values[..., -1]).all()
    with Image.open(out) as picture:
        assert picture.size == (12, 7)
    photograph_file.save_like(tmp_path / "out.tif", original.finest, original)
    assert (read_original(tmp_path / "out.tif").pixels == colours >> 8).all()


def test_a_deep_photograph_stays_deep(editor, pixels, tmp_path, capsys):
    """All 16 bits outside the region, and inside what the change adds to them, not to eight."""
    path, out = tmp_path / "photo.png", tmp_path / "out.png"
    deep = pixels.astype(np.uint16) << 8
    deep |= np.random.default_rng(0).integers(0, 256, deep.shape, np.uint16)
    path.write_bytes(
        with_low_bytes(photo_file(path, pixels).read_bytes(), pixels, deep.astype(np.uint8))
    )
    project = project_of(editor, path)
    edited = recoloured_face(editor, project)
    pasted = paste_to_file(editor.generator, project, edited, path, out)
    assert "16 bits" not in capsys.readouterr().err
    written = read_original(out).finest
    assert (written == pasted.pixels).all() and written.dtype == np.uint16
    assert (written[~pasted.region] == deep[~pasted.region]).all()
    assert 0.02 < pasted.region.mean() < 0.6
    assert len(np.unique(written[pasted.region] & 255)) == 256
    shallow = pasted_edit(editor, project, edited, pixels)
    both = shallow.region & pasted.region
    assert np.abs(shallow.pixels[both].astype(float) - written[both] / 257).max() < 2
    paste_to_file(editor.generator, project, edited, path, tmp_path / "out.jpg")
    assert "name a .png" in capsys.readouterr().err


def test_a_project_keeps_its_photograph(editor, pixels, tmp_path):
    path = photo_file(tmp_path / "photo.png", pixels)
    project = project_of(editor, path)
    project.save(tmp_path / "face.safetensors")
    read = FaceProject.load(tmp_path / "face.safetensors")
    assert read.crop == project.crop and find_photograph(read) == path
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / path.name)
    assert find_photograph(read, near=tmp_path / "moved" / "face.safetensors") == moved


def test_copies_of_a_photograph_are_taken(editor, pixels, tmp_path, capsys):
    """Of other sizes and in grey without a word; what may be another picture with one."""
    path = photo_file(tmp_path / "photo.png", pixels)
    shown = crop(pixels, WINDOW, 128, Image.Resampling.LANCZOS)
    project = dataclasses.replace(project_of(editor, path), image=shown)
    out, picture = tmp_path / "out.png", Image.fromarray(pixels)
    for name, copy in (("half.png", picture.reduce(2)), ("grey.jpg", picture.convert("L")),
                       ("dark.png", picture.point(lambda value: value // 2))):  # fmt: skip
        copy.save(tmp_path / name)
        assert check_paste(project, out, tmp_path / name) == tmp_path / name
        assert capsys.readouterr().err == ""
    share = next(s for s in (0.2, 0.3, 0.4, 0.5, 0.6) if likeness(pixels, mixed(pixels, s)) < 0.97)
    assert likeness(pixels, mixed(pixels, share)) > 0.85
    doubtful = photo_file(tmp_path / "doubtful.png", mixed(pixels, share))
    assert check_paste(project, out, doubtful) == doubtful
    said = capsys.readouterr().err
    assert "not the very file" in said and "correlation 0.9" in said and said.count("\n") == 1


def mixed(pixels: np.ndarray, share: float) -> np.ndarray:
    """A photograph with a share of itself turned upside down."""
    return ((1 - share) * pixels + share * pixels[::-1]).round().astype(np.uint8)


def test_what_cannot_be_pasted(editor, pixels, tmp_path, capsys):
    path = photo_file(tmp_path / "photo.png", pixels)
    project, out = project_of(editor, path), tmp_path / "out.png"
    assert check_paste(project, out) == path
    seed = editor.generate(5).project
    for wrong, name, given, said in (
        (seed, out, None, "not inverted from a photograph"),
        (project_of(editor, None), out, None, "does not say which photograph"),
        (project, path, None, "it is read"),
        (project, tmp_path / "out.gif", None, "ends in .png"),
        (project, out, tmp_path / "other.png", "no such file"),
    ):
        with pytest.raises(UserError, match=said) as error:
            check_paste(wrong, name, given)
        assert "\n" not in str(error.value)
    photo_file(path, pixels[::-1])
    with pytest.raises(UserError, match="changed since"):
        check_paste(project, out)
    with pytest.raises(UserError, match="shows another picture") as error:
        check_paste(project, out, path)
    assert "give that photograph, or start anew" in str(error.value)
    with pytest.raises(UserError, match="not the shape"):
        check_paste(project, out, photo_file(tmp_path / "square.png", pixels[:300, :300]))
    path.unlink()
    with pytest.raises(UserError, match="no longer there"):
        check_paste(project, out)
    with pytest.raises(UserError, match="not the shape"):
        window_on(project.crop, 300, 300)
    assert window_on(project.crop, 2 * SIZE[0], 2 * SIZE[1]).side == 2 * WINDOW.side


def test_a_region_outside_the_photograph(editor, pixels):
    project = project_of(editor, None)
    with pytest.raises(UserError, match="outside the photograph"):
        away = Window(-400.0, -400.0, 384.0)
        pasted_edit(editor, project, recoloured_face(editor, project), pixels, away)


def test_a_full_disk_leaves_no_part(editor, pixels, tmp_path, monkeypatch):
    path = photo_file(tmp_path / "photo.png", pixels)
    project, out = project_of(editor, path), tmp_path / "out.png"

    def full(*_args, **_settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    edited = recoloured_face(editor, project)
    monkeypatch.setattr(photograph_file.Image.Image, "save", full)
    with pytest.raises(OSError, match="space"):
        paste_to_file(editor.generator, project, edited, path, out)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_the_command(editor, pixels, tmp_path, capsys):
    weights = write_checkpoint(tmp_path)
    path = photo_file(tmp_path / "photo.png", pixels)
    project_of(editor, path).save(tmp_path / "a.safetensors")
    editor.generate(2, resolution=64).project.save(tmp_path / "b.safetensors")
    asked = ["--checkpoint", weights, "--target", tmp_path / "a.safetensors", "--source",
             tmp_path / "b.safetensors", "--region", "hair",
             "--out", tmp_path / "c.safetensors"]  # fmt: skip
    asked = [str(part) for part in asked]
    before = path.read_bytes()
    assert command.main([*asked, "--paste", str(path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert command.main([*asked, "--photograph", str(path)]) == 1
    assert "--paste" in capsys.readouterr().err
    assert not (tmp_path / "c.safetensors").exists()
    assert command.main([*asked, "--paste", str(tmp_path / "new" / "out.png")]) == 0
    assert (tmp_path / "new" / "out.png").is_file() and path.read_bytes() == before


def test_filters():
    random = torch.Generator().manual_seed(0)
    guide = torch.rand(1, 3, 24, 24, generator=random)
    # what is affine in the guide is kept as it is
    values = (guide * torch.tensor([0.2, 0.5, -0.3])[:, None, None]).sum(1, keepdim=True) + 0.1
    a, b = guided_coefficients(guide, values, 4, 1e-9)
    torch.testing.assert_close((a * guide).sum(1, keepdim=True) + b, values, atol=1e-3, rtol=0)
    # an outline that is off by two pixels moves to the edge of the guide
    step = (torch.arange(24) >= 12).float().expand(1, 3, 24, 24)
    a, b = guided_coefficients(step, step.roll(2, 3)[:, :1], 4, 1e-4)
    found = (a * step).sum(1, keepdim=True) + b
    assert float((found[..., 12] - found[..., 11]).mean()) > 0.4
    assert float(blur(torch.full((1, 2, 9, 9), 3.0), 2.0).sub(3).abs().max()) < 1e-5
    weights = torch.zeros(1, 1, 24, 24)
    weights[..., 3:6, 3:6] = 1
    carried = spread(5 * weights + 7 * (1 - weights), weights, (6.0, 2.0))
    torch.testing.assert_close(carried, torch.full_like(carried, 5.0))
    torch.testing.assert_close(srgb(oklab(guide)), guide, atol=1e-4, rtol=0)
    white = oklab(torch.ones(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(white, torch.tensor([1.0, 0, 0]), atol=1e-3, rtol=0)
