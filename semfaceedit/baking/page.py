"""`face.html`: a baked face and its viewer in one file that loads nothing else."""

import base64
import html
import re
from pathlib import Path

from .bake import BakedFace
from .container import ImageFormat, pack_layers

PAGE = Path(__file__).parent / "page"
SCRIPTS = (
    "shaders.js", "layers.js", "tiles.js", "pace.js", "renderer.js", "viewer.js",
)  # in order of use  # fmt: skip
IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE)


def page(face: BakedFace, *, title: str, image_format: ImageFormat = "webp") -> str:
    """The text of the page."""
    layers = base64.b64encode(pack_layers(face, image_format=image_format, title=title)).decode()
    parts = {
        "title": html.escape(title), "style": (PAGE / "style.css").read_text(encoding="utf-8"),
        "script": bundle(), "layers": layers,
    }  # fmt: skip
    template = (PAGE / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def bundle() -> str:
    """The page's modules as one: they name nothing twice, so imports and exports may go."""
    texts = [(PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return "\n".join(re.sub(r"^export ", "", IMPORT.sub("", t), flags=re.MULTILINE) for t in texts)
