"""Photographs out of the ordinary: each gives a face, or one line that says why not."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from semfaceedit import parse as command
from semfaceedit.errors import UserError
from semfaceedit.parsing.faces import find_faces
from semfaceedit.parsing.mesh_parts import ID, LEFT_EYE, OVAL, RIGHT_EYE, MeshParts
from semfaceedit.parsing.photographs import PhotographedFace, read_face
from semfaceedit.procedural.render import render_faces

SIZE = 192


def head(seed: int = 900_000, yaw: float = 0.0) -> Image.Image:
    made = render_faces([seed], SIZE, poses=torch.tensor([[yaw, 0.0]]))
    return Image.fromarray(((made.images[0].movedim(0, -1) + 1) * 127.5).byte().numpy())


def read(picture: Image.Image) -> PhotographedFace:
    return read_face(np.asarray(picture), "photo.png")


@pytest.fixture(scope="module")
def plain() -> tuple[Image.Image, np.ndarray, PhotographedFace]:
    picture = head()
    return picture, find_faces(picture)[0].points, read(picture)


def corners(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def test_sunglasses_leave_the_face_where_it_is(plain):
    picture, points, known = plain
    worn = picture.copy()
    parts = MeshParts(points)
    for ids in (LEFT_EYE, RIGHT_EYE):
        eye = parts.at(ids)
        middle, wide = eye.mean(0), np.ptp(eye[:, 0]) * 0.9
        box = [*(middle - (wide, 0.7 * wide)), *(middle + (wide, 0.7 * wide))]
        ImageDraw.Draw(worn).ellipse(box, fill=(10, 10, 12))
    face = read(worn)
    assert face.window.side == pytest.approx(known.window.side, rel=0.1)
    assert (face.labels == ID["eye_g"]).mean() > (known.labels == ID["eye_g"]).mean() + 0.005


def test_a_mask_over_the_mouth_leaves_eyes_and_hair(plain):
    picture, points, known = plain
    worn = picture.copy()
    outline = points[list(OVAL), :2]
    below = outline[outline[:, 1] > points[4, 1] - 4]
    angles = np.arctan2(*(below - below.mean(0)).T)
    ImageDraw.Draw(worn).polygon(corners(below[np.argsort(angles)]), fill=(150, 190, 220))
    face = read(worn)
    assert face.window.side == pytest.approx(known.window.side, rel=0.2)
    for name in ("hair", "l_eye", "r_eye"):
        ours, theirs = face.labels == ID[name], known.labels == ID[name]
        assert (ours & theirs).sum() > 0.5 * theirs.sum()


def test_a_painting_is_a_face(plain):
    picture, _, known = plain
    strokes = picture.filter(ImageFilter.ModeFilter(7)).quantize(16).convert("RGB")
    face = read(strokes)
    assert (face.labels == known.labels).mean() > 0.8
    grey = read(picture.convert("L").convert("RGB"))
    assert (grey.labels == known.labels).mean() > 0.8


def test_a_profile_is_refused_or_called_a_guess():
    try:
        assert "turned far to the side" in " ".join(read(head(yaw=1.2)).remarks)
    except UserError as error:
        assert "turned" in str(error) or "no face was found" in str(error)
    with pytest.raises(UserError, match="no face was found|turned too far"):
        read(head(yaw=3.1))


def test_a_tilted_head_is_said_to_be_tilted(plain):
    picture = plain[0]
    assert not any("tilted" in said for said in read(picture.rotate(20, expand=True)).remarks)
    said = " ".join(read(picture.rotate(-60, expand=True)).remarks)
    assert "the face is tilted by 6" in said or "the face is tilted by 5" in said


def test_forty_pixels_are_enough_and_fifteen_are_not(plain):
    small = plain[0].resize((40, 40), Image.Resampling.BOX)
    assert read(small).labels.shape == (40, 40)
    with pytest.raises(UserError, match="15x15 pixels hold no face"):
        read(small.resize((15, 15)))


def test_shapes_on_a_wall_are_no_face(tmp_path, capsys):
    random = np.random.default_rng(0)
    picture = Image.new("RGB", (300, 220), (190, 180, 170))
    draw = ImageDraw.Draw(picture)
    for _ in range(20):
        x, y, wide, high = random.integers(0, 200, 4)
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        draw.ellipse((x, y, x + wide, y + high), fill=colour)
    path = tmp_path / "wall.png"
    picture.save(path)
    assert command.main(["--images", str(path), "--out", str(tmp_path / "masks")]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if "error" in line]) == 1
    assert "wall.png: no face was found" in said[-1]
