"""What the commands write: marked as their own, so that no file of anybody else is replaced.

A PNG, JPEG or TIFF carries a hash of its pixels and a page one of its text, so that a file that
was changed since, such as a label map mended by hand, counts as its owner's. Moving pictures and
meshes carry a plain mark, .safetensors files the format in their header, JSON files the key
"format".
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open

from .errors import UserError
from .files import check_writable, write_atomically, write_text

MARK = "semfaceedit"
TIFF_MARK = 65000  # a private tag, so that the camera's program keeps its name
WRITTEN = ("paste", "bake", "trace", "out")  # options that name what a command writes
FOLDER = "folder"  # marks an option that names one: `out: Annotated[Path, FOLDER]`
SOFTWARE = 0x131  # the tag of EXIF that names the program


def check_outputs(
    outputs: Iterable[Path],
    inputs: Iterable[Path] = (),
    *,
    kind: str | None = None,
    flag: str = "--out",
) -> None:
    """UserError, before any work, where one of `outputs` is an input or not ours to replace.

    kind: the format that the header of a .safetensors file must name. flag: the option that says
    where to write.
    """
    read = [path for path in inputs if path.is_file()]
    for output in outputs:
        for path in read:
            if output.exists() and output.samefile(path):
                raise UserError(
                    f"{output} would be replaced, but it is read ({path}): choose another {flag}"
                )
        check_replaceable(output, kind=kind, flag=flag)


def check_replaceable(path: Path, *, kind: str | None = None, flag: str = "--out") -> None:
    """UserError where something is at `path` that the commands did not write as it is."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: move it away or choose another {flag}")
    if path.exists() and not is_own(path, kind=kind):
        raise UserError(
            f"{path} exists, and semfaceedit did not write it or it was changed since: move it "
            f"away or choose another {flag}"
        )


def paths_in(options: Any) -> list[Path]:
    """Every path that an options dataclass names, but for those that are written."""
    found: list[Path] = []
    for field in fields(options):
        value = getattr(options, field.name)
        several = value if isinstance(value, tuple) else (value,)
        if field.name not in WRITTEN:
            found += [path for path in several if isinstance(path, Path)]
    return found


def written(options: Any) -> dict[str, Path]:
    """What an options dataclass says is to be written, by option."""
    named = {f"--{name}": getattr(options, name, None) for name in WRITTEN}
    return {flag: path for flag, path in named.items() if isinstance(path, Path)}


def check_written(options: Any) -> None:
    """UserError or OSError, before work that would be lost, where an output cannot be written."""
    hints = get_type_hints(type(options), include_extras=True)
    for flag, path in written(options).items():
        marks = getattr(hints[flag[2:]], "__metadata__", ())
        check_writable(path, flag, folder=FOLDER in marks)


def flag_of(options: Any, name: str | None) -> str:
    """The option by which a file or folder that could not be written was named."""
    path = Path(name or "")
    for flag, named in written(options).items():
        if path == named or path in named.parents or named in path.parents:
            return flag
    return "--out"


def is_own(path: Path, *, kind: str | None = None) -> bool:
    """Whether the file at `path` is as one of the commands wrote it."""
    try:
        return path.is_file() and _KINDS[path.suffix.lower()](path, kind)
    except Exception:  # whatever a damaged file makes its reader say
        return False


def save_picture(path: Path, picture: Image.Image, **settings: Any) -> None:
    """Write a marked PNG; UserError where it would replace what is not ours."""
    check_replaceable(path)
    info = PngInfo()
    info.add_text("Software", picture_mark(picture))
    write_atomically(
        path, lambda temporary: picture.save(temporary, format="PNG", pnginfo=info, **settings)
    )


def save_page(path: Path, text: str) -> None:
    """Write a marked page, Markdown or HTML; UserError where it would replace what is not ours."""
    check_replaceable(path)
    write_text(path, text + _page_mark(text))


def picture_mark(picture: Image.Image) -> str:
    """What a PNG of ours says of the pixels in it."""
    rgb = picture.convert("RGB")
    return f"{MARK} {hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()}"


def jpeg_mark(picture: Image.Image) -> bytes:
    """The comment of a JPEG that decodes to this picture."""
    return picture_mark(picture).encode()


def _page_mark(text: str) -> str:
    return f"\n<!-- {MARK} {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def _own_png(path: Path, _kind: str | None) -> bool:
    with Image.open(path) as picture:
        return picture.info.get("Software") == picture_mark(picture)


def _own_jpeg(path: Path, _kind: str | None) -> bool:
    with Image.open(path) as picture:
        return picture.info.get("comment") == jpeg_mark(picture)


def _own_tiff(path: Path, _kind: str | None) -> bool:
    with Image.open(path) as picture:
        return picture.getexif().get(TIFF_MARK) == picture_mark(picture)


def _own_gif(path: Path, _kind: str | None) -> bool:
    with Image.open(path) as picture:
        return picture.info.get("comment") == MARK.encode()


def _own_webp(path: Path, _kind: str | None) -> bool:
    with Image.open(path) as picture:
        return picture.getexif().get(SOFTWARE) == MARK


def _own_mp4(path: Path, _kind: str | None) -> bool:
    return b"\xa9cmt" in (data := path.read_bytes()) and MARK.encode() in data


def _own_page(path: Path, _kind: str | None) -> bool:
    text, _, _ = path.read_text(encoding="utf-8").rpartition("\n<!-- ")
    return path.read_text(encoding="utf-8") == text + _page_mark(text)


def _own_mesh(path: Path, _kind: str | None) -> bool:
    """.ply, .obj and .mtl name us in a comment among their first lines."""
    with open(path, "rb") as file:
        return MARK.encode() in file.read(100)


def _own_glb(path: Path, _kind: str | None) -> bool:
    with open(path, "rb") as file:
        header = file.read(20)
        text = file.read(int.from_bytes(header[12:16], "little"))
    return bool(json.loads(text)["asset"]["generator"] == MARK)


def _own_json(path: Path, _kind: str | None) -> bool:
    return str(json.loads(path.read_text())["format"]).startswith(MARK)


def _own_tensors(path: Path, kind: str | None) -> bool:
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    return json.loads(metadata[MARK]).get("format") == kind


_KINDS = {
    ".png": _own_png, ".jpg": _own_jpeg, ".jpeg": _own_jpeg, ".tif": _own_tiff,
    ".tiff": _own_tiff, ".gif": _own_gif, ".webp": _own_webp, ".mp4": _own_mp4, ".md": _own_page,
    ".html": _own_page, ".glb": _own_glb, ".ply": _own_mesh, ".obj": _own_mesh, ".mtl": _own_mesh,
    ".json": _own_json, ".safetensors": _own_tensors,
}  # fmt: skip
