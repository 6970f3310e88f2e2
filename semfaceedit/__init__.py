"""SemFaceEdit: semantic 3-D face editing on generative radiance manifolds."""

from pathlib import Path

__version__ = "0.2.0"

# In a checkout `kernels/` stands beside this package but is imported as `semfaceedit.kernels`;
# a wheel has no sibling `csrc/`, so this line does nothing there.
_root = Path(__file__).resolve().parent.parent
if (_root / "csrc").is_dir():
    __path__.append(str(_root))
