"""The files of a baked face: page, glTF, mesh, depth; and the command that writes them."""

import base64
import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from baked import baked
from PIL import Image

from semfaceedit import export, render
from semfaceedit.baking import container, surface_mesh
from semfaceedit.baking.bake import BakedFace
from semfaceedit.baking.gltf import layer_mesh
from semfaceedit.baking.page import PAGE, SCRIPTS, bundle
from semfaceedit.baking.sampling import draw
from semfaceedit.model.camera import project
from semfaceedit.model.generator import Generator

pytestmark = pytest.mark.usefixtures("one_thread")
VALIDATE = """
const validator = require("gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


def has_validator() -> bool:
    if shutil.which("node") is None:
        return False
    found = subprocess.run(["node", "-e", "require.resolve('gltf-validator')"], capture_output=True)
    return found.returncode == 0


@pytest.fixture(scope="module")
def face() -> BakedFace:
    return baked(Generator.from_checkpoint(None), 1, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("baked")
    assert run(out / "face", "--seed", "1") == 0
    return out / "face"


def run(out: Path, *options: str) -> int:
    small = ["--texture-size", "64", "--looks", "1", "--mesh-size", "24"]
    return export.main([*options, "--bake", str(out), *small])


def unpacked(data: bytes) -> tuple[dict, dict[str, bytes]]:
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    start = 4 + length
    return header, {
        name: data[start + offset : start + offset + size]
        for name, (offset, size) in header["sections"].items()
    }


def test_packed_planes_are_those_of_the_face(face: BakedFace) -> None:
    header, sections = unpacked(container.pack_layers(face, image_format="png"))
    kept = [entry["id"] for entry in header["classes"]]
    for name, planes in (
        ("alpha", face.alpha),
        ("scores", face.scores[..., kept].transpose(3, 0, 1, 2)),
    ):
        differences = np.frombuffer(zlib.decompress(sections[name]), np.uint8)
        assert np.array_equal(np.cumsum(differences.reshape(planes.shape), -1, np.uint8), planes)
    picture = np.asarray(Image.open(io.BytesIO(sections["colors-1-2"])))
    height, width = face.alpha.shape[1:]
    for layer in range(face.layers):
        row, column = divmod(layer, header["columns"])
        tile = picture[row * height :, column * width :][:height, :width]
        assert np.array_equal(tile, face.colors[1, 2, layer])


def test_classes_that_no_ray_shows_are_left_out(face: BakedFace) -> None:
    kept = container.classes_in_use(face)
    shown = set(np.unique(draw(face, (0.3, 0.0), 128).labels.numpy()).tolist())
    assert shown <= set(kept) and len(kept) < 19


def test_the_page_is_whole_and_loads_nothing(folder: Path) -> None:
    text = (folder / "face.html").read_text()
    assert (folder / "face.html").stat().st_size < 6e6
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|@import|\bimport\s""", text)
    data = base64.b64decode(re.search(r'id="layers">([^<]*)<', text)[1])
    assert unpacked(data)[0]["title"] == "Face 1"
    assert not re.findall(r"\{\{\w+\}\}", text)


def test_scripts_of_the_page_name_nothing_twice() -> None:
    names = re.findall(
        r"^(?:const|let|class|function|async function) (\w+)", bundle(), re.MULTILINE
    )
    assert len(names) == len(set(names))
    assert set(SCRIPTS) == {path.name for path in PAGE.glob("*.js")}


def test_a_layer_mesh_faces_the_front_and_covers_what_is_seen(face: BakedFace) -> None:
    for layer in (0, face.layers - 1):
        points, uv, triangles = layer_mesh(face, layer, 40)
        a, b, c = (points[triangles[:, i]] for i in range(3))
        assert (np.cross(b - a, c - a)[:, 2] > 0).all()
        box = face.surfaces.box_of(layer)
        where = box.to_unit(torch.from_numpy(points[:, :2])).numpy()
        assert np.abs(where - uv).max() < 1e-5
        column, row = (uv * 95.999).astype(int).T
        covered = np.zeros((96, 96), bool)
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                covered[np.clip(row + dy, 0, 95), np.clip(column + dx, 0, 95)] = True
        height = face.surfaces.points(layer, 96, 96)[..., 2].numpy()
        in_front = height > face.surfaces.plane_z + 0.01
        shown = (face.alpha[layer] > 0) & (in_front | (layer == face.layers - 1))
        assert covered[shown].all()


