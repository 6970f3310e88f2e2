"""The files of a baked face."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..files import write_atomically
from ..outputs import check_outputs, check_replaceable, save_page, save_picture
from . import surface_mesh
from .bake import BakedFace
from .container import ImageFormat
from .gltf import check_gltf, glb
from .page import page
from .sampling import draw

KINDS = ("page", "gltf", "surface", "depth")
FILES = {
    "page": ("face.html",),
    "gltf": ("face.glb",),
    "surface": ("surface.ply", "surface.obj", "surface.mtl", "surface.png"),
    "depth": ("depth.png",),
}


def kinds_here() -> tuple[str, ...]:
    """The kinds whose libraries are installed."""
    try:
        check_gltf()
    except UserError:
        return tuple(kind for kind in KINDS if kind != "gltf")
    return KINDS


def check_bake(folder: Path, kinds: tuple[str, ...]) -> None:
    """UserError, before any work, where a library is missing or a file is not ours to replace."""
    if "gltf" in kinds:
        check_gltf()
    check_outputs([folder / name for kind in kinds for name in FILES[kind]], flag="--bake")


def write_bake(
    face: BakedFace,
    folder: Path,
    *,
    kinds: tuple[str, ...],
    title: str,
    image_format: ImageFormat,
    mesh_size: int,
) -> Iterator[tuple[Path, int]]:
    """Write the files of each kind; yields their paths and sizes in bytes, one by one."""
    if "page" in kinds:
        path = folder / FILES["page"][0]
        save_page(path, page(face, title=title, image_format=image_format))
        yield path, path.stat().st_size
    if "gltf" in kinds:
        yield _write(folder / FILES["gltf"][0], glb(face, title=title, mesh_size=mesh_size))
    if not {"surface", "depth"} & set(kinds):
        return
    front = draw(face, (0.0, 0.0), face.size[0])
    if "surface" in kinds:
        mesh = surface_mesh.outer_surface(face, 2 * mesh_size)
        names = [folder / name for name in FILES["surface"]]
        yield _write(names[0], surface_mesh.ply(mesh))
        yield _write(names[1], surface_mesh.obj(mesh, "surface").encode())
        yield _write(names[2], surface_mesh.mtl("surface", names[3].name).encode())
        save_picture(names[3], Image.fromarray(surface_mesh.frontal_picture(front)))
        yield names[3], names[3].stat().st_size
    if "depth" in kinds:
        path = folder / FILES["depth"][0]
        depth = surface_mesh.depth_to_16_bits(front.depth[0, 0].numpy())
        save_picture(path, Image.fromarray(depth))
        yield path, path.stat().st_size


def _write(path: Path, data: bytes) -> tuple[Path, int]:
    check_replaceable(path)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))  # type: ignore[arg-type]
    return path, len(data)
