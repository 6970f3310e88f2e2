"""The encoder of weights that others grew from, carried over to these as a start of training."""

import torch

from ..errors import UserError
from ..model.generator import Generator, sample_latents
from ..model.mean_face import mean_codes
from .encoder import PCA_SAMPLES, Encoder, flat_film, new_encoder

SEED = 1  # of the latents that both generators map


@torch.no_grad()
def carried_over(encoder: Encoder, old: Generator, new: Generator) -> Encoder:
    """An encoder of `new` that reads faces as `encoder`, that of `old`, does.

    `new` was trained from the weights of `old` and may be wider (`model.growth`), so that the same
    latents still draw like faces. Coefficients of the old principal components are turned into
    those of the new ones by linear regression over the codes of the same latents; the free part
    keeps to the old channels. UserError where the two cannot be kin.
    """
    a, b = old.config, new.config
    for name in ("latent_dim", "geometry_depth", "appearance_depth", "group_of_class"):
        if getattr(a, name) != getattr(b, name):
            raise UserError(f"--init: its weights have another {name} than these")
    if a.width > b.width:
        raise UserError(f"--init: its weights are wider ({a.width}) than these ({b.width})")
    grown = new_encoder(new, encoder.settings)
    own = encoder.state_dict()
    bases = ("geometry_basis", "appearance_basis")
    outputs = ("geometry.", "appearance.", "free_")
    grown.load_state_dict(
        {n: t for n, t in own.items() if n not in bases and not n.startswith(outputs)},
        strict=False,
    )
    random = torch.Generator().manual_seed(SEED)
    z, looks = sample_latents(b, PCA_SAMPLES, generator=random)
    found = []
    for generator, of in ((old, encoder), (new, grown)):
        codes, mean = generator.map(z.to(new.device), looks.to(new.device)), mean_codes(generator)
        geometry = flat_film(codes.geometry - mean.geometry)[:, None]
        appearance = flat_film(codes.appearance - mean.appearance)
        both = (geometry, of.geometry_basis[None]), (appearance, of.appearance_basis)
        found.append([_coefficients(offsets, basis) for offsets, basis in both])
    for layer, from_, to in zip((grown.geometry, grown.appearance), *found, strict=True):
        source = encoder.geometry if layer is grown.geometry else encoder.appearance
        weight = source.weight.unflatten(0, (len(from_), -1))  # (n, k, features)
        bias = source.bias.view(len(from_), -1, 1)
        turn = torch.linalg.lstsq(from_, to).solution.mT.to(weight)  # (n, k', k)
        layer.weight.copy_((turn @ weight).flatten(0, 1))
        layer.bias.copy_((turn @ bias).flatten())
    _put_free(encoder, grown)
    return grown


def _coefficients(offsets: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """(M, n, F) offsets, (n, k, F) orthogonal components -> (n, M, k) coefficients, in float64."""
    wide = basis.double()
    lengths = wide.square().sum(-1).clamp(min=1e-12)
    return torch.einsum("mnf,nkf->nmk", offsets.double(), wide) / lengths[:, None]


def _put_free(old: Encoder, new: Encoder) -> None:
    """The free part's last layer, channel by channel; ranks that one of the two lacks are left."""
    rank = min(old.free_out.in_features, new.free_out.in_features)
    kept = {"weight": old.free_in.weight, "bias": old.free_in.bias}
    for name, values in kept.items():
        getattr(new.free_in, name)[:rank] = values[:rank]
    narrow, wide = old.model.width, new.model.width
    target = new.free_out.weight.view(-1, wide, new.free_out.in_features)
    source = old.free_out.weight.view(-1, narrow, old.free_out.in_features)
    target[:, :narrow, :rank] = source[..., :rank]