@pytest.mark.skipif(find_spec("pygltflib") is None, reason="pygltflib is missing")
@pytest.mark.skipif(not has_validator(), reason="no node, or npm's gltf-validator is missing")
def test_the_khronos_validator_finds_no_error(folder: Path) -> None:
    command = ["node", "-e", VALIDATE, str(folder / "face.glb")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    issues = json.loads(said)
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, said


def test_gltf_layers_come_back_to_front_unlit_and_blended(folder: Path) -> None:
    model = pytest.importorskip("pygltflib").GLTF2().load_binary(folder / "face.glb")
    children = model.nodes[model.scenes[0].nodes[0]].children
    names = [model.nodes[child].name for child in children]
    assert names[0] == "background plane" and names[-1] == "layer 1"
    assert names[1:] == sorted(names[1:], reverse=True)
    for material in model.materials:
        assert "KHR_materials_unlit" in material.extensions and material.alphaMode == "BLEND"
        labels = model.images[model.textures[material.extras["labels"]].source]
        view = model.bufferViews[labels.bufferView]
        data = model.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        picture = Image.open(io.BytesIO(data))
        assert picture.mode == "P" and np.asarray(picture).max() < 19
        assert len(material.extras["masks"]) == 2


def test_the_outer_surface_is_where_its_picture_shows_it(face: BakedFace) -> None:
    mesh = surface_mesh.outer_surface(face, 64)
    points = torch.from_numpy(mesh.points)[None]
    seen = project(points, torch.zeros(1, 2), face.camera)[0].numpy()
    assert np.abs((mesh.texture * [2, -2] + [-1, 1]) - seen).max() < 1e-4
    a, b, c = (mesh.points[mesh.triangles[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).mean() > 0.99
    assert mesh.points[:, 2].min() > face.surfaces.plane_z
    data = surface_mesh.ply(mesh)
    head = data[: data.index(b"end_header\n") + 11]
    assert len(data) == len(head) + 15 * len(mesh.points) + 13 * len(mesh.triangles)
    text = surface_mesh.obj(mesh, "surface").splitlines()
    assert sum(line.startswith("f ") for line in text) == len(mesh.triangles)


def test_depth_is_16_bits_of_world_distance(folder: Path) -> None:
    with Image.open(folder / "depth.png") as picture:
        assert picture.mode.startswith("I;16")
        values = np.asarray(picture).astype(float)
    low, high = surface_mesh.NEAREST, surface_mesh.FARTHEST
    distance = low + (values - 1) / 65534 * (high - low)
    assert 0.95 < distance.min() < 1.05 and 1.1 < distance.max() < 1.14


def test_a_second_bake_replaces_the_first_and_nothing_else(folder: Path, capsys) -> None:
    assert run(folder, "--seed", "2") == 0
    page = folder / "face.html"
    page.write_text(page.read_text().replace("Front", "Straight on", 1))
    assert run(folder, "--seed", "1") == 1
    assert "face.html exists" in capsys.readouterr().err


def test_a_project_is_baked_under_its_name(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path), "--save-projects", "--resolution", "16"]
    assert render.main(["--seeds", "4", *out]) == 0
    project_file = str(tmp_path / "face-4.safetensors")
    words = ["--bake", str(tmp_path / "baked"), "--files", "page", "--texture-size", "64"]
    assert export.main([*words, "--project", project_file, "--looks", "1"]) == 0
    assert [path.name for path in (tmp_path / "baked").iterdir()] == ["face.html"]
    assert "<title>face-4</title>" in (tmp_path / "baked" / "face.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "1"], "--bake is missing"),
        (["--bake", "x"], "either --project or --seed"),
        (
            ["--bake", "x", "--seed", "1", "--project", "f.safetensors"],
            "either --project or --seed",
        ),
        (
            ["--bake", "x", "--seed", "1", "--run", "r", "--out", "w.safetensors"],
            "give one of them",
        ),
        (["--bake", "x", "--seed", "1", "--texture-size", "4"], "--texture-size 4"),
        (["--bake", "x", "--seed", "1", "--mesh-size", "1"], "--mesh-size 1"),
        (["--bake", "x", "--seed", "1", "--files", "stl"], "--files stl"),
        (["--bake", "x", "--seed", "1", "--out", "w.safetensors"], "is for weights"),
        (["--bake", "x", "--seed", "-1"], "--seed -1"),
        (["--bake", "x", "--project", "no-such.safetensors"], "no face project"),
        (["--run", "r"], "--out is missing"),
        ([], "--project and --bake"),
    ],
)
def test_what_cannot_be_baked_is_said_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_for_gltf_one_line_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pygltflib", None)
    assert run(tmp_path / "face", "--seed", "1", "--files", "page", "gltf") == 1
    error = capsys.readouterr().err
    assert "semfaceedit[gltf]" in error and error.count("\n") == 1
    assert run(tmp_path / "face", "--seed", "1") == 0
    assert "face.glb is left out" in capsys.readouterr().err
    assert not (tmp_path / "face" / "face.glb").exists()
