"""Parts that an edit moves keep the photograph's own pixels."""

import numpy as np
import torch

from semfaceedit.editing.mask_edits import open_mouth, wide_mouth
from semfaceedit.editing.moved_parts import SIZE, displacements, drawn_along, enlarged
from semfaceedit.model.labels import CLASS_NAMES

ID = {name: index for index, name in enumerate(CLASS_NAMES)}


def face(**boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(128, 128) ids: skin but for boxes (left, top, right, bottom) of classes."""
    labels = np.full((SIZE, SIZE), ID["skin"], np.uint8)
    for name, (left, top, right, bottom) in boxes.items():
        labels[top:bottom, left:right] = ID[name]
    return labels


def field_between(before: np.ndarray, after: np.ndarray) -> torch.Tensor | None:
    return displacements(
        *(torch.from_numpy(m.astype(np.int64))[None, None] for m in (before, after))
    )


NOSE = (52, 40, 76, 70)
MOUTH = dict(u_lip=(44, 84, 84, 88), mouth=(48, 88, 80, 94), l_lip=(44, 94, 84, 99))


def test_a_part_that_moved_is_drawn_from_where_it_was():
    """The nose of the photograph lies four pixels to the left: it is found there, what is inside it
    too; far away nothing moves."""
    before, after = face(nose=NOSE), face(nose=tuple(np.add(NOSE, (4, 0, 4, 0))))
    field = field_between(before, after)
    assert field is not None
    middle = field[0, :, 50:60, 64:72] * SIZE / 2  # pixels, inside the nose as it is now
    assert (middle[0] + 4).abs().mean() < 0.7 and middle[1].abs().mean() < 0.5
    mask = torch.from_numpy(before == ID["nose"])[None, None].float()
    drawn = drawn_along(mask, field)[0, 0] > 0.5
    now = torch.from_numpy(after == ID["nose"])
    assert int((drawn & now).sum()) > 0.93 * int((drawn | now).sum())
    assert not field[..., :10, :].any() and not field[..., 110:, :].any()
    assert not (enlarged(field, SIZE)[0, 0] & now).any()


def test_a_part_that_grew_keeps_its_grain():
    """A third wider: what the photograph shows is stretched, not averaged away."""
    before = face(**MOUTH)
    field = field_between(before, wide_mouth(before))
    grain = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 1, SIZE, SIZE))).float()
    drawn = drawn_along(grain, field)[0, 0, 88:94, 46:82]
    assert drawn.std() > 0.5 * grain.std()  # half: of a bilinear filter
    moved = field[0, 0, 91] * SIZE / 2
    assert moved[46] > 3 and moved[82] < -3  # towards the middle


def test_what_did_not_move_and_what_is_new_are_left_alone():
    plain = face(nose=NOSE, hair=(0, 0, 128, 20))
    assert field_between(plain, plain) is None
    assert field_between(plain, face(nose=NOSE, hair=(0, 0, 128, 40))) is None
    assert field_between(face(), face(nose=NOSE)) is None  # no nose to move


def test_a_mouth_torn_open_is_no_detail_of_the_photograph():
    before = face(**MOUTH)
    field = field_between(
        before, face(**(MOUTH | dict(mouth=(48, 88, 80, 112), l_lip=(44, 112, 84, 117))))
    )
    torn = enlarged(field, SIZE)[0, 0]
    assert torn[92:108, 56:72].float().mean() > 0.5
    assert not torn[:70].any()


def test_a_wide_mouth_keeps_its_teeth():
    made = wide_mouth(face(**MOUTH))
    for name, (left, top, right, bottom) in MOUTH.items():
        rows, columns = np.nonzero(made == ID[name])
        assert (rows.min(), rows.max() + 1) == (top, bottom)
        wide = (columns.max() + 1 - columns.min()) / (right - left)
        assert abs(wide - 1.35) < 0.06
    assert wide_mouth(face()) is None


def test_an_open_mouth_drops_the_lower_lip():
    before = face(**MOUTH)
    made = open_mouth(before)
    assert (made[:88] == before[:88]).all()
    lowest = {n: np.nonzero(made == ID[n])[0].max() for n in ("mouth", "l_lip")}
    assert lowest["l_lip"] == 98 + 10  # two thirds of 15
    assert lowest["mouth"] == 93 + 10
    assert (made == ID["mouth"]).sum() > 2 * (before == ID["mouth"]).sum()
    assert open_mouth(face(nose=NOSE)) is None
