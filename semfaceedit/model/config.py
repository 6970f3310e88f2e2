"""Every setting of the model and of training, with its source; the presets are functions."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import UserError, meant
from .camera import CameraConfig
from .labels import GROUP_NAMES, GROUP_OF_CLASS, NUM_CLASSES

SemanticActivation = Literal["softmax", "sigmoid"]
Sharing = Literal["proposed", "none", "all"]
CpuPrecision = Literal["auto", "fp32", "accurate", "fast"]  # auto: as the kernels choose
AdversarialLoss = Literal["non-saturating", "relativistic"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The generator: manifolds, Geometry Module and Appearance Module.

    The defaults are the paper's sizes with GRAM's constants; `small` and `tiny` change them.
    """

    resolution: int = 256
    latent_dim: int = 256  # Z, size of the geometry code and of each appearance code
    width: int = 256  # W, of both trunks and of the descriptor
    geometry_depth: int = 8  # L, FiLM layers before the view layer
    appearance_depth: int = 8
    mapping_width: int = 256
    mapping_layers: int = 3  # hidden layers of each mapping network

    manifolds: int = 24  # K, iso-surfaces plus the background plane
    outer_level: float = 23.0  # levels are linspace(outer, inner, K - 1)
    inner_level: float = 8.0
    predictor_width: int = 128
    predictor_layers: int = 3  # hidden layers of the manifold predictor
    predictor_centre: tuple[float, float, float] = (0.0, 0.0, -1.5)  # normalised coordinates
    round_predictor: bool = True  # start from spheres instead of GRAM's rough ones
    ray_samples: int = 64  # S, coarse samples on a ray
    coordinate_scale: float = 2 / 0.24  # world -> normalised coordinates
    plane_z: float = -0.12  # world, the background plane

    density_scale: float = 0.04  # alpha = 1 - exp(-density_scale * softplus(sigma + density_shift))
    density_shift: float = 0.0
    density_gain: float = 1.0  # gains multiply the heads' weights and biases
    semantic_gain: float = 1.0
    descriptor_gain: float = 1.0
    color_gain: float = 1.0
    semantic_activation: SemanticActivation = "softmax"
    background_prior: float = 4.0  # logit added for background on the plane, subtracted elsewhere;
    # without it the plane draws the face, and the surfaces fade
    view_dependent: bool = True  # False: both view layers see the frontal direction
    sharing: Sharing = "proposed"  # Appearance Module: colour layers and RGB heads a group; or all
    group_of_class: tuple[int, ...] = GROUP_OF_CLASS
    camera: CameraConfig = field(default_factory=CameraConfig)

    def __post_init__(self) -> None:
        if len(self.group_of_class) != NUM_CLASSES:
            raise UserError(f"group_of_class needs {NUM_CLASSES} entries, one per class")
        if set(self.group_of_class) != set(range(max(self.group_of_class) + 1)):
            raise UserError("group_of_class must use every group from 0 to its largest")
        if self.sharing not in get_args(Sharing):
            raise UserError(f"sharing {self.sharing!r}: use one of {get_args(Sharing)}")
        if self.semantic_activation not in get_args(SemanticActivation):
            raise UserError(f"semantic_activation {self.semantic_activation!r} is unknown")
        if self.manifolds < 2 or self.geometry_depth < 2 or self.appearance_depth < 2:
            raise UserError("manifolds, geometry_depth and appearance_depth must be at least 2")

    @property
    def groups(self) -> int:
        """n, the number of semantic groups."""
        return max(self.group_of_class) + 1

    @property
    def group_names(self) -> tuple[str, ...]:
        if self.groups == len(GROUP_NAMES):
            return GROUP_NAMES
        return tuple(f"group {index}" for index in range(self.groups))


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Both discriminators: residual CoordConv blocks, each halving the resolution."""

    channels: tuple[int, ...] = (32, 64, 128, 256, 400, 400, 400, 400)
    """Channels before each block and after the last; the block count follows the resolution:
    the last log2(resolution) - 1 blocks are used, so that the final map is 2 x 2."""
    paired: bool = False
    """D_c reads the image together with its semantic map. The paper's D_c reads the image alone:
    then no loss asks that glasses or a hat come in both or in neither."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A piece of stage 1 at one resolution."""

    until: float  # share of stage 1 at which the phase ends
    resolution: int
    batch: int  # images per optimiser step, over all ranks and accumulation steps
    window: int = 0  # > 0: steps of random squares of so many pixels take turns with whole
    # pictures at that resolution

    def __post_init__(self) -> None:
        if self.window and not 4 <= self.window <= self.resolution:
            raise UserError(
                f"a window of {self.window} pixels: must be from 4 to the resolution, "
                f"{self.resolution}"
            )

    @property
    def seen(self) -> int:
        """The resolution of what the discriminators see."""
        return self.window or self.resolution


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training: Eq. 3-8 and what the paper leaves open (see research constants in each line)."""

    stage1_iterations: int = 120_000
    stage2_iterations: int = 30_000
    phases: tuple[Phase, ...] = (Phase(until=1.0, resolution=256, batch=32),)
    fade_iterations: int = 0  # discriminators fade a new resolution in over this many steps
    micro_batch: int = 4  # images per forward; the batch is reached by accumulation

    generator_lr: float = 2e-5
    predictor_lr: float = 2e-5  # 0: the iso-surfaces stay as they are
    discriminator_lr: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    decay_share: float = 0.0  # last share of each stage over which rates fall linearly to zero
    clip_norm: float = 1.0
    ema_decays: tuple[float, ...] = (0.999, 0.9999)  # the first is rendered
    ema_warmup: bool = True  # decay min(decay, (1 + t) / (10 + t)): early pictures show the run

    adversarial_loss: AdversarialLoss = "non-saturating"  # relativistic: R3GAN's, on paired scores
    image_r1: float = 5.0  # lambda_im of Eq. 6: weight of ||grad D_c||^2, without the 1/2
    semantic_r1: float = 1.0  # lambda_s of Eq. 6
    stage2_image_r1: float = 1.0  # lambda_im of Eq. 8
    r1_interval: int = 1  # every how many steps; the weight is multiplied by it
    r2: bool = False  # the same penalties, with the same weights, on generated pictures
    pose_weight: float = 10.0  # lambda_p
    real_pose_weight: float = 10.0  # the same on photographs whose pose is known
    latent_weight: float = 1.0  # lambda_l

    rare_share: float = 0.0  # faces with classes that fewer of the maps show come more often
    window_share: float = 0.5  # of the steps of a phase with windows that show windows
    ray_jitter: float = 0.0  # each picture's rays move by up to half of this, in pixels
    augment: float = 0.0  # probability of each augmentation of what the discriminators see
    cutout: float = 0.0  # probability that a square of half the width is blank, in image and map
    augment_target: float = 0.0  # > 0: both probabilities start at 0 and grow, up to those named,
    # while the mean sign of D_c on photographs is above this (ADA; its authors use 0.6)
    augment_ramp: int = 100_000  # images over which they could grow to those named
    mixed_precision: bool = True  # fp16 autocast with loss scaling on CUDA
    cpu_precision: CpuPrecision = "auto"  # of the generator's layers on a CPU, forward and back
    cpu_bf16_discriminators: bool = False  # bf16 convolutions on a CPU
    collapse_share: float = 0.75  # warn when one manifold takes more than this mean weight

    def __post_init__(self) -> None:
        precisions = get_args(CpuPrecision)
        if self.cpu_precision not in precisions:
            raise UserError(f"cpu_precision {self.cpu_precision!r}: use one of {precisions}")
        losses = get_args(AdversarialLoss)
        if self.adversarial_loss not in losses:
            raise UserError(f"adversarial_loss {self.adversarial_loss!r}: use one of {losses}")
        if self.augment_target and self.adversarial_loss == "relativistic":
            raise UserError(
                "augment_target reads the sign of D_c's scores, which has no meaning under the "
                "relativistic loss: set it to 0"
            )
        for name, least, most in TRAIN_RANGES:
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if not least <= value <= most:
                    limit = f"from {least:g} to {most:g}" if most < INF else f"at least {least:g}"
                    raise UserError(f"{name} {value:g}: must be {limit}")


INF = float("inf")
TRAIN_RANGES = (  # least and greatest value of the numbers in TrainConfig
    ("stage1_iterations", 0, INF), ("stage2_iterations", 0, INF), ("fade_iterations", 0, INF),
    ("micro_batch", 1, INF), ("r1_interval", 1, INF), ("augment_ramp", 1, INF),
    ("generator_lr", 0, INF), ("predictor_lr", 0, INF), ("discriminator_lr", 0, INF),
    ("betas", 0, 1 - 2**-20), ("decay_share", 0, 1), ("clip_norm", 0, INF), ("ema_decays", 0, 1),
    ("image_r1", 0, INF), ("semantic_r1", 0, INF), ("stage2_image_r1", 0, INF),
    ("pose_weight", 0, INF), ("real_pose_weight", 0, INF), ("latent_weight", 0, INF),
    ("rare_share", 0, 1), ("ray_jitter", 0, INF), ("augment", 0, 1), ("cutout", 0, 1),
    ("augment_target", 0, 1), ("collapse_share", 0, 1), ("window_share", 0, 1),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    preset: str
    model: ModelConfig
    discriminator: DiscriminatorConfig
    train: TrainConfig


def paper() -> Config:
    """The paper's sizes, 256 x 256: 8,780,641 parameters in generator and predictor."""
    return Config(
        preset="paper",
        model=ModelConfig(),
        discriminator=DiscriminatorConfig(),
        train=TrainConfig(),
    )


