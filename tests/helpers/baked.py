"""A baked face of a small generator, and pages of it in a browser."""

import base64

import numpy as np
from browser import Page

from semfaceedit.baking.bake import BakedFace, bake
from semfaceedit.model.generator import Generator, seed_codes

DRAW = """(() => {{
  const [yaw, pitch, size] = [{yaw}, {pitch}, {size}];
  face.renderer.draw({{ yaw, pitch, size, view: "{view}", coarse: {coarse} }});
  return btoa(Array.from(face.renderer.pixels(), (byte) => String.fromCharCode(byte)).join(""));
}})()"""


def baked(generator: Generator, seed: int, size: int, looks: int = 1) -> BakedFace:
    others = {f"seed {n}": seed_codes(generator, n).appearance for n in range(50, 50 + looks)}
    return bake(generator, seed_codes(generator, seed), size=size, looks=others)


def drawn(
    page: Page, yaw: float, pitch: float, size: int, view: str = "face", *, coarse: bool = False
) -> np.ndarray:
    """(size, size, 3) uint8: what the page's renderer draws; `coarse` while the head moves."""
    wanted = str(coarse).lower()
    script = DRAW.format(yaw=yaw, pitch=pitch, view=view, size=size, coarse=wanted)
    data = np.frombuffer(base64.b64decode(page.run(script)), np.uint8)
    return data.reshape(size, size, 4)[..., :3]
