"""The template fit and the crop that image and mask share."""

import numpy as np
import pytest
from face_maps import draw_labels, paint
from PIL import Image

from semfaceedit.data.align import (
    TEMPLATE,
    WINDOW_UNITS,
    Window,
    choose_window,
    crop,
    crop_pair,
    fit_window,
    template_misfit,
)
from semfaceedit.data.pose import Landmarks, landmarks_from_labels

NEAREST, LANCZOS = Image.Resampling.NEAREST, Image.Resampling.LANCZOS


def weak_perspective(scale: float, centre: tuple[float, float], yaw: float = 0.0) -> np.ndarray:
    """The template turned by yaw, scaled and moved: pixels (5, 2)."""
    x, y, z = TEMPLATE.T
    return np.stack([x * np.cos(yaw) + z * np.sin(yaw), -y], 1) * scale + centre


def test_fit_finds_scale_and_centre():
    window = fit_window(Landmarks(weak_perspective(120.0, (300.0, 200.0))))
    assert window.side == pytest.approx(120 * WINDOW_UNITS)
    assert window.left + window.side / 2 == pytest.approx(300)
    assert window.top + window.side / 2 == pytest.approx(200)


def test_misfit_is_in_sides_of_the_window():
    points = weak_perspective(120.0, (300.0, 200.0), yaw=0.3)
    window = fit_window(Landmarks(points))
    assert template_misfit(Landmarks(points), window) == pytest.approx(0, abs=1e-9)
    moved = points + np.random.default_rng(0).normal(0, 12, points.shape)
    assert 0.005 < template_misfit(Landmarks(moved), window) < 0.1
    doubled = fit_window(Landmarks(2 * moved))
    halved = template_misfit(Landmarks(moved), fit_window(Landmarks(moved)))
    assert template_misfit(Landmarks(2 * moved), doubled) == pytest.approx(halved)


def test_template_unit_at_256():
    window = fit_window(Landmarks(weak_perspective(50.0, (0.0, 0.0))))
    points = window.to_crop(weak_perspective(50.0, (0.0, 0.0)), 256)
    np.testing.assert_allclose(points, weak_perspective(108.6, (128.0, 128.0)), atol=1e-9)


def test_fit_is_the_same_for_turned_heads():
    turned = fit_window(Landmarks(weak_perspective(120.0, (300.0, 200.0), yaw=0.5)))
    assert turned.side == pytest.approx(120 * WINDOW_UNITS)
    assert turned.left + turned.side / 2 == pytest.approx(300)


def test_aligned_faces_coincide():
    """Crops of one face at several sizes and places show it at the same place."""
    whole = draw_labels(256)
    reference = None
    for size, offset in ((256, (0, 0)), (200, (40, 10)), (150, (60, 90))):
        labels = np.zeros((256, 256), np.uint8)
        small = np.asarray(Image.fromarray(whole).resize((size, size), NEAREST))
        labels[offset[1] : offset[1] + size, offset[0] : offset[0] + size] = small
        window, how = choose_window(landmarks_from_labels(labels), 256, 256)
        assert how == "eyes"
        points = landmarks_from_labels(crop(labels, window, 128, NEAREST)).points
        reference = points if reference is None else reference
        np.testing.assert_allclose(points, reference, atol=1.5)


@pytest.mark.parametrize("mask_size", [96, 192, 384])
def test_image_and_mask_share_one_window(mask_size):
    """A picture painted with class colours still matches its mask after alignment."""
    labels = draw_labels(384, 0.2)
    image = paint(labels)
    mask = np.asarray(Image.fromarray(labels).resize((mask_size, mask_size), NEAREST))
    window = Window(-25.3, 40.7, 380.0)  # reaches beyond two borders
    cut_image, cut_labels = crop_pair(image, mask, window, 96)
    assert cut_image.shape == (96, 96, 3) and cut_labels.shape == (96, 96)
    agreement = (np.abs(cut_image.astype(int) - paint(cut_labels)).max(-1) < 64).mean()
    assert agreement > 0.93
    shifted = (np.abs(cut_image.astype(int) - paint(np.roll(cut_labels, 3, 1))).max(-1) < 64).mean()
    assert agreement > shifted + 0.03


def test_identity_crop():
    labels = draw_labels(64)
    np.testing.assert_array_equal(crop(labels, Window(0, 0, 64), 64, NEAREST), labels)
    image = paint(labels)
    np.testing.assert_array_equal(crop(image, Window(0, 0, 64), 64, LANCZOS), image)


def test_outside_is_mirrored_at_the_border():
    ramp = np.arange(16, dtype=np.uint8)[None].repeat(16, 0)
    wide = crop(ramp, Window(-8, -8, 32), 32, NEAREST)
    np.testing.assert_array_equal(wide[0], [*range(7, -1, -1), *range(16), *range(15, 7, -1)])


def test_implausible_landmarks_fall_back_to_the_centre():
    good = weak_perspective(60.0, (100.0, 100.0))
    assert choose_window(Landmarks(good), 200, 200)[1] == "given"
    squeezed = good * (1, 0.2)
    far = good + (1000, 0)
    huge = good * 50 - 4900
    for points in (squeezed, far, huge, np.ones((5, 2))):
        window, how = choose_window(Landmarks(points), 200, 160)
        assert how == "centre"
        assert window == Window(20, 0, 160)
    assert choose_window(None, 100, 300) == (Window(0, 100, 100), "centre")
