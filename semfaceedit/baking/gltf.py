"""`face.glb`: the layers of a baked face as glTF 2.0, back to front, unlit and alpha blended.

Colour and opacity are one texture a layer, each texel coloured by the group that its label has on
the frontal ray (viewers know no Eq. 2). Labels (a palette picture of class ids) and masks of the
groups (three to a picture, as red, green and blue) are further textures, which `extras` of each
material name.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..model.labels import CLASS_NAMES, PALETTE
from .bake import BakedFace
from .sampling import frontal_labels

UNLIT = "KHR_materials_unlit"
FLOAT, UNSIGNED_INT = 5126, 5125  # component types of glTF
VERTICES, INDICES = 34962, 34963  # buffer view targets


def check_gltf() -> Any:
    """The library that writes glTF; UserError where it is missing."""
    try:
        import pygltflib
    except ImportError:
        raise UserError(
            "glTF needs pygltflib: pip install 'semfaceedit[gltf]', or leave gltf out of --files"
        ) from None
    return pygltflib


def glb(face: BakedFace, *, title: str, mesh_size: int) -> bytes:
    """The file: a mesh of mesh_size x mesh_size vertices a layer, without what shows nothing."""
    lib = check_gltf()
    labels = frontal_labels(face)
    groups = np.array(face.group_of_class)[labels]
    model = lib.GLTF2()
    model.asset = lib.Asset(version="2.0", generator="semfaceedit")
    model.extensionsUsed = [UNLIT]
    model.samplers = [
        lib.Sampler(magFilter=9729, minFilter=9729, wrapS=33071, wrapT=33071),  # linear, clamped
        lib.Sampler(magFilter=9728, minFilter=9728, wrapS=33071, wrapT=33071),  # nearest
    ]
    model.extras = {"classes": list(CLASS_NAMES), "groups": list(face.group_names)}
    blob = _Blob(model, lib)
    for layer in reversed(range(face.layers)):  # in drawing order
        mesh = layer_mesh(face, layer, mesh_size)
        if len(mesh[2]) == 0:
            continue
        names = [f"layer {layer + 1}", "background plane"]
        name = names[layer == face.layers - 1]
        color = _chosen(face.colors[0, :, layer], groups[layer])
        rgba = np.dstack([color, face.alpha[layer]])
        extras = {
            "labels": blob.texture(_palette(labels[layer]), f"{name} labels", 1),
            "masks": [
                blob.texture(_png(mask), f"{name} masks {' '.join(group_names)}", 0)
                for group_names, mask in _masks(face, groups[layer])
            ],
        }
        model.materials.append(
            lib.Material(
                name=name, alphaMode="BLEND", doubleSided=False, extensions={UNLIT: {}},
                extras=extras, pbrMetallicRoughness=lib.PbrMetallicRoughness(
                    baseColorTexture=lib.TextureInfo(index=blob.texture(_png(rgba), name, 0)),
                    metallicFactor=0.0, roughnessFactor=1.0,
                ),
            )
        )  # fmt: skip
        index = len(model.materials) - 1
        attributes = lib.Attributes(
            POSITION=blob.accessor(mesh[0], "VEC3", VERTICES),
            TEXCOORD_0=blob.accessor(mesh[1], "VEC2", VERTICES),
        )
        faces = blob.accessor(mesh[2].reshape(-1), "SCALAR", INDICES)
        primitive = lib.Primitive(attributes=attributes, indices=faces, material=index)
        model.meshes.append(lib.Mesh(name=name, primitives=[primitive]))
        model.nodes.append(lib.Node(name=name, mesh=index))
    model.nodes.append(lib.Node(name=title, children=list(range(len(model.nodes)))))
    model.scenes = [lib.Scene(nodes=[len(model.nodes) - 1])]
    model.scene = 0
    return blob.file()


def layer_mesh(
    face: BakedFace, layer: int, mesh_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), texture coordinates (V, 2) from the upper left, and triangles (T, 3) of the
    cells of a layer that show anything and lie in front of the background plane."""
    surfaces = face.surfaces
    xy = surfaces.box_of(layer).nodes(mesh_size)
    z = surfaces.height_at(layer, xy)
    shown = torch.from_numpy(face.alpha[layer] > 0)[None].float()
    # A cell shows something where a texel under it does, those half beside it included.
    cells = torch.nn.functional.adaptive_max_pool2d(
        torch.nn.functional.max_pool2d(shown, 3, stride=1, padding=1), mesh_size - 1
    )[0] > 0  # fmt: skip
    if layer < surfaces.layers - 1:
        inside = (z >= surfaces.plane_z).float()[None]
        cells &= torch.nn.functional.max_pool2d(inside, 2, stride=1)[0] > 0
    row, column = cells.nonzero().unbind(1)
    first = row * mesh_size + column
    below = first + mesh_size
    triangles = torch.cat([
        torch.stack([first, below, first + 1], 1), torch.stack([first + 1, below, below + 1], 1)
    ])  # fmt: skip
    used, triangles = torch.unique(triangles, return_inverse=True)
    points = torch.cat([xy, z[..., None]], -1).reshape(-1, 3)[used]
    step = torch.linspace(0, 1, mesh_size)
    uv = torch.stack(torch.meshgrid(step, step, indexing="xy"), -1).reshape(-1, 2)[used]
    return (
        points.numpy().astype(np.float32), uv.numpy().astype(np.float32),
        triangles.numpy().astype(np.uint32).reshape(-1, 3),
    )  # fmt: skip


