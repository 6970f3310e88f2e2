"""Mean codes: found once a checkpoint, kept on the disk, never another checkpoint's."""

import pytest
import torch
from faces import open_editor, settings, write_checkpoint
from support import change_a_number

from semfaceedit.model import mean_face as means
from semfaceedit.model.generator import Generator
from semfaceedit.model.mean_face import fingerprint, mean_codes


def kept(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("**/mean-codes-*.safetensors"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forbid_averaging(monkeypatch) -> None:
    def refuse(self, count=0, seed=0):
        raise AssertionError("the mean was found again")

    monkeypatch.setattr(Generator, "mean_codes", refuse)


def test_means_are_kept_beside_the_weights(tmp_path, cache, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    path = write_checkpoint(folder)
    found = mean_codes(Generator.from_checkpoint(path))
    again = Generator.from_checkpoint(path)
    assert kept(folder) == [f"mean-codes-{fingerprint(again)}.safetensors"]
    forbid_averaging(monkeypatch)
    read = mean_codes(again)
    for part in ("geometry", "appearance"):
        for name in ("frequencies", "phases"):
            one, two = (getattr(getattr(codes, part), name) for codes in (found, read))
            assert torch.equal(one, two) and one.shape[0] == 1
    assert not cache.exists()


def test_they_are_the_average_over_10000_latents(tmp_path, cache):
    generator = Generator.from_checkpoint(write_checkpoint(tmp_path))
    direct = generator.mean_codes(10_000, 0)
    assert torch.equal(mean_codes(generator).geometry.phases, direct.geometry.phases)


def test_a_folder_that_cannot_be_written_sends_them_to_the_cache(tmp_path, cache, monkeypatch):
    path, real = write_checkpoint(tmp_path), means.write_tensors

    def guarded(target, tensors, header):
        if target.parent == tmp_path:
            raise PermissionError(13, "read-only", str(target))
        real(target, tensors, header)

    monkeypatch.setattr(means, "write_tensors", guarded)
    mean_codes(Generator.from_checkpoint(path))
    assert [p.parent for p in tmp_path.glob("**/mean-codes-*")] == [cache]
    forbid_averaging(monkeypatch)
    mean_codes(Generator.from_checkpoint(path))


def test_other_weights_have_other_means(tmp_path, cache):
    for seed in (1, 2):
        mean_codes(Generator.from_checkpoint(write_checkpoint(tmp_path, seed)))
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["text", "cut", "number"])
def test_a_damaged_file_is_made_again(tmp_path, cache, monkeypatch, damage):
    path = write_checkpoint(tmp_path)
    whole = mean_codes(Generator.from_checkpoint(path))
    (file,) = tmp_path.glob("mean-codes-*")
    data = file.read_bytes()
    if damage == "number":
        change_a_number(file)
    else:
        file.write_bytes(b"hello" if damage == "text" else data[: len(data) // 2])
    read = mean_codes(Generator.from_checkpoint(path))
    assert torch.equal(read.geometry.phases, whole.geometry.phases)
    forbid_averaging(monkeypatch)
    assert torch.equal(
        mean_codes(Generator.from_checkpoint(path)).geometry.phases, whole.geometry.phases
    )


def test_a_generator_without_a_file_leaves_none(tmp_path, cache):
    mean_codes(Generator(settings().model))
    assert kept(tmp_path) == []


def test_fingerprints_tell_weights_apart(tmp_path):
    one, other, same = (open_editor(tmp_path, seed).generator for seed in (1, 2, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
