"""Damaged files by the thousand, from seeds: what reads them must read or refuse, nothing else.

`python tests/helpers/fuzzing.py COUNT` runs COUNT inputs of each kind and prints the outcomes.
"""

import io
import json
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from face_maps import draw_labels, paint
from faces import open_editor
from PIL import Image
from slider_cases import tiny_sliders
from torch import nn

from semfaceedit.data.decoding import read_image, read_label_map
from semfaceedit.data.landmarks_file import landmarks_of, read_points
from semfaceedit.data.layouts import Source, SourcePair, read_pose_table
from semfaceedit.data.preparation import locate, prepare_face
from semfaceedit.editing.encoder import EncoderSettings, load_encoder, new_encoder, save_encoder
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.sliders import load_directions
from semfaceedit.errors import UserError
from semfaceedit.model import checkpoint
from semfaceedit.model.codes import Film
from semfaceedit.model.config import tiny
from semfaceedit.model.discriminator import build_discriminators
from semfaceedit.parsing.network import Parser, ParserSettings, load_parser, save_parser
from semfaceedit.train import TrainOptions
from semfaceedit.train import run as train

LONGEST = 10  # seconds of work for one input
LENGTHS = [0, 1, 255, 2**31, 2**32 - 1]  # that a header may claim
Random = np.random.Generator


class Hang(BaseException):
    """An input took longer than `LONGEST`."""


