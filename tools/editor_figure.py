"""The picture of the web editor in the README and docs/editing.md.

    python tools/editor_figure.py --photograph A.jpg --checkpoint portraits --out docs/editor.png

The face of the photograph is found and edited by a button of the page, and the window is
photographed with the edit in the photograph; with --turn, hair is painted and the face turned.
Needs Chromium.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from semfaceedit import api
from semfaceedit.editing.fit_terms import finished
from semfaceedit.editing.project import FaceProject
from semfaceedit.model.checkpoint import locate_weights

SIZE = (1280, 800)
HAIR = 13
STROKES = (
    [(0.24, 0.42), (0.22, 0.55), (0.2, 0.7), (0.2, 0.84)],
    [(0.76, 0.42), (0.78, 0.55), (0.8, 0.7), (0.8, 0.84)],
)  # shares of the map, down both sides of the face
SHARP = """import('./state.js').then(({{ page }}) =>
    page.state.at === {} && page.state.version > 0)"""
PASTED = """import('./state.js').then(({ page: { state, viewer: { photograph } } }) =>
    state.at > 0 && photograph.on && !photograph.waiting && photograph.shown && !photograph.over
    && photograph.shown.number == photograph.number)"""
READY = """import('./state.js').then(({ page }) => {
  const { head } = page.viewer;
  return head.ready(page.viewer.pose) && head.baked.texels > 96; })"""


def painted_and_turned(page, turn: float) -> None:
    """Hair down both sides of the face, and the head turned once its layers are there."""
    page.run(f"import('./panels.js').then((panels) => panels.chooseLabel({HAIR}))")
    page.run("(s => { s.value = 16; s.oninput({ target: s }) })"
             "(document.querySelector('#size'))")  # fmt: skip
    for number, stroke in enumerate(STROKES):
        page.drag("#map", *stroke)
        page.wait(SHARP.format(number + 1))
    page.wait(READY, seconds=300)
    page.drag("#face", (0.5, 0.5), (0.5 - turn / 2, 0.5), (0.5 - turn, 0.5))
    page.run("new Promise((done) => setTimeout(done, 3000))")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photograph", type=Path)
    parser.add_argument("--project", type=Path, help="the face, found before")
    parser.add_argument("--checkpoint", default="portraits")
    parser.add_argument("--seed", type=int, default=1, help="the face, without a photograph")
    parser.add_argument("--turn", type=float, default=0.0, help="drag, in shares of the picture")
    parser.add_argument("--edit", default="wide mouth", help="the button, where nothing is turned")
    parser.add_argument("--out", type=Path, default=Path("docs/editor.png"))
    arguments = parser.parse_args()
    from browser import open_page
    from editor_server import started

    editor = api.load(locate_weights(Path(arguments.checkpoint)))
    with tempfile.TemporaryDirectory() as name:
        faces, profile = Path(name, "faces"), Path(name, "profile")
        profile.mkdir()
        faces.mkdir()
        if arguments.project is not None:
            face = FaceProject.load(arguments.project, editor.generator)
        elif arguments.photograph is None:
            face = editor.generate(arguments.seed, resolution=128).project
        else:
            settings = editor.invert_settings(
                perceptual_weight=0, appearance_iterations=60, patience=0
            )
            face = finished(editor.invert(arguments.photograph, settings=settings)).project
        face.save(faces / "portrait.safetensors")
        given = ["--checkpoint", arguments.checkpoint, "--out", str(faces)]
        given += ["--project", str(faces / "portrait.safetensors")]
        with started(given) as address, open_page(address, profile, SIZE) as page:
            page.wait("document.querySelectorAll('#looks button').length == 8")
            if arguments.turn:
                painted_and_turned(page, arguments.turn)
            else:
                page.run(f"""[...document.querySelectorAll('#quick button')]
                    .find((button) => button.textContent == {arguments.edit!r}).click()""")
                page.wait(PASTED, seconds=120)
                page.run("new Promise((done) => setTimeout(done, 3000))")
            page.run("document.activeElement.blur()")
            page.screenshot(arguments.out)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    main()
