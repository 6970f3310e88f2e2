"""The three fused operations of SemFaceEdit, each with interchangeable backends.

Every function takes `backend` (`reference`, `triton`, `cuda`, `cpu`) and `precision` (`fp32`,
`tf32`, `fp16`, `accurate`, `fast`); both default to what `use_backend`, the environment
(SEMFACEEDIT_BACKEND, SEMFACEEDIT_PRECISION) or the tensors' device decide, in that order.
"""

if __name__ == "kernels":
    raise ImportError(
        "this folder is imported as semfaceedit.kernels; `import kernels` from a checkout of "
        "semfaceedit would load it a second time"
    )

from ._backend import (
    BACKENDS,
    OPS,
    PRECISIONS,
    BackendError,
    available_backends,
    available_precisions,
    resolve,
    use_backend,
)
from ._extension import cpu_peaks
from .film_siren import FilmSirenWeights, film_siren
from .ray_isosurface import FieldWeights, Intersections, ray_isosurface
from .semantic_composite import color_composite, semantic_composite

__all__ = [
    "BACKENDS",
    "OPS",
    "PRECISIONS",
    "BackendError",
    "FieldWeights",
    "FilmSirenWeights",
    "Intersections",
    "available_backends",
    "available_precisions",
    "color_composite",
    "cpu_peaks",
    "film_siren",
    "ray_isosurface",
    "resolve",
    "semantic_composite",
    "use_backend",
]
