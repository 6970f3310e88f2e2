"""Settings of a new run from a file and by name."""

import dataclasses

import pytest

from semfaceedit.errors import UserError
from semfaceedit.model.config import Phase, small, tiny
from semfaceedit.training.settings import (
    changed,
    read_assignments,
    read_settings_file,
    with_batch,
)


def test_a_file_and_assignments_change_a_preset(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
        preset = "tiny"
        paired = true
        [train]
        generator_lr = 1e-3
        image_r1 = 4
        phases = ["8:5", "16:15"]
        [discriminator]
        channels = [8, 8, 16, 24]
        [model]
        width = 24
        [model.camera]
        yaw_std = 0.2
        """
    )
    options, changes = read_settings_file(path)
    assert options == {"preset": "tiny", "paired": True}
    base = tiny()
    config = changed(base, changes, where="--config")
    assignments = read_assignments(["train.image_r1=2", "train.betas=[0.0, 0.99]"])
    config = changed(config, assignments, where="--set")
    assert config == dataclasses.replace(
        base,
        model=dataclasses.replace(
            base.model,
            width=24,
            resolution=16,
            camera=dataclasses.replace(base.model.camera, yaw_std=0.2),
        ),
        discriminator=dataclasses.replace(base.discriminator, channels=(8, 8, 16, 24)),
        train=dataclasses.replace(
            base.train,
            generator_lr=1e-3,
            image_r1=2.0,
            betas=(0.0, 0.99),
            stage1_iterations=20,
            phases=(
                Phase(until=0.25, resolution=8, batch=4),
                Phase(until=1, resolution=16, batch=4),
            ),
        ),
    )
    assert isinstance(config.train.image_r1, float)


def test_a_setting_is_given_once():
    with pytest.raises(UserError, match="gives train.image_r1 twice"):
        read_assignments(["train.image_r1=2", "train.image_r1=3"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("train.generator_rl=1", "did you mean 'train.generator_lr'?"),
        ("generator_lr=1", "did you mean 'train.generator_lr'?"),
        ("model.widht=3", "did you mean 'model.width'?"),
        ("train.nope=1", "no setting 'train.nope': `semfaceedit train --dry-run` prints all"),
        ("train.lr=1", "did you mean 'train.generator_lr' or 'train."),
        ("train.generator_lr=fast", "give a number"),
        ("train.generator_lr=true", "give a number"),
        ("train.generator_lr=-1", "must be at least 0"),
        ("train.micro_batch=1.5", "give a whole number"),
        ("train.micro_batch=0", "must be at least 1"),
        ("train.ema_warmup=1", "give true or false"),
        ("train.betas=0.5", "give a list"),
        ("train.betas=[0.5]", "give a list of 2 values"),
        ("train.adversarial_loss=hinge", "use one of 'non-saturating', 'relativistic'"),
        ("train.phases=[64]", "RESOLUTION:STEPS"),
        ('train.phases=["64"]', "write RESOLUTION:STEPS"),
        ('train.phases=["64/:8"]', "write RESOLUTION:STEPS"),
        ('train.phases=["32/64:8"]', "a window of 64 pixels: must be from 4 to the resolution, 32"),
        ("model.group_of_class=[0]", "group_of_class needs 19 entries"),
        ("train.generator_lr", "write NAME=VALUE"),
    ],
)
def test_wrong_settings_are_one_clear_line(text, message):
    with pytest.raises(UserError, match="--set") as error:
        changed(small(), read_assignments([text]), where="--set")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("train = 3", "'train' is no table of settings"),
        ("[generator]\nlr = 1", "'generator' is no table of settings"),
        ("model = 1", "'model' is no table of settings"),
        ("[train", "is no TOML file"),
        ("[train]\nlr = 1", "no setting 'train.lr'"),
        ("\xff", "is no TOML file"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="--config") as error:
        _, changes = read_settings_file(path)
        changed(tiny(), changes, where=f"--config {path}")
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_file_that_is_missing():
    from pathlib import Path

    with pytest.raises(UserError, match="No such file"):
        read_settings_file(Path("nowhere.toml"))


def test_batch_sets_every_phase():
    config = with_batch(small(), 4)
    assert {phase.batch for phase in config.train.phases} == {4} and config.train.micro_batch == 4
    assert with_batch(small(), 32).train.micro_batch == small().train.micro_batch
    with pytest.raises(UserError, match="--batch 0"):
        with_batch(small(), 0)
