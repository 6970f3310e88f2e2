"""What discriminators see: changes that image and map share, and how strong they are."""

import torch

from semfaceedit.model.config import TrainConfig
from semfaceedit.training.augment import CUTOUT, AdaptiveAugmentation, Augmentation


def draw(count: int, probability: float, cutout: float, seed: int = 0) -> Augmentation:
    return Augmentation.draw(
        count, probability, torch.Generator().manual_seed(seed),
        device=torch.device("cpu"), dtype=torch.float64, cutout=cutout,
    )  # fmt: skip


def test_the_blank_square_is_grey_in_the_image_and_no_class_in_the_map():
    image, semantics = torch.ones(16, 3, 16, 16), torch.full((16, 19, 16, 16), 0.5)
    view = draw(16, 0.0, 1.0)
    blank = view.image(image)[:, 0] == 0
    assert torch.equal(view.image(image), (~blank[:, None]).expand_as(image).to(image))
    assert torch.equal(view.semantics(semantics) == -1, blank[:, None].expand_as(semantics))
    side = int(16 * CUTOUT)
    for picture, (x, y) in zip(blank, view.blank, strict=True):
        rows, columns = picture.any(1).nonzero()[:, 0], picture.any(0).nonzero()[:, 0]
        assert picture.sum() == len(rows) * len(columns) > 0  # a rectangle
        for found, middle in ((rows, y), (columns, x)):
            first = max(0, round(16 * float(middle)) - side // 2)
            assert abs(int(found[0]) - first) <= 1 and len(found) <= side + 1


def test_squares_come_with_their_probability_and_parts_keep_theirs():
    view = draw(4000, 0.0, 0.3)
    assert abs(float((~view.blank[:, 0].isnan()).double().mean()) - 0.3) < 0.03
    assert torch.equal(view[10:20].blank.nan_to_num(), view.blank[10:20].nan_to_num())


def test_without_cutout_the_draws_are_as_ever():
    with_squares, without = draw(8, 0.7, 1.0), draw(8, 0.7, 0.0)
    assert without.blank is None
    assert torch.equal(with_squares.shift, without.shift)
    random = torch.Generator().manual_seed(0)
    torch.rand(8, 9, generator=random, dtype=torch.float64)
    following = torch.rand(1, generator=random)
    random.manual_seed(0)
    Augmentation.draw(8, 0.7, random, device=torch.device("cpu"), dtype=torch.float64)
    assert torch.equal(torch.rand(1, generator=random), following)


def test_augmentation_grows_while_photographs_are_known_too_well():
    train = TrainConfig(augment=0.8, augment_target=0.5, augment_ramp=1000)
    adaptive = AdaptiveAugmentation.of(train)
    assert adaptive.strength == 0
    for _ in range(100):  # 800 images, of which the mean sign passes 0.5 after some 340
        adaptive.adapt(1.0, 8, train)
    assert 0.3 < adaptive.strength < 0.6 and adaptive.sign > 0.7
    for _ in range(1000):
        adaptive.adapt(0.2, 8, train)
    assert adaptive.strength == 0
    assert AdaptiveAugmentation.of(TrainConfig(augment=0.8)).strength == 1
