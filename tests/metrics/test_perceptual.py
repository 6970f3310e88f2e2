"""VGG features: the public file layout, what is refused, and the distance itself."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from semfaceedit.errors import UserError
from semfaceedit.metrics import perceptual
from semfaceedit.metrics.perceptual import PerceptualFeatures, load_perceptual

INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's vgg16 convolutions
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def published_layout() -> dict[str, torch.Tensor]:
    """Random weights under the published file's names (its classifier cut short)."""
    state, inputs = {}, 3
    for index, width in zip(INDICES, WIDTHS, strict=True):
        state[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3) / (3 * inputs**0.5)
        state[f"features.{index}.bias"] = torch.zeros(width)
        inputs = width
    return state | {"classifier.0.weight": torch.zeros(2, 2)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    folder, state = tmp_path_factory.mktemp("vgg"), published_layout()
    torch.save(state, folder / "vgg16.pth")
    save_file(state, folder / "vgg16.safetensors")
    return folder, state


def test_both_file_kinds_give_the_same_network(files):
    folder, state = files
    networks = []
    for name in ("vgg16.pth", "vgg16.safetensors"):
        network, origin = load_perceptual(folder / name)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert digest in origin and "not the published file" in origin
        networks.append(network)
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    for a, b in zip(networks[0].maps(picture), networks[1].maps(picture), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(networks[0].features["21"].weight, state["features.21.weight"])


def test_features_are_those_of_the_plain_stack(files):
    folder, state = files
    network, _ = load_perceptual(folder / "vgg16.pth")
    picture = torch.rand(1, 3, 24, 16) * 2 - 1
    mean, std = torch.tensor(perceptual.MEAN), torch.tensor(perceptual.STD)
    h = ((picture + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    expected = []
    for index in range(23):  # convolution, ReLU or pooling, as the published file numbers them
        if index in (4, 9, 16):
            h = torch.nn.functional.max_pool2d(h, 2)
        elif index in INDICES:
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            h = torch.nn.functional.conv2d(h, weight, bias, padding=1)
        else:
            h = h.relu()
        if index in (3, 8, 15, 22):
            expected.append(torch.nn.functional.normalize(h, dim=1))
    for found, wanted in zip(network.maps(picture), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_distance_is_zero_only_at_the_target_and_has_a_gradient():
    torch.manual_seed(0)
    network = PerceptualFeatures()
    target = torch.rand(1, 3, 16, 16) * 2 - 1
    assert network(target, target) == 0
    picture = (target + 0.1 * torch.randn_like(target)).requires_grad_()
    distance = network(picture, target)
    (gradient,) = torch.autograd.grad(distance, picture)
    assert distance > 0 and gradient.abs().sum() > 0
    assert network(picture - 0.1 * gradient / gradient.abs().max(), target) < distance


def test_without_weights_the_choices_are_said():
    with pytest.raises(UserError, match="--vgg-weights FILE.*--download-vgg"):
        load_perceptual()


def test_a_download_is_checked_against_the_published_hash(monkeypatch):
    asked = {}

    def fetch(url, **options):
        asked.update(options, url=url)
        return published_layout()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    _, origin = load_perceptual(download=True)
    assert "397923af" in asked["url"] and asked["check_hash"] and asked["weights_only"]
    assert asked["url"] in origin


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"hello"), "vgg.pth"),
        (lambda path: torch.save({"features.0.weight": torch.zeros(1)}, path), "no features.0"),
        (lambda path: torch.save(torch.zeros(3), path), "no state dict"),
        (lambda path: torch.save({"features.0.weight": Evil()}, path), "vgg.pth"),
    ],
)
def test_files_that_are_no_vgg_are_one_line(tmp_path, capsys, make, said):
    make(tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=said) as error:
        load_perceptual(tmp_path / "vgg.pth")
    assert "\n" not in str(error.value) and "must not run" not in capsys.readouterr().out


def test_pictures_too_small_for_three_poolings_are_refused():
    with pytest.raises(UserError, match="at least 8 pixels"):
        PerceptualFeatures().maps(torch.zeros(1, 3, 4, 4))
