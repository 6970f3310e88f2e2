"""Label maps of drawn faces with a known pose, and data sets made of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from semfaceedit.data.pose import TEMPLATE, TIP_BAND, WORLD_PER_UNIT
from semfaceedit.model.camera import CameraConfig, project
from semfaceedit.model.labels import CLASS_NAMES, PALETTE

ID = {name: index for index, name in enumerate(CLASS_NAMES)}


def template_points(yaw: float, pitch: float) -> np.ndarray:
    """The pose template's landmarks (6, 2) in [-1, 1], seen by the model's camera."""
    points = torch.tensor(TEMPLATE * WORLD_PER_UNIT)[None]
    pose = torch.tensor([[yaw, pitch]], dtype=torch.float64)
    return project(points, pose, CameraConfig())[0].numpy()


def draw_labels(
    size: int = 256, yaw: float = 0.0, pitch: float = 0.0, hidden: tuple[str, ...] = ()
) -> np.ndarray:
    """A face's label map (size, size) uint8 with features where the template projects."""
    points = (template_points(yaw, pitch) + 1) * size / 2
    left_eye, right_eye, tip, left_mouth, right_mouth, outline = points
    picture = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(picture)

    def ellipse(part: str, centre: np.ndarray, half_x: float, half_y: float) -> None:
        if part not in hidden:
            (x, y), w, h = centre, half_x * size, half_y * size
            draw.ellipse([(x - w, y - h), (x + w, y + h)], fill=ID[part])

    ellipse("cloth", np.array([size / 2, size]), 0.4, 0.12)
    ellipse("hair", outline - (0, 0.14 * size), 0.4, 0.42)
    ellipse("skin", outline - (0, 0.05 * size), 0.27, 0.36)
    nose_half = 0.15
    ellipse("nose", tip - (0, (sum(TIP_BAND) - 1) * nose_half * size), 0.045, nose_half)
    for side, eye in (("r", left_eye), ("l", right_eye)):  # the person's left: the image's right
        ellipse(f"{side}_eye", eye, 0.04, 0.02)
        ellipse(f"{side}_brow", eye - (0, 0.066 * size), 0.05, 0.01)
    mouth = (left_mouth + right_mouth) / 2
    half = (right_mouth[0] - left_mouth[0]) / 2 / size
    ellipse("u_lip", mouth - (0, 0.01 * size), half, 0.02)
    ellipse("l_lip", mouth + (0, 0.01 * size), half, 0.02)
    return np.array(picture)


def drawn_maps(count: int = 3) -> dict[str, np.ndarray]:
    """Maps of heads that look in different directions, by the name of their files."""
    return {f"face{i}": draw_labels(64, yaw=0.2 * (i - 1)) for i in range(count)}


def paint(labels: np.ndarray) -> np.ndarray:
    """A photograph stand-in (H, W, 3): the class colours, which survive scaling."""
    return PALETTE[labels]


def write_pairs(
    root: Path, maps: dict[str, np.ndarray], image_size: int = 128, palette: bool = True
) -> Path:
    """images/*.png and masks/*.png (palette or grey)."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, labels in maps.items():
        image = Image.fromarray(paint(labels)).resize((image_size, image_size))
        image.save(root / "images" / f"{name}.png")
        mask = Image.fromarray(labels)
        if palette:
            mask.putpalette(PALETTE.tobytes())
        mask.save(root / "masks" / f"{name}.png")
    return root


def write_native(root: Path, maps: dict[int, np.ndarray], image_size: int = 128) -> Path:
    """CelebAMask-HQ's own layout."""
    (root / "CelebA-HQ-img").mkdir(parents=True)
    for number, labels in maps.items():
        image = Image.fromarray(paint(labels)).resize((image_size, image_size))
        image.save(root / "CelebA-HQ-img" / f"{number}.jpg", quality=95)
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.unique(labels[labels > 0]):
            part = np.repeat(((labels == index) * np.uint8(255))[..., None], 3, -1)
            Image.fromarray(part).save(folder / f"{number:05d}_{CLASS_NAMES[index]}.png")
    return root
