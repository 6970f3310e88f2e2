"""The frozen generator's own samples, procedural heads and real pairs -> an encoder.

Of a sample the codes and the pose are known, so that most steps need no gradient of the generator:
errors of coefficients count by what they change in the picture (a metric measured once by rendering
each component). Samples are kept and seen several times. Other steps go through the generator under
the terms of Eq. 9, a quarter of the rays at a time, on samples and on pairs, whose codes nobody
knows.
"""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from ..data.dataset import FaceDataset, area_one_hot
from ..data.seeds import mixed_seed
from ..errors import UserError
from ..model.generator import Generator
from ..model.labels import FLIP_IDS
from ..model.mean_face import fingerprint, mean_codes
from ..model.renderer import render
from ..tensor_files import optimizer_tensors, read_kept, restore_optimizer, write_tensors
from ..threads import FairThreads
from .encoder import Encoder, EncoderSettings, Estimate, new_encoder
from .encoder_metric import DEPTH, IMAGE, SEMANTIC, coefficient_metric
from .encoder_samples import add_heads, add_samples, head_store, pair_store, sample_store
from .fit_terms import DEPTH_UNIT, depth_gap
from .mask_edits import EDITS, paint

STATE_FORMAT = "semfaceedit-encoder-training"
VERSION = 2  # changes when the same settings train another encoder
POSE, POSE_UNIT = 0.5, 0.05  # weight of the pose term; radians
SUPERVISED_SHARE = 0.25  # of the time: samples and supervised steps alone
HEADS_A_ROUND = 2
REFILL = 1024  # samples, and heads, drawn anew where a training goes on, at most
SAY_EVERY, KEEP_EVERY = 10.0, 60.0  # seconds


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How an encoder is trained.

    Example: TrainingSettings(minutes=25, heads=0)
    """

    minutes: float = 25.0  # of computing, over all resumptions
    steps: int | None = None  # end after so many rounds instead
    heads: int = 0  # procedural heads, whose depth is known
    seed: int = 0
    learning_rate: float = 1e-3
    buffer: int = 8192  # samples kept
    first: int = 256  # samples, and heads, before the first step: few are soon known by heart
    added: int = 4  # samples a round in the supervised share; a quarter of it later
    batch: int = 32  # of a supervised step
    generator_batch: int = 16  # of a step through the generator
    sizes: EncoderSettings = field(default_factory=EncoderSettings)


def train_encoder(
    generator: Generator,
    settings: TrainingSettings,
    *,
    data: FaceDataset | None = None,
    keep: Path | None = None,
    start: Encoder | None = None,
) -> Encoder:
    """An encoder of this generator.

    data: real pairs; one in twenty is kept out. keep: a file for the state of training every
    minute; a training of the same weights, data and settings goes on from it. start: an encoder of
    this generator to begin with, in place of an untrained one. A line every ten seconds tells the
    errors.
    """
    training = _Training(generator, settings, data, start)
    if keep is not None:
        training.restore(keep)
    training.run(keep)
    training.encoder.learned_depth = settings.heads > 0
    return training.encoder.eval().requires_grad_(False)


class _Training:
    def __init__(
        self,
        generator: Generator,
        settings: TrainingSettings,
        data: FaceDataset | None,
        start: Encoder | None = None,
    ):
        self.generator, self.settings = generator, settings
        self.mean, self.device = mean_codes(generator), generator.device
        self.encoder = start or new_encoder(generator, settings.sizes, seed=settings.seed)
        self.size = self.encoder.settings.size
        decayed = [p for p in self.encoder.parameters() if p.ndim > 1]
        plain = [p for p in self.encoder.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.98))
        self.round, self.elapsed = 0, 0.0
        self.seen = 0  # samples that a state had
        self.random = torch.Generator().manual_seed(settings.seed)
        self.samples = sample_store(self.encoder, settings.buffer, generator.config.groups)
        self.heads = head_store(settings.heads, self.size) if settings.heads else None
        self.pairs = pair_store(data, self.size) if data is not None else None
        identity = [] if data is None else [data.info["sha256"], len(data)]
        self.key = json.dumps(
            [
                VERSION,
                fingerprint(generator),
                identity,
                asdict(self.encoder.settings),
                start is not None,
                settings.heads,
                settings.seed,
            ]
        )
        self.said: dict[str, float] = {}

    # The loop.

    def run(self, keep: Path | None) -> None:
        self.metric = coefficient_metric(self.generator, self.encoder, self.settings.seed)
        began, before = time.monotonic(), self.elapsed
        said = kept = began
        self._fill(max(self.settings.first, min(self.seen, REFILL)))
        if self.heads is not None:
            missing = max(0, self.settings.first - self.heads.count)
            add_heads(self.heads, self.generator.config.camera, missing)
        with FairThreads() as threads:
            while (share := self._share()) < 1:
                threads.step()
                rate = self._rate(share)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                early = share < SUPERVISED_SHARE
                self._fill(self.settings.added if early else max(1, self.settings.added // 4))
                for _ in range(2 if early else 1):
                    self._supervised()
                if not early:
                    self._through_generator()
                self.round += 1
                now = time.monotonic()
                self.elapsed = before + now - began
                if now - said > SAY_EVERY:
                    said = now
                    self._say()
                if keep is not None and now - kept > KEEP_EVERY:
                    kept = now
                    self.save(keep)
        self._say()

    def _share(self) -> float:
        """How much of the training is done, in [0, 1]."""
        if self.settings.steps is not None:
            return self.round / self.settings.steps
        return min(1.0, self.elapsed / (60 * self.settings.minutes))

    def _rate(self, share: float) -> float:
        """A short rise, then half a cosine down."""
        rise = min(1.0, (self.round + 1) / 100)
        return self.settings.learning_rate * rise * (0.02 + 0.98 * math.cos(share * math.pi / 2))

    def _say(self) -> None:
        parts = ", ".join(f"{name} {value:.4f}" for name, value in self.said.items())
        heads = f", {self.heads.count} heads" if self.heads else ""
        print(
            f"training the encoder: {self._share():.0%}, {self.elapsed / 60:.1f} min, round "
            f"{self.round}, {self.samples.count} samples{heads}; errors: {parts}",
            file=sys.stderr,
            flush=True,
        )

    def _tell(self, name: str, value: Tensor) -> None:
        now = float(value.detach())
        if not math.isfinite(now):
            raise UserError(f"the training diverged ({name} is {now}): lower --learning-rate")
        self.said[name] = 0.97 * self.said.get(name, now) + 0.03 * now

    def _fill(self, count: int) -> None:
        """Render so many samples, and two heads."""
        add_samples(self.samples, self.generator, self.encoder, count, self.random)
        if self.heads is not None:
            add_heads(self.heads, self.generator.config.camera, HEADS_A_ROUND)

    # Steps.

    def _supervised(self) -> None:
        """Known codes and poses of samples, and poses of heads and pairs."""
        kept, count = self.samples, self.settings.batch
        index = torch.randint(kept.count, (count,), generator=self.random)
        image, semantics = kept.rows(index)
        semantics, poses = self._sharpened(semantics), kept.poses[index]
        for source in (self.heads, self.pairs):
            if source is not None and source.count:
                rows = torch.randint(source.count, (count // 3,), generator=self.random)
                other, shares = source.rows(rows)
                image, semantics = torch.cat([image, other]), torch.cat([semantics, shares])
                poses = torch.cat([poses, source.poses[rows]])
        with_image, with_map = self._shown(len(image))
        read = self._read(self._noisy(image), semantics, with_image, with_map)
        assert kept.geometry is not None and kept.appearance is not None
        geometry = self.metric.of_geometry(
            read.geometry[:count] - kept.geometry[index].to(self.device)
        )
        looks = self.metric.of_appearance(
            read.appearance[:count] - kept.appearance[index].to(self.device)
        )
        pose = self._pose_error(read.pose, poses)
        free = self._free(read)
        self._step(geometry.mean() + looks.mean() + pose + free)
        self._tell("geometry", geometry.mean())
        self._tell("appearance", looks.mean())
        self._tell("pose", pose)

    def _through_generator(self) -> None:
        """Eq. 9 through the generator, on a quarter of the rays of samples, heads and pairs."""
        count = self.settings.generator_batch
        sources = [s for s in (self.pairs, self.heads, self.samples) if s is not None and s.count]
        shares = [count // len(sources)] * len(sources)
        shares[0] += count - sum(shares)
        images, maps, poses, depths = [], [], [], []
        known: list[bool] = []  # whose pose is known exactly: the picture is rendered from there
        for source, share in zip(sources, shares, strict=True):
            index = torch.randint(source.count, (share,), generator=self.random)
            image, semantics = source.rows(index)
            pose = source.poses[index].clone()
            depth = torch.full((share, 1, self.size, self.size), math.nan)
            if source.depth is not None and not (source is self.samples and self.heads):
                depth = source.depth[index].clone()  # heads' own, where there are any
            if source is self.samples:
                semantics = self._sharpened(semantics)
            else:
                flips = torch.rand(share, generator=self.random) < 0.5
                image[flips] = image[flips].flip(-1)
                semantics[flips] = semantics[flips][:, FLIP_IDS.tolist()].flip(-1)
                depth[flips] = depth[flips].flip(-1)
                pose[flips, 0] *= -1
            images.append(image)
            maps.append(semantics)
            poses.append(pose)
            known += [source is not self.pairs] * share
            depths.append(depth)
        image, semantics = torch.cat(images), torch.cat(maps)
        pose, depth = torch.cat(poses).to(self.device), torch.cat(depths).to(self.device)
        with_image, with_map = self._shown(count)
        exact = torch.tensor(known).to(self.device)
        painted = self._painted(semantics, with_image)
        with_map = torch.maximum(with_map, painted)
        depth[painted.bool()] = math.nan
        read = self._read(self._noisy(image), semantics, with_image, with_map)
        corner = torch.randint(2, (2,), generator=self.random)
        dx, dy = int(corner[0]), int(corner[1])
        shift = torch.tensor([[dx - 0.5, dy - 0.5]]).to(self.device).expand(count, 2) / 2
        seen_from = torch.where(exact[:, None], pose, read.pose.detach().clamp(-1.3, 1.3))
        output = render(
            self.generator, self.mean + read.offsets, seen_from, self.size // 2, shift=shift
        )

        def rays(picture: Tensor) -> Tensor:
            return picture[:, :, dy::2, dx::2].to(self.device)

        goal = rays(semantics)
        errors = (2 * output.semantics - 2 * goal).square().mean((1, 2, 3))
        entropy = -(goal * output.semantics.clamp(min=1e-3).log()).sum(1).mean((1, 2))
        shown = with_image.to(self.device)
        colours = (output.image - rays(image)).square().mean((1, 2, 3)) * shown
        depth = rays(depth)
        deep = depth.isfinite()
        gap = depth_gap(output.depth, depth)
        relief = huber_loss(gap, torch.zeros_like(gap), reduction="sum") / deep.sum().clamp(min=1)
        pose_error = self._pose_error(read.pose, pose)
        total = (
            SEMANTIC * errors.mean()
            + 0.1 * entropy.mean()
            + IMAGE * colours.sum() / shown.sum().clamp(min=1)
            + DEPTH * relief * min(1.0, float(deep.any((1, 2, 3)).sum()) / count * 2)
            + pose_error
            + self._free(read)
        )
        self._step(total)
        self._tell("maps", errors.mean())
        self._tell("images", colours.sum() / shown.sum().clamp(min=1))
        if deep.any():
            self._tell("depth", (gap.abs().sum() / deep.sum()) * DEPTH_UNIT)

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()

    def _read(
        self, image: Tensor, semantics: Tensor, with_image: Tensor, with_map: Tensor
    ) -> Estimate:
        return self.encoder(
            image.to(self.device),
            semantics.to(self.device),
            keep_image=with_image,
            keep_semantics=with_map,
        )

    def _shown(self, count: int) -> tuple[Tensor, Tensor]:
        """Which inputs are given: both for half, the map for three in ten, else the picture."""
        draw = torch.rand(count, generator=self.random)
        return ((draw < 0.5) | (draw > 0.8)).float(), (draw <= 0.8).float()

    def _painted(self, semantics: Tensor, with_image: Tensor) -> Tensor:
        """Paint into some maps that are read alone, in place; (B,) 1 where that was done."""
        done = torch.zeros(len(semantics))
        draw = torch.rand(len(semantics), generator=self.random)
        for row in ((with_image == 0) & (draw < 0.5)).nonzero()[:, 0].tolist():
            labels = semantics[row].argmax(0).to(torch.uint8).numpy()
            large = np.repeat(np.repeat(labels, 2, 0), 2, 1)
            name = list(EDITS)[int(torch.randint(len(EDITS), (1,), generator=self.random))]
            try:
                changed = paint(large, (name,))
            except UserError:  # a face from the side, or nothing to change
                continue
            semantics[row] = area_one_hot(changed[None], self.size)[0]
            done[row] = 1
        return done

    def _noisy(self, image: Tensor) -> Tensor:
        noise = torch.randn(image.shape, generator=self.random)
        amount = 0.05 * torch.rand(len(image), 1, 1, 1, generator=self.random)
        return image + amount * noise

    def _sharpened(self, semantics: Tensor) -> Tensor:
        """Composited shares, made as sharp as averaged label maps are, more or less."""
        power = 1 + 5 * torch.rand(len(semantics), 1, 1, 1, generator=self.random)
        shares = semantics.clamp(min=1e-4) ** power
        return shares / shares.sum(1, keepdim=True)

    def _pose_error(self, read: Tensor, pose: Tensor) -> Tensor:
        pose = pose.to(self.device)
        known = pose.isfinite()
        gap = torch.where(known, read - pose.nan_to_num(), 0.0) / POSE_UNIT
        return POSE * huber_loss(gap, torch.zeros_like(gap))

    def _free(self, read: Estimate) -> Tensor:
        """The free part stays small."""
        weight = self.encoder.free_out.weight
        return 1e-4 * weight.square().sum() / max(1, weight.shape[1])

    # Going on from a state.

    def save(self, path: Path) -> None:
        tensors = {f"encoder.{name}": t for name, t in self.encoder.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        header = {
            "format": STATE_FORMAT,
            "key": self.key,
            "round": self.round,
            "elapsed": self.elapsed,
            "samples": self.samples.count,
            "heads": self.heads.count if self.heads else 0,
        }
        write_tensors(path, tensors, header)

    def restore(self, path: Path) -> None:
        """Go on from a state of the same training; samples are drawn anew."""
        kept = read_kept(path)
        if kept is None or kept[0].get("key") != self.key:
            return
        header, tensors = kept
        restore_optimizer(self.optimizer, tensors)
        self.encoder.load_state_dict({n.removeprefix("encoder."): t for n, t in tensors.items()})
        self.round, self.elapsed = int(header["round"]), float(header["elapsed"])
        self.seen = int(header["samples"])
        if self.heads is not None:
            again = min(int(header["heads"]), REFILL)
            add_heads(self.heads, self.generator.config.camera, again)
        self.random.manual_seed(mixed_seed(self.settings.seed, self.round))
        print(f"going on after {self.elapsed / 60:.1f} minutes", file=sys.stderr)
