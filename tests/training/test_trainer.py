"""One step of training: gradients everywhere, stages, accumulation, processes, state."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import needs_native, use_isa
from training import drawn_faces, tiny, train_five_steps

from semfaceedit.errors import UserError
from semfaceedit.kernels import BackendError, use_backend
from semfaceedit.kernels._backend import implementation
from semfaceedit.kernels.film_siren_reference import FilmSirenCall
from semfaceedit.model.config import Phase
from semfaceedit.training import distributed
from semfaceedit.training.distributed import World, join_world
from semfaceedit.training.trainer import NonFiniteLossError, Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "drawn"
    drawn_faces(folder)
    return folder


@pytest.fixture(scope="module")
def data(data_folder):
    from semfaceedit.data.dataset import open_packed

    return open_packed(data_folder)


def new_trainer(seed: int = 0, **changes) -> Trainer:
    return Trainer(tiny(**changes), seed=seed, device=CPU, dtype=torch.float64)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}


def test_one_step_gives_every_parameter_a_gradient(data):
    for seed in range(60):  # the first seed at which points of all four groups occur
        trainer = new_trainer(
            seed, phases=(Phase(until=1.0, resolution=8, batch=8),), micro_batch=8
        )
        trainer.step(data)
        modules = (trainer.generator, trainer.d_image, trainer.d_semantic)
        missing = [
            name
            for module in modules
            for name, p in module.named_parameters()
            if p.grad is None or not p.grad.any()
        ]
        if not any("mappings" in name for name in missing):
            break
    assert missing == []


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("paired", [True, False])
def test_what_the_image_discriminator_reads(data, monkeypatch, paired, stage):
    """Real pair, fake pair without a graph, the real pair of R1, and the fake of the generator."""
    settings = tiny(stage1_iterations=2 - stage, stage2_iterations=1, augment=1.0, r1_interval=1)
    discriminator = dataclasses.replace(settings.discriminator, paired=paired)
    settings = dataclasses.replace(settings, discriminator=discriminator)
    trainer = Trainer(settings, seed=1, device=CPU, dtype=torch.float64)
    (micro,) = trainer._micro_batches(0, trainer.config.train.phases[0], data)
    fakes, read = [], []
    generate = Trainer._generate
    monkeypatch.setattr(
        Trainer, "_generate", lambda *a, **b: fakes.append(generate(*a, **b)) or fakes[-1]
    )
    trainer.d_image.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    trainer.step(data)
    (fake,) = fakes
    real_view, fake_view = micro.real_augmentation, micro.fake_augmentation
    real = [real_view.image(micro.real_image), real_view.semantics(micro.real_map)]
    made = [fake_view.image(fake.image), fake_view.semantics(fake.map)]
    for ours, theirs in zip(read, (real, made, real, made), strict=True):
        torch.testing.assert_close(ours, torch.cat(theirs[: 1 + paired], 1))
    assert [x.requires_grad for x in read] == [False, False, True, True]
    assert depends(read[3], fake.map) == (paired and stage == 1)


def depends(result: torch.Tensor, on: torch.Tensor) -> bool:
    """Whether a gradient of `result` reaches `on`, which no parameter is."""
    open_, seen = [result.grad_fn], set()
    while open_:
        node = open_.pop()
        if node is not None and node not in seen:
            seen.add(node)
            open_ += [following for following, _ in node.next_functions]
    return on.grad_fn in seen


def test_rare_classes_come_more_often(data, data_folder, monkeypatch):
    """Of 24 samples drawn from 12 faces, one of which alone shows glasses."""
    from semfaceedit.data.dataset import FaceDataset, open_packed

    glasses = 3
    labels = np.where(data.labels == glasses, 1, data.labels)
    labels[5, 8:12, 8:24] = glasses
    rare = dataclasses.replace(open_packed(data_folder), labels=labels)
    seen = []
    batch = FaceDataset.batch
    monkeypatch.setattr(
        FaceDataset, "batch", lambda self, *call: seen.extend(call[0]) or batch(self, *call)
    )
    trainer = new_trainer(rare_share=0.5)
    for step in range(6):
        list(trainer._micro_batches(step, trainer.config.train.phases[0], rare))
    wanted = 24 * 6 / rare.repeats(0.5).sum()  # half over a twelfth: six times
    assert len(seen) == 24 and rare.repeats(0.5)[5] == 6
    assert abs(seen.count(5) - wanted) <= 3


def test_stage_two_freezes_geometry_predictor_and_semantic_discriminator(data):
    trainer = new_trainer(stage1_iterations=1, stage2_iterations=3)
    trainer.step(data)
    before = snapshot(trainer.generator)
    before_image, before_semantic = snapshot(trainer.d_image), snapshot(trainer.d_semantic)
    log = trainer.step(data)
    moved = changed(before, trainer.generator)
    assert moved and all(name.startswith("appearance") for name in moved)
    assert changed(before_image, trainer.d_image)
    assert not changed(before_semantic, trainer.d_semantic)
    assert "g_semantic" not in log and "d_latent" not in log


def test_stage_one_moves_everything(data):
    trainer = new_trainer(seed=1)
    before = snapshot(trainer.generator)
    for _ in range(3):
        trainer.step(data)
    moved = changed(before, trainer.generator)
    assert {name.split(".")[0] for name in moved} == {"manifolds", "geometry", "appearance"}


@needs_native
def test_layers_run_at_the_precision_of_the_settings(data):
    """Forward and back; what the CPU lacks is refused before a step."""
    asked = []
    module = implementation("film_siren", "cpu")
    launches = {name: getattr(module, name) for name in ("forward", "backward")}

    def watched(name):
        def run(*arguments):
            asked.extend(a.precision for a in arguments if isinstance(a, FilmSirenCall))
            return launches[name](*arguments)

        return run

    with use_isa("amx_model"), use_backend("cpu"), pytest.MonkeyPatch.context() as patch:
        for name in launches:
            patch.setattr(module, name, watched(name))
        trainer = Trainer(tiny(cpu_precision="fast"), seed=0, device=CPU, world=World())
        assert (trainer.layers.backend, trainer.layers.precision) == ("cpu", "fast")
        trainer.step(data)
    assert len(asked) >= 4 and set(asked) == {"fast"}
    with use_isa("portable"), pytest.raises(BackendError, match="'fast': it needs"):
        Trainer(tiny(cpu_precision="fast"), seed=0, device=CPU, world=World())
    with pytest.raises(UserError, match="cpu_precision 'bf16': use one of"):
        tiny(cpu_precision="bf16")


def test_every_optimizer_group_is_consumed(data):
    trainer = new_trainer()
    owned = {
        id(p)
        for optimizer in trainer.optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    modules = (trainer.generator, trainer.d_image, trainer.d_semantic)
    assert owned == {id(p) for module in modules for p in module.parameters()}


def test_accumulation_equals_one_batch(data):
    # D's own step comes first in both; gradients of means over equal parts are equal.
    common = {"augment": 0.7, "cutout": 0.5, "adversarial_loss": "relativistic", "r2": True}
    whole = new_trainer(micro_batch=4, **common)
    parts = new_trainer(micro_batch=1, **common)
    for trainer in (whole, parts):
        for _ in range(2):
            trainer.step(data)
    for name, p in whole.generator.named_parameters():
        other = dict(parts.generator.named_parameters())[name]
        torch.testing.assert_close(other, p, rtol=0, atol=1e-9, msg=name)


def test_two_processes_equal_one(data_folder, tmp_path):
    alone = train_five_steps(data_folder, World())
    out = tmp_path / "result.pt"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root}/tests/helpers"}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--master-port", "29517", str(root / "tests/helpers/training.py"),
         str(data_folder), str(out)],
        check=True, env=environment, timeout=300,
    )  # fmt: skip
    together = torch.load(out, weights_only=True)
    assert together.keys() == alone.keys()
    worst = max(float((together[name] - alone[name]).abs().max()) for name in alone)
    assert worst <= 1e-8


def test_a_batch_must_divide_among_processes(data):
    trainer = Trainer(tiny(), seed=0, device=CPU, world=World(0, 3), dtype=torch.float64)
    with pytest.raises(UserError, match="batch 4 does not divide among 3 processes"):
        trainer.step(data)


def test_resumed_state_goes_on_bit_for_bit(data, tmp_path):
    straight, first = new_trainer(one_phase=False), new_trainer(one_phase=False)
    for _ in range(6):
        straight.step(data)
    for _ in range(3):
        first.step(data)
    torch.save(first.state(), tmp_path / "state.pt")
    second = new_trainer(seed=0, one_phase=False)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert set(first.latest) == set(second.latest) >= {"r1_image", "weights"}
    for _ in range(3):
        second.step(data)
    for name, value in straight.generator.state_dict().items():
        assert torch.equal(value, second.generator.state_dict()[name]), name
    for name, value in straight.averages[1].state_dict().items():
        assert torch.equal(value, second.averages[1].state_dict()[name]), name


def test_adapted_augmentation_goes_on_where_it_was(data):
    adaptive = {"augment": 0.8, "augment_target": 0.01, "augment_ramp": 20}
    first = new_trainer(**adaptive)
    for _ in range(3):
        log = first.step(data)
    assert log["augmentation"] == first.augmentation.strength
    second = new_trainer(**adaptive)
    state = first.state()
    second.load_state(state)
    assert second.augmentation == first.augmentation != new_trainer(**adaptive).augmentation
    del state["augmentation"]  # a state of an older version
    second.load_state(state)


def test_r2_is_the_penalty_on_what_the_discriminators_see_of_generated_pictures(data):
    trainer = new_trainer(r2=True, r1_interval=1)
    (micro,) = trainer._micro_batches(0, trainer.config.train.phases[0], data)
    fake = trainer._generate(micro, grad=False)
    wanted = {}
    for name, network, picture in (
        ("r2_image", trainer.d_image, fake.image), ("r2_semantic", trainer.d_semantic, fake.map)
    ):  # fmt: skip
        picture = picture.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(picture)[0].sum(), picture)
        wanted[name] = gradient.square().sum() / len(picture)
    log = trainer.step(data)
    for name, value in wanted.items():
        torch.testing.assert_close(log[name], value)
    assert not new_trainer(r1_interval=1).step(data).keys() & wanted.keys()


def test_a_relativistic_generator_is_compared_with_the_photographs_of_its_step(data):
    trainer = new_trainer(adversarial_loss="relativistic")
    (micro,) = trainer._micro_batches(0, trainer.config.train.phases[0], data)
    fake = trainer._generate(micro, grad=False)
    log = trainer.step(data)  # the generator's side comes after D has moved
    for name, network, real, made in (
        ("g_image", trainer.d_image, micro.real_image, fake.image),
        ("g_semantic", trainer.d_semantic, micro.real_map, fake.map),
    ):
        with torch.no_grad():
            gap = network(real)[0] - network(made)[0]
        torch.testing.assert_close(log[name], torch.nn.functional.softplus(gap).mean())


def test_a_predictor_of_rate_nought_stays_and_costs_no_gradient(data):
    trainer = new_trainer(predictor_lr=0.0)
    before = snapshot(trainer.generator)
    trainer.step(data)
    assert all(p.grad is None for p in trainer.generator.manifolds.parameters())
    moved = {name.split(".")[0] for name in changed(before, trainer.generator)}
    assert moved == {"geometry", "appearance"}


def test_adaptive_augmentation_needs_scores_with_a_meaning():
    with pytest.raises(UserError, match="augment_target reads the sign"):
        tiny(augment_target=0.6, adversarial_loss="relativistic")
    with pytest.raises(UserError, match="adversarial_loss 'hinge'"):
        tiny(adversarial_loss="hinge")


def test_phases_images_and_fading(data):
    trainer = new_trainer(one_phase=False, stage1_iterations=8, stage2_iterations=4)
    assert [trainer.phase(step)[0].resolution for step in range(12)] == [8] * 4 + [16] * 8
    assert trainer.images_before(0) == 0
    assert trainer.images_before(5) == 20
    assert trainer.images_before(12) == 48
    fades = [trainer.step(data)["fade"] for _ in range(7)]
    assert fades == [1, 1, 1, 1, 0.5, 1, 1]


def test_learning_rate_falls_over_the_last_share_of_a_stage():
    trainer = new_trainer(stage1_iterations=10, stage2_iterations=5, decay_share=0.4)
    rates = []
    for step in range(15):
        trainer._set_learning_rates(step)
        rates.append(trainer.optimizers["d_image"].param_groups[0]["lr"])
    base = rates[0]
    assert rates[:7] == [base] * 7
    assert rates[9] == pytest.approx(base * 0.1 / 0.4)
    assert rates[10] == base  # the second stage starts anew


def test_a_loss_that_is_no_number_stops_before_weights_change(data):
    trainer = new_trainer()
    with torch.no_grad():
        trainer.d_image.last.bias.fill_(float("nan"))
    before = snapshot(trainer.generator)
    with pytest.raises(NonFiniteLossError, match="step 0"):
        trainer.step(data)
    assert not changed(before, trainer.generator)


def test_averages_follow_the_generator(data):
    trainer = new_trainer(ema_decays=(0.5,), ema_warmup=False)
    start = snapshot(trainer.generator)
    trainer.step(data)
    for name, p in trainer.averages[0].named_parameters():
        now = dict(trainer.generator.named_parameters())[name]
        torch.testing.assert_close(p, (start[name] + now) / 2)


def test_ray_jitter_moves_the_rays_of_each_picture(data, monkeypatch):
    shifts = []
    for jitter in (0.0, 0.5):
        trainer = new_trainer(ray_jitter=jitter)
        forward = trainer.generator.forward
        monkeypatch.setattr(
            trainer.generator,
            "forward",
            lambda *a, forward=forward, **k: shifts.append(k["shift"]) or forward(*a, **k),
        )
        trainer.step(data)
    assert shifts[0] is None
    assert shifts[1].abs().max() <= 0.25
    assert len(shifts[1].unique()) == shifts[1].numel()


def test_processes_wait_for_hours_while_the_data_are_packed(monkeypatch):
    given = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda _, **other: given.update(other)
    )
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    assert join_world("cpu").rank == 1 and given["timeout"].total_seconds() >= 12 * 3600
