"""SemFaceEdit: semantic 3-D face editing on generative radiance manifolds."""

import sys
from pathlib import Path

__version__ = "0.2.0"

# In a checkout `kernels/` stands beside this package but is imported as `semfaceedit.kernels`;
# a wheel has no sibling `csrc/`, so this line does nothing there.
_root = Path(__file__).resolve().parent.parent
if (_root / "csrc").is_dir():
    __path__.append(str(_root))

if sys.argv[:1] == [
    "-m"
]:  # this package is imported to find the program, `python -m semfaceedit...`
    from .waiting import wait_briefly

    wait_briefly()
