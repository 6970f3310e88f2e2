"""One step of training: D_c and D_s, then the generator (Eq. 3-8).

Everything random in step t follows from (seed, t), so that a resumed run goes on bit for bit and
several processes share one global batch.
"""

import contextlib
import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data.dataset import FaceDataset, sample_order
from ..data.seeds import mixed_seed
from ..errors import UserError
from ..kernels import resolve, use_backend
from ..model.camera import sample_poses
from ..model.config import Config, Phase, TrainConfig
from ..model.config_values import to_dict
from ..model.discriminator import Discriminator, build_discriminators, image_input
from ..model.generator import Generator, sample_latents
from ..model.growth import grow
from ..model.windows import Windows
from .augment import AdaptiveAugmentation, Augmentation
from .distributed import World
from .losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    known_pose_loss,
    latent_loss,
    pose_loss,
    relativistic_loss,
)
from .state import Fake, Log, MicroBatch, StepState


class NonFiniteLossError(Exception):
    """A loss became NaN or infinite."""


class Trainer:
    """Generator, both discriminators, their optimisers and averages, and one step of training."""

    def __init__(
        self,
        config: Config,
        *,
        seed: int,
        device: torch.device,
        world: World | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.config, self.seed, self.device, self.dtype = config, seed, device, dtype
        self.world = world or World()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(config.model).to(device, dtype)
            d_image, d_semantic = build_discriminators(config)
        self.d_image = d_image.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.d_semantic = d_semantic.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averages = [copy.deepcopy(self.generator).eval() for _ in config.train.ema_decays]
        for average in self.averages:
            average.requires_grad_(False)
        predictor = list(self.generator.manifolds.parameters())
        modules = [*self.generator.geometry.parameters(), *self.generator.appearance.parameters()]
        train = config.train
        self.optimizers = {
            "generator": torch.optim.Adam(
                [
                    {"params": modules, "lr": train.generator_lr},
                    {"params": predictor, "lr": train.predictor_lr},
                ],
                betas=train.betas,
                fused=True,
            ),
        }
        for name, network in (("d_image", self.d_image), ("d_semantic", self.d_semantic)):
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), lr=train.discriminator_lr, betas=train.betas, fused=True
            )
        self.base_lrs = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        amp = train.mixed_precision and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp)
        on_cpu = device.type == "cpu" and train.cpu_precision != "auto"
        self.precision = train.cpu_precision if on_cpu else None
        with use_backend(precision=self.precision):
            self.layers = resolve("film_siren", None, None, torch.zeros(1, device=device))
        self.augmentation = AdaptiveAugmentation.of(train)
        self.completed = 0  # steps done
        self.latest: Log = {}  # the last of each value; R1 is not computed in every step

    # -- where a step stands ------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        return self.config.train.stage1_iterations + self.config.train.stage2_iterations

    def stage(self, step: int) -> int:
        return 1 if step < self.config.train.stage1_iterations else 2

    def phase(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step at which it began."""
        start = 0
        for phase in self.config.train.phases:
            end = round(phase.until * self.config.train.stage1_iterations)
            if step < end:
                return phase, start
            start = end
        last = self.config.train.phases[-1]
        return last, start

    def images_before(self, step: int) -> int:
        return images_before(self.config.train, step)

    # -- one step -----------------------------------------------------------------------------

    def step(self, data: FaceDataset) -> Log:
        """One step of the discriminators and one of the generator; returns what to log."""
        step, train = self.completed, self.config.train
        self._set_learning_rates(step)
        stage = self.stage(step)
        self.generator.manifolds.requires_grad_(stage == 1 and train.predictor_lr > 0)
        self.generator.geometry.requires_grad_(stage == 1)

        phase, phase_start = self.phase(step)
        micros = list(self._micro_batches(step, phase, data))
        fade = self._fade(step, phase_start)
        state = StepState(
            stage=stage,
            fade=fade,
            share=1 / len(micros),
            whole=micros[0].windows is None,
            log={"fade": fade},
        )
        # With one micro-batch its graph is kept for the generator's step: one forward serves both.
        fakes = [self._generate(micro, grad=len(micros) == 1) for micro in micros]

        self._zero_grads("d_image", "d_semantic")
        for micro, fake in zip(micros, fakes, strict=True):
            self._discriminator_backward(micro, fake, state)
        self._optimize("d_image", self.d_image, state.log)
        if stage == 1:
            self._optimize("d_semantic", self.d_semantic, state.log)
        if train.augment_target:
            sign = float(self.world.mean(state.log["d_image_sign"]))
            self.augmentation.adapt(sign, phase.batch, train)
            state.log["augmentation"] = self.augmentation.strength

        self._zero_grads("generator")
        self.d_image.requires_grad_(False)
        self.d_semantic.requires_grad_(False)
        for micro, fake in zip(micros, fakes, strict=True):
            if len(micros) > 1:
                fake = self._generate(micro, grad=True)
            self._generator_backward(micro, fake, state)
        self.d_image.requires_grad_(True)
        self.d_semantic.requires_grad_(True)
        self._optimize("generator", self.generator, state.log)
        self.scaler.update()
        self._update_averages(step)
        self.completed += 1
        self.latest.update(state.log)
        return state.log

    def _fade(self, step: int, phase_start: int) -> float:
        """How far the discriminators' new resolution is faded in, from 0 to 1."""
        train = self.config.train
        if phase_start == 0 or self.stage(step) == 2 or not train.fade_iterations:
            return 1.0
        return min(1.0, (step - phase_start + 1) / train.fade_iterations)

    def _micro_batches(self, step: int, phase: Phase, data: FaceDataset) -> Iterator[MicroBatch]:
        """This process's part of the global batch of a step, in micro-batches."""
        if phase.batch % self.world.size:
            raise UserError(
                f"batch {phase.batch} does not divide among {self.world.size} processes"
            )
        random = torch.Generator().manual_seed(mixed_seed(self.seed, step))
        z, appearance = sample_latents(self.config.model, phase.batch, generator=random)
        pose = sample_poses(phase.batch, self.config.model.camera, generator=random)
        indices, flips = sample_order(
            self.seed,
            data.repeats(self.config.train.rare_share),
            self.images_before(step),
            phase.batch,
        )
        strength = self.augmentation.strength
        augmentations = [
            Augmentation.draw(
                phase.batch, strength * self.config.train.augment, random, device=self.device,
                dtype=self.dtype, cutout=strength * self.config.train.cutout,
            )
            for _ in range(2)
        ]  # fmt: skip
        shift = self.config.train.ray_jitter * (torch.rand(phase.batch, 2, generator=random) - 0.5)
        resolution, windows = phase.resolution, None
        if phase.window:
            if float(torch.rand((), generator=random)) < self.config.train.window_share:
                windows = Windows.draw(phase.batch, phase.window, resolution, random)
            else:
                resolution = phase.window
        own = range(phase.batch)[self.world.share(phase.batch)]
        for start in range(own.start, own.stop, self.config.train.micro_batch):
            part = slice(start, min(start + self.config.train.micro_batch, own.stop))
            real = data.batch(indices[part], flips[part], resolution)
            view = windows[part] if windows is not None else None
            cut = view.cut_pictures if view is not None else lambda pictures: pictures
            yield MicroBatch(
                resolution=resolution,
                windows=view,
                z=self._to(z[part]),
                appearance=self._to(appearance[part]),
                pose=self._to(pose[part]),
                shift=self._to(shift[part]),
                real_image=self._to(cut(real.images)),
                real_map=2 * self._to(cut(real.semantics)) - 1,
                real_pose=self._to(real.poses),
                real_augmentation=augmentations[0][part],
                fake_augmentation=augmentations[1][part],
            )

    def _generate(self, micro: MicroBatch, *, grad: bool) -> Fake:
        layers = use_backend(precision=self.precision)
        with torch.set_grad_enabled(grad), self._autocast(), layers:
            output = self.generator(
                micro.z, micro.appearance, micro.pose, resolution=micro.resolution,
                shift=micro.shift if self.config.train.ray_jitter else None, windows=micro.windows,
            )  # fmt: skip
            return Fake(output.image, 2 * output.semantics - 1, output.weights.detach())

    def _discriminator_backward(self, micro: MicroBatch, fake: Fake, state: StepState) -> None:
        """Gradients of D_c (and in stage 1 D_s): Eq. 3-5 on fakes, the same with R1 on reals;
        R2 on fakes where asked for."""
        train = self.config.train
        real_view, fake_view = micro.real_augmentation, micro.fake_augmentation
        real_picture = self._picture(real_view, micro.real_image, micro.real_map)
        fake_picture = self._picture(fake_view, fake.image, fake.map)
        with self._autocast(discriminator=True):
            real, real_pose = self.d_image(real_picture, state.fade, micro.windows)
            score, pose = self.d_image(fake_picture.detach(), state.fade, micro.windows)
        loss = self._discriminator_loss(real, score)
        pose_term = pose_loss(pose.to(self.dtype), micro.pose)
        real_pose_term = known_pose_loss(real_pose.to(self.dtype), micro.real_pose)
        regressed = train.pose_weight * pose_term + train.real_pose_weight * real_pose_term
        total = loss + state.whole * regressed
        state.add(d_image=loss, d_pose=pose_term, d_real_pose=real_pose_term)
        state.add(d_image_real=real.mean(), d_image_fake=score.mean())
        state.add(d_image_sign=real.float().sign().mean())
        real_map, fake_map = real_view.semantics(micro.real_map), fake_view.semantics(fake.map)
        if state.stage == 1:
            with self._autocast(discriminator=True):
                real_s, _ = self.d_semantic(real_map, state.fade, micro.windows)
                score_s, latent = self.d_semantic(fake_map.detach(), state.fade, micro.windows)
            loss_s = self._discriminator_loss(real_s, score_s)
            latent_term = latent_loss(latent.to(self.dtype), micro.z)
            total = total + loss_s + state.whole * train.latent_weight * latent_term
            state.add(d_semantic=loss_s, d_latent=latent_term)
            state.add(d_semantic_real=real_s.mean(), d_semantic_fake=score_s.mean())
        self._check_finite(total)
        self.scaler.scale(total * state.share).backward()
        if self.completed % train.r1_interval == 0:
            image_r1 = train.image_r1 if state.stage == 1 else train.stage2_image_r1
            sets = {"r1": (real_picture, real_map)}
            if train.r2:
                sets["r2"] = (fake_picture, fake_map)
            for name, (picture, semantics) in sets.items():
                penalties = [(self.d_image, f"{name}_image", picture, image_r1)]
                if state.stage == 1:
                    penalties += [
                        (self.d_semantic, f"{name}_semantic", semantics, train.semantic_r1)
                    ]
                for penalty in penalties:
                    self._penalty_backward(*penalty, micro.windows, state)

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        side = relativistic_loss if self._relativistic else discriminator_loss
        return side(real.to(self.dtype), fake.to(self.dtype))

    def _generator_loss(
        self,
        discriminator: nn.Module,
        score: Tensor,
        real: Tensor,
        fade: float,
        windows: Windows | None,
    ) -> Tensor:
        """The generator's side; a relativistic one compares with `real`, pictures or maps."""
        if not self._relativistic:
            return generator_loss(score.to(self.dtype))
        with torch.no_grad(), self._autocast(discriminator=True):
            real_score, _ = discriminator(real, fade, windows)
        return relativistic_loss(score.to(self.dtype), real_score.to(self.dtype))

    @property
    def _relativistic(self) -> bool:
        return self.config.train.adversarial_loss == "relativistic"

    def _picture(self, view: Augmentation, image: Tensor, semantics: Tensor) -> Tensor:
        """What D_c reads: augmented after the draw of `view`, alike in image and map."""
        return image_input(self.d_image, view.image(image), view.semantics(semantics))

    def _penalty_backward(
        self,
        discriminator: nn.Module,
        name: str,
        pictures: Tensor,
        weight: float,
        windows: Windows | None,
        state: StepState,
    ) -> None:
        """R1 or R2 in full precision, outside autocast; lazily, the weight times the interval."""
        pictures = pictures.detach().requires_grad_(True)
        score, _ = discriminator(pictures, state.fade, windows)
        penalty = gradient_penalty(score, pictures)
        self._check_finite(penalty)
        state.add(**{name: penalty})
        self.scaler.scale(weight * self.config.train.r1_interval * penalty * state.share).backward()

    def _generator_backward(self, micro: MicroBatch, fake: Fake, state: StepState) -> None:
        """Gradients of the generator: Eq. 6 in stage 1, Eq. 8 in stage 2."""
        train = self.config.train
        view, real_view = micro.fake_augmentation, micro.real_augmentation
        with self._autocast(discriminator=True):
            picture = self._picture(view, fake.image, fake.map)
            score, pose = self.d_image(picture, state.fade, micro.windows)
        real_picture = self._picture(real_view, micro.real_image, micro.real_map)
        loss = self._generator_loss(self.d_image, score, real_picture, state.fade, micro.windows)
        pose_term = pose_loss(pose.to(self.dtype), micro.pose)
        total = loss + state.whole * train.pose_weight * pose_term
        state.add(g_image=loss, g_pose=pose_term)
        if state.stage == 1:
            with self._autocast(discriminator=True):
                fake_map = view.semantics(fake.map)
                score_s, latent = self.d_semantic(fake_map, state.fade, micro.windows)
            real_map = real_view.semantics(micro.real_map)
            loss_s = self._generator_loss(
                self.d_semantic, score_s, real_map, state.fade, micro.windows
            )
            latent_term = latent_loss(latent.to(self.dtype), micro.z)
            total = total + loss_s + state.whole * train.latent_weight * latent_term
            state.add(g_semantic=loss_s, g_latent=latent_term)
        self._check_finite(total)
        self.scaler.scale(total * state.share).backward()
        state.add(weights=fake.weights.mean(0))

    def _zero_grads(self, *names: str) -> None:
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)

    def _optimize(self, name: str, module: nn.Module, log: Log) -> None:
        parameters = [p for p in module.parameters() if p.grad is not None]
        self.world.average_gradients(parameters)
        self.scaler.unscale_(self.optimizers[name])
        norm = nn.utils.clip_grad_norm_(parameters, self.config.train.clip_norm)
        log[f"norm_{name}"] = norm
        self.scaler.step(self.optimizers[name])

    def _set_learning_rates(self, step: int) -> None:
        """Constant, then linear to zero over the last `decay_share` of each stage."""
        train = self.config.train
        if self.stage(step) == 1:
            done, length = step, train.stage1_iterations
        else:
            done, length = step - train.stage1_iterations, train.stage2_iterations
        left = 1 - done / length
        factor = min(1.0, left / train.decay_share) if train.decay_share else 1.0
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self.base_lrs[name], strict=True):
                group["lr"] = base * factor

    @torch.no_grad()
    def _update_averages(self, step: int) -> None:
        train = self.config.train
        for average, limit in zip(self.averages, train.ema_decays, strict=True):
            decay = min(limit, (1 + step) / (10 + step)) if train.ema_warmup else limit
            torch._foreach_lerp_(
                list(average.parameters()), list(self.generator.parameters()), 1 - decay
            )

    def _autocast(self, *, discriminator: bool = False) -> contextlib.AbstractContextManager:
        if self.scaler.is_enabled():
            return torch.autocast("cuda", torch.float16)
        if discriminator and self.config.train.cpu_bf16_discriminators and self._is_cpu_float:
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    def _check_finite(self, loss: Tensor) -> None:
        """Before any weight changes, so that the last checkpoint stays the last good state."""
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteLossError(f"a loss of step {self.completed} is {float(loss.detach())}")

    @property
    def _is_cpu_float(self) -> bool:
        return self.device.type == "cpu" and self.dtype == torch.float32

    def _to(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)

    # -- state --------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, in tensors and plain types."""
        return {
            "version": 1,
            "config": json.dumps(to_dict(self.config)),
            "seed": self.seed,
            "completed": self.completed,
            "generator": self.generator.state_dict(),
            "averages": [average.state_dict() for average in self.averages],
            "d_image": self.d_image.state_dict(),
            "d_semantic": self.d_semantic.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "augmentation": dataclasses.asdict(self.augmentation),
            "latest": self.latest,
        }

    def start_from(
        self, generator: Generator, discriminators: tuple[Discriminator, Discriminator] | None
    ) -> None:
        """Take these weights, with fresh optimisers; they may be narrower (`check_growth`)."""
        grow(generator, self.generator)
        for average in self.averages:
            average.load_state_dict(self.generator.state_dict())
        if discriminators is not None:
            self.d_image.take(discriminators[0])
            self.d_semantic.take(discriminators[1])

    def load_state(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        for average, values in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(values)
        self.d_image.load_state_dict(state["d_image"])
        self.d_semantic.load_state_dict(state["d_semantic"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.scaler.load_state_dict(state["scaler"])
        if "augmentation" in state:  # not in states of older versions
            self.augmentation = AdaptiveAugmentation(**state["augmentation"])
        self.completed = state["completed"]
        self.latest = state.get("latest", {})


def images_before(train: TrainConfig, step: int) -> int:
    """Real images seen (over all processes) before this step."""
    total, start = 0, 0
    for phase in train.phases:
        end = min(round(phase.until * train.stage1_iterations), step)
        total += max(end - start, 0) * phase.batch
        start = max(end, start)
    return total + max(step - start, 0) * train.phases[-1].batch
