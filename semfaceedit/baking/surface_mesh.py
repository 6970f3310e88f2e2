"""The face's outer surface, seen from the front, as one mesh with colours; and its depth."""

from dataclasses import dataclass

import numpy as np
import torch

from ..model.rays import pixel_directions
from ..model.renderer import RenderOutput
from .bake import BakedFace
from .sampling import draw

BEHIND = 0.006  # world units in front of the background plane, nearer to which nothing is surface
STEEPEST = 6.0  # depth over width of a triangle, above which it would bridge a gap
NEAREST, FARTHEST = 0.8, 1.3  # world distances that 1 and 65535 stand for in a depth picture


@dataclass(frozen=True)
class ColoredMesh:
    """Triangles with a colour a vertex, and coordinates in the frontal picture."""

    points: np.ndarray  # (V, 3) float32 world
    colors: np.ndarray  # (V, 3) uint8
    texture: np.ndarray  # (V, 2) float32 in [0, 1], from the lower left
    triangles: np.ndarray  # (T, 3) int64, counter-clockwise from outside


def outer_surface(face: BakedFace, resolution: int) -> ColoredMesh:
    """The mesh of resolution x resolution frontal rays; the background is left out."""
    output = draw(face, (0.0, 0.0), resolution)
    depth = output.depth[0, 0]
    directions = pixel_directions(resolution, face.camera).to(depth)
    points = directions * depth[..., None] + depth.new_tensor([0.0, 0.0, 1.0])
    image = frontal_picture(output)
    solid = points[..., 2] > face.surfaces.plane_z + BEHIND
    numbers = torch.arange(resolution * resolution).view(resolution, resolution)
    first, right, below, across = (
        numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, :-1], numbers[1:, 1:]
    )  # fmt: skip
    triangles = torch.cat([
        torch.stack([first, below, right], -1).view(-1, 3),
        torch.stack([right, below, across], -1).view(-1, 3),
    ])  # fmt: skip
    z, flat = points.reshape(-1, 3)[:, 2], solid.flatten()
    width = 2 * face.camera.half_extent / resolution
    corners = z[triangles]
    steep = corners.amax(1) - corners.amin(1) > STEEPEST * width
    triangles = triangles[flat[triangles].all(1) & ~steep]
    used, triangles = torch.unique(triangles, return_inverse=True)
    where = (torch.stack([used % resolution, used // resolution], 1) + 0.5) / resolution
    return ColoredMesh(
        points.reshape(-1, 3)[used].float().numpy(), image.reshape(-1, 3)[used.numpy()],
        (where * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])).numpy(),
        triangles.view(-1, 3).numpy(),
    )  # fmt: skip


def frontal_picture(output: RenderOutput) -> np.ndarray:
    """(H, H, 3) uint8."""
    return ((output.image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def depth_to_16_bits(depth: np.ndarray) -> np.ndarray:
    """World distances as 1 to 65535, from NEAREST to FARTHEST in equal steps."""
    share = np.clip((depth - NEAREST) / (FARTHEST - NEAREST), 0, 1)
    return np.asarray(1 + np.rint(share * 65534), np.uint16)


def ply(mesh: ColoredMesh) -> bytes:
    """A binary .ply: positions and colours of the vertices, and triangles."""
    header = f"""ply
format binary_little_endian 1.0
comment semfaceedit
element vertex {len(mesh.points)}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face {len(mesh.triangles)}
property list uchar int vertex_indices
end_header
"""
    vertices = np.zeros(len(mesh.points), [("point", "<f4", 3), ("color", "u1", 3)])
    vertices["point"], vertices["color"] = mesh.points, mesh.colors
    faces = np.zeros(len(mesh.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.triangles
    return header.encode() + vertices.tobytes() + faces.tobytes()


def obj(mesh: ColoredMesh, material: str) -> str:
    """An .obj whose material library is `material`.mtl, with texture coordinates."""
    lines = ["# semfaceedit", f"mtllib {material}.mtl", f"usemtl {material}"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.points.tolist()]
    lines += [f"vt {u:.5f} {v:.5f}" for u, v in mesh.texture.tolist()]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in (mesh.triangles + 1).tolist()]
    return "\n".join(lines) + "\n"


def mtl(material: str, picture: str) -> str:
    """The material: the picture, unlit as far as .mtl can say it."""
    return f"# semfaceedit\nnewmtl {material}\nKd 1 1 1\nillum 0\nmap_Kd {picture}\n"