def paper_variant(preset: str, **changes: Any) -> Config:
    """`paper` with changes to the model: the rows of the ablation tables."""
    return dataclasses.replace(
        paper(), preset=preset, model=dataclasses.replace(ModelConfig(), **changes)
    )


def small() -> Config:
    """Faces in half an hour on two CPU cores, 16 -> 32 -> 64 pixels."""
    return Config(
        preset="small",
        model=ModelConfig(
            resolution=64,
            latent_dim=64,
            width=64,
            geometry_depth=3,
            appearance_depth=2,
            mapping_width=64,
            manifolds=9,
            predictor_width=64,
            ray_samples=24,
            coordinate_scale=0.7 * 2 / 0.24,
            density_scale=0.4,
            density_shift=-1.0,
            density_gain=3.0,
            semantic_gain=10.0,
            descriptor_gain=10.0,
            color_gain=10.0,
            background_prior=12.0,
            view_dependent=False,
        ),
        discriminator=DiscriminatorConfig(channels=(16, 32, 48, 64, 96, 128)),
        train=TrainConfig(
            stage1_iterations=2_900,
            stage2_iterations=40,
            phases=(  # 600, 1,300 and 1,000 steps; longer at 16 makes the discriminators too strong
                Phase(until=0.207, resolution=16, batch=8),
                Phase(until=0.655, resolution=32, batch=8),
                Phase(until=1.0, resolution=64, batch=8),
            ),
            fade_iterations=300,
            micro_batch=8,
            generator_lr=3e-4,
            predictor_lr=1e-4,
            discriminator_lr=6e-4,
            decay_share=0.7,
            ema_decays=(0.998, 0.999),
            image_r1=3.0,
            semantic_r1=7.0,
            r1_interval=4,
            ray_jitter=0.5,
            cpu_bf16_discriminators=True,
        ),
    )