@dataclass
class Outcomes:
    """What became of the inputs of each kind; `failures` are those that must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


# Changes of bytes and of values


def damaged(data: bytes, random: Random) -> bytes:
    """A few bytes changed, cut, doubled or exchanged, more often near the beginning."""
    values = bytearray(data)
    for _ in range(random.integers(1, 6)):
        if not values:
            break
        at = int(len(values) * random.random() ** random.choice([1, 3]))
        match random.integers(6):
            case 0:
                values[at] ^= 1 << random.integers(8)
            case 1:
                values[at] = random.integers(256)
            case 2:
                del values[at : at + random.integers(1, 64)]
            case 3:
                values[at:at] = values[at : at + random.integers(1, 64)]
            case 4:
                values[at : at + 4] = struct.pack("<I", random.choice(LENGTHS))
            case 5:
                del values[at:]
    return bytes(values)


def odd(random: Random) -> object:
    """A value that hardly any field expects."""
    choices = [None, True, -1, 0, 1, 2**31, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 50,
               [], [1, 2], {}, {"a": 1}, [[[]]], 0.5]  # fmt: skip
    return choices[random.integers(len(choices))]


def changed(value: object, random: Random) -> object:
    """A JSON value with one of its parts changed, dropped or renamed."""
    if not isinstance(value, dict | list) or not value or random.random() < 0.2:
        return odd(random)
    if isinstance(value, list):
        at = int(random.integers(len(value)))
        return [*value[:at], changed(value[at], random), *value[at + 1 :]]
    keys = list(value)
    key = keys[random.integers(len(keys))]
    kept = dict(value)
    inner = kept.pop(key)
    if random.random() < 0.8:
        kept[key if random.random() < 0.9 else f"{key}x"] = changed(inner, random)
    return kept


# Kinds of input: each writes a file of that seed and reads it


def picture_file(values: np.ndarray, path: Path, random: Random) -> None:
    """A picture in any mode and format, with EXIF, transparency or a palette of chance; then
    damaged, or not."""
    form = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"][random.integers(6)]
    modes = {"PNG": ["L", "P", "RGB", "RGBA", "LA", "I", "I;16", "1"], "JPEG": ["L", "RGB", "CMYK"],
             "GIF": ["P", "L"], "WEBP": ["RGB", "RGBA"], "BMP": ["L", "RGB", "P"],
             "TIFF": ["L", "RGB", "F", "I", "LAB", "YCbCr"]}[form]  # fmt: skip
    mode = modes[random.integers(len(modes))]
    picture = Image.fromarray(values)
    if mode in ("LAB", "YCbCr"):
        picture = picture.convert("RGB")
    if mode == "P" and values.ndim == 2:
        picture = picture.copy()
        picture.putpalette(random.integers(0, 256, 768, np.uint8).tobytes())
    elif mode == "LAB":
        picture = Image.merge("LAB", picture.split())
    else:
        picture = picture.convert("RGB" if mode == "CMYK" else mode) if mode != "I;16" else picture
    settings = {}
    if random.random() < 0.5 and form in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x112] = int(random.integers(0, 12))
        data = exif.tobytes()
        settings["exif"] = damaged(data, random) if random.random() < 0.5 else data
    if mode == "P" and random.random() < 0.5:
        settings["transparency"] = int(random.integers(256))
    buffer = io.BytesIO()
    try:
        picture.save(buffer, form, **settings)
    except Exception:  # Pillow refuses the combination: nothing to read
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PNG")
    data = buffer.getvalue()
    path.write_bytes(damaged(data, random) if random.random() < 0.7 else data)


def odd_labels(random: Random) -> np.ndarray:
    """A face with blocks of chance, or noise, or next to nothing, in any small size."""
    match random.integers(4):
        case 0:
            height, width = random.integers(1, 40, 2)
            return random.integers(0, 19, (height, width)).astype(np.uint8)
        case 1:
            return np.full(random.integers(1, 30, 2), random.integers(19), np.uint8)
        case _:
            labels = draw_labels(48, float(random.uniform(-0.6, 0.6)))
            for _ in range(random.integers(0, 12)):
                y, x, h, w = random.integers(0, 48, 4)
                labels[y : y + h, x : x + w] = random.integers(19)
            return labels


def image_case(folder: Path, random: Random) -> None:
    path = folder / "image"
    picture_file(paint(odd_labels(random)), path, random)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


def map_case(folder: Path, random: Random) -> None:
    path = folder / "map"
    labels = odd_labels(random)
    picture_file(labels if random.random() < 0.6 else paint(labels), path, random)
    found = read_label_map(path)
    assert found.dtype == np.uint8 and found.ndim == 2 and found.size and found.max() < 19


def pair_case(folder: Path, random: Random) -> None:
    labels = odd_labels(random)
    exif = Image.Exif()
    exif[0x112] = int(random.integers(1, 9))
    image, mask = folder / "image.png", folder / "mask.png"
    Image.fromarray(paint(labels)).save(image, exif=exif)
    Image.fromarray(np.rot90(labels, random.integers(4)).copy()).save(mask)
    prepared = prepare_face(locate(SourcePair("a", image, (mask,))), 16)
    assert prepared.image.shape == (16, 16, 3) and prepared.labels.max() < 19
    assert np.isfinite(prepared.pose).all() or np.isnan(prepared.pose).all()


def landmarks_case(folder: Path, random: Random) -> None:
    path, source = (
        folder / "landmarks",
        Source(folder, "pairs", [SourcePair("a", folder, (folder,))]),
    )
    points = random.integers(0, 100, (5, 2)).tolist()
    if random.random() < 0.5:
        data = json.dumps(changed({"a": points}, random)).encode()
    else:
        data = ("a " + " ".join(str(v) for p in points for v in p) + "\n").encode()
    path.write_bytes(damaged(data, random) if random.random() < 0.8 else data)
    for given in landmarks_of(read_points(path), source, path).values():
        assert given.points.shape == (5, 2) and np.isfinite(given.points).all()


def pose_table_case(folder: Path, random: Random) -> None:
    path = folder / "poses"
    path.write_bytes(damaged(b"2\nYaw Pitch Raw\n0.jpg 1.5 -3.25 0.5\n1.jpg 4 5 6\n", random))
    assert all(np.isfinite(pose).all() for pose in read_pose_table(path).values())


def settings_case(folder: Path, random: Random) -> None:
    path = folder / "settings.toml"
    lines = ['preset = "tiny"', "[train]", "generator_lr = 2e-4", 'phases = ["8:2", "16:3"]',
             "ema_decays = [0.9]", "[model]", "width = 16", "view_dependent = true",
             "[model.camera]", "yaw_std = 0.3"]  # fmt: skip
    at = random.integers(len(lines))
    if "=" in lines[at] and random.random() < 0.5:
        value = odd(random)
        lines[at] = f"{lines[at].split('=')[0]}= {json.dumps(value).lower()}"
    data = "\n".join(lines).encode()
    path.write_bytes(damaged(data, random) if random.random() < 0.6 else data)
    train(TrainOptions(config=path, dry_run=True))


class Tensors:
    """A .safetensors file of ours, taken apart and put together again, damaged."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        self.header, self.body = json.loads(data[8 : 8 + length]), data[8 + length :]
        self.whole = data

    def damaged(self, random: Random) -> bytes:
        header, body = json.loads(json.dumps(self.header)), bytearray(self.body)
        match random.integers(5):
            case 0:
                return damaged(self.whole, random)
            case 1:  # what our own header says
                own = json.loads(header["__metadata__"]["semfaceedit"])
                header["__metadata__"]["semfaceedit"] = json.dumps(changed(own, random))
            case 2:  # a tensor's type, shape or place
                names = [name for name in header if name != "__metadata__"]
                name = names[random.integers(len(names))]
                header[name] = changed(header[name], random)
            case 3:  # its numbers
                at = 4 * int(random.integers(len(body) // 4))
                odd_floats = [np.nan, np.inf, 1e38, 1.5]
                body[at : at + 4] = struct.pack("<f", odd_floats[random.integers(4)])
            case 4:  # names
                names = [name for name in header if name != "__metadata__"]
                name = names[random.integers(len(names))]
                header[f"{name}x" if random.random() < 0.5 else names[0]] = header.pop(name)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + bytes(body)


SIZES = EncoderSettings(width=8, features=16, components=4)


def same(one: Film, two: Film) -> bool:
    return torch.equal(one.phases, two.phases) and torch.equal(one.frequencies, two.frequencies)


def unchanged(found: nn.Module, own: nn.Module) -> bool:
    """Whether two networks of one kind hold the same numbers."""
    pairs = zip(found.state_dict().items(), own.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def cases(folder: Path) -> dict[str, Callable[[Path, Random], None]]:
    """Every kind; `folder` holds the sound files."""
    editor = open_editor(folder)
    weights = Tensors(Path(editor.generator.source))
    networks = folder / "d.safetensors"
    checkpoint.save_discriminators(networks, build_discriminators(tiny()), tiny(), images=0)
    sound_critics, _ = checkpoint.load_discriminators(networks)
    critics = Tensors(networks)
    sound_face = editor.generate(1, resolution=8).project
    sound_face.save(folder / "face.safetensors")
    face = Tensors(folder / "face.safetensors")
    save_encoder(folder / "encoder.safetensors", new_encoder(editor.generator, SIZES),
                 editor.generator, {})  # fmt: skip
    sound_encoder = load_encoder(folder / "encoder.safetensors", editor.generator)
    encoder = Tensors(folder / "encoder.safetensors")
    tiny_sliders(editor.generator).save(folder / "directions.safetensors", editor.generator)
    sound_directions = load_directions(folder / "directions.safetensors", editor.generator)
    directions = Tensors(folder / "directions.safetensors")
    settings = ParserSettings(16, 1, 0, (8, 8))
    sound_parser = Parser(settings.widths)
    save_parser(folder / "parser.safetensors", sound_parser, settings, {})
    parser = Tensors(folder / "parser.safetensors")
    checkpoint.save_state(folder, 1, {"a": torch.ones(3), "b": {"c": [1, 2.5, "x"]}})
    state = next(folder.glob("state-*.pt")).read_bytes()

    def write(path: Path, data: bytes) -> bool:
        path.write_bytes(data)
        return True

    def weights_case(here: Path, random: Random) -> None:
        write(path := here / "w.safetensors", weights.damaged(random))
        found, run = checkpoint.load_generator(path)
        assert unchanged(found, editor.generator) and run == editor.config

    def critics_case(here: Path, random: Random) -> None:
        write(path := here / "d.safetensors", critics.damaged(random))
        found, _ = checkpoint.load_discriminators(path)
        assert all(unchanged(*pair) for pair in zip(found, sound_critics, strict=True))

    def face_case(here: Path, random: Random) -> None:
        write(path := here / "f.safetensors", face.damaged(random))
        found = FaceProject.load(path, editor.generator)
        for part in ("geometry", "appearance"):
            assert same(getattr(found, part), getattr(sound_face, part)), f"{part} was changed"
        for name in ("pose", "labels", "image", "preview"):
            values, own = (np.asarray(getattr(face, name)) for face in (found, sound_face))
            assert np.array_equal(values, own), f"{name} was changed"
        assert (found.iterations, found.metrics, found.crop) == (0, {}, None)

    def encoder_case(here: Path, random: Random) -> None:
        write(path := here / "e.safetensors", encoder.damaged(random))
        assert unchanged(load_encoder(path, editor.generator), sound_encoder)

    def directions_case(here: Path, random: Random) -> None:
        write(path := here / "s.safetensors", directions.damaged(random))
        found = load_directions(path, editor.generator)
        assert found.sliders == sound_directions.sliders
        for name in ("scale", "low", "high", "geometry", "appearance"):
            values, own = (getattr(d.gauge, name) for d in (found, sound_directions))
            assert torch.equal(values, own), f"{name} was changed"

    def parser_case(here: Path, random: Random) -> None:
        write(path := here / "p.safetensors", parser.damaged(random))
        network, _ = load_parser(path, torch.device("cpu"))
        assert unchanged(network, sound_parser)

    def state_case(here: Path, random: Random) -> None:
        write(here / "state-00000001.pt", damaged(state, random))
        checkpoint.load_state(here)

    return {
        "images": image_case, "label maps": map_case, "pairs": pair_case,
        "landmarks": landmarks_case, "pose tables": pose_table_case, "settings": settings_case,
        "weights": weights_case, "discriminators": critics_case, "face projects": face_case,
        "encoders": encoder_case, "directions": directions_case, "parsers": parser_case,
        "states": state_case,
    }  # fmt: skip


@contextmanager
def limited(seconds: int):
    """Raise `Hang` in the block after so many seconds of work, however busy the machine is."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def campaign(count: int, *, first: int = 0, seconds: float = float("inf")) -> Outcomes:
    """`count` inputs of each kind from the seeds first ...; ends early after so many seconds."""
    outcomes = Outcomes()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound, here = Path(made) / "sound", Path(made) / "here"
        sound.mkdir()
        here.mkdir()
        kinds = cases(sound)
        outcomes.counts = {kind: Counter() for kind in kinds}
        for seed in range(first, first + count):
            for number, (kind, case) in enumerate(kinds.items()):
                if time.monotonic() > end:
                    return outcomes
                outcome = run_one(case, here, np.random.default_rng([number, seed]))
                outcomes.counts[kind][outcome.partition(":")[0]] += 1
                if outcome not in ("read", "refused"):
                    outcomes.failures.append(f"{kind} {seed}: {outcome}")
    return outcomes


def run_one(case: Callable[[Path, Random], None], here: Path, random: Random) -> str:
    """ "read", "refused", "hang" or "crash: ...", which a wrong result is too."""
    try:
        with limited(LONGEST), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            case(here, random)
    except UserError as error:
        return "refused" if "\n" not in str(error) else "crash: a message of several lines"
    except Hang:
        return "hang"
    except Exception as error:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        at = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
        return f"crash: {type(error).__name__} at {at}: {str(error)[:100]}"
    return "read"


if __name__ == "__main__":
    import resource

    start = time.monotonic()
    done = campaign(int(sys.argv[1]), first=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for kind, counts in done.counts.items():
        print(f"{kind:<16}{counts.total():>7} {dict(counts)}")
    print("\n".join(done.failures))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{time.monotonic() - start:.0f} s, at most {most} MiB")