class _Blob:
    """The binary part of a model, and what refers to it: accessors, views, images, textures."""

    def __init__(self, model: Any, lib: Any):
        self.model, self.lib, self.data = model, lib, bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = self.lib.BufferView(
            buffer=0, byteOffset=len(self.data), byteLength=len(data), target=target
        )
        self.data += data
        self.model.bufferViews.append(view)
        return len(self.model.bufferViews) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int) -> int:
        accessor = self.lib.Accessor(
            bufferView=self.view(values.tobytes(), target), type=kind, count=len(values),
            componentType=FLOAT if values.dtype == np.float32 else UNSIGNED_INT,
        )  # fmt: skip
        if kind == "VEC3":  # glTF asks for the bounds of positions
            accessor.min, accessor.max = values.min(0).tolist(), values.max(0).tolist()
        self.model.accessors.append(accessor)
        return len(self.model.accessors) - 1

    def texture(self, png: bytes, name: str, sampler: int) -> int:
        image = self.lib.Image(name=name, bufferView=self.view(png), mimeType="image/png")
        self.model.images.append(image)
        source = len(self.model.images) - 1
        self.model.textures.append(self.lib.Texture(name=name, source=source, sampler=sampler))
        return len(self.model.textures) - 1

    def file(self) -> bytes:
        self.model.buffers = [self.lib.Buffer(byteLength=len(self.data))]
        self.model.set_binary_blob(bytes(self.data))
        return b"".join(self.model.save_to_bytes())


def _chosen(colors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) of each texel's group, of those (n, H, W, 3) of all groups."""
    return np.take_along_axis(colors, groups[None, ..., None], 0)[0]


def _masks(face: BakedFace, groups: np.ndarray) -> list[tuple[Sequence[str], np.ndarray]]:
    """Pictures (H, W, 3) of where three groups at a time are, and their names."""
    count = len(face.group_names)
    found: list[tuple[Sequence[str], np.ndarray]] = []
    for start in range(0, count, 3):
        names = face.group_names[start : start + 3]
        planes = [255 * (groups == group) for group in range(start, start + 3)]
        found.append((names, np.stack(planes, -1).astype(np.uint8)))
    return found


def _palette(labels: np.ndarray) -> bytes:
    picture = Image.fromarray(labels)
    picture.putpalette(PALETTE.tobytes())
    return _saved(picture)


def _png(picture: np.ndarray) -> bytes:
    return _saved(Image.fromarray(picture))


def _saved(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