def medium() -> Config:
    """`small`, wider and with more surfaces, at 128 pixels: for a day on two CPU cores.

    Its discriminators see 64 pixels: whole pictures of that size in turn with windows of 128.
    """
    base = small()
    return Config(
        preset="medium",
        model=dataclasses.replace(
            base.model,
            resolution=128,
            width=96,
            manifolds=12,
            density_scale=0.4 * 8 / 11,  # eleven surfaces are as dense as the eight of `small`
        ),
        discriminator=base.discriminator,
        train=dataclasses.replace(
            base.train,
            stage1_iterations=9_000,
            phases=(
                Phase(until=0.1, resolution=16, batch=8),
                Phase(until=0.3, resolution=32, batch=8),
                Phase(until=0.55, resolution=64, batch=8),
                Phase(until=1.0, resolution=128, batch=8, window=64),
            ),
        ),
    )


def tiny() -> Config:
    """For tests: every part of the method at sizes that run in a blink."""
    base = small()
    return Config(
        preset="tiny",
        model=dataclasses.replace(
            base.model,
            resolution=16,
            latent_dim=8,
            width=16,
            mapping_width=16,
            mapping_layers=1,
            manifolds=5,
            predictor_width=16,
            ray_samples=16,
            view_dependent=True,
        ),
        discriminator=DiscriminatorConfig(channels=(8, 8, 16, 16)),
        train=dataclasses.replace(
            base.train,
            stage1_iterations=8,
            stage2_iterations=4,
            phases=(
                Phase(until=0.5, resolution=8, batch=4),
                Phase(until=1.0, resolution=16, batch=4),
            ),
            fade_iterations=2,
            micro_batch=4,
            r1_interval=2,
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "paper": paper,
    "medium": medium,
    "small": small,
    "tiny": tiny,
    "paper-unshared": lambda: paper_variant("paper-unshared", sharing="none"),
    "paper-shared": lambda: paper_variant("paper-shared", sharing="all"),
    "paper-depth4": lambda: paper_variant("paper-depth4", geometry_depth=4, appearance_depth=4),
    "paper-depth6": lambda: paper_variant("paper-depth6", geometry_depth=6, appearance_depth=6),
}


def preset(name: str) -> Config:
    """The preset of that name."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"--preset {name!r} is unknown{meant(name, PRESETS)}: use one of {known}")
    return PRESETS[name]()
