"""Messages and uploads that no page sends, by the thousand: each is answered, and nothing breaks.

A message without an answer ends the test after the minute that `Client.hear` waits.

Seeded. The short campaign runs with all tests; `-m slow` runs the long one.
"""

import io
import json
import random
import time
from collections import Counter

import numpy as np
import pytest
from editor_server import Client, running
from faces import SIZE
from PIL import Image

from semfaceedit.web_editor.answers import DEFECT
from semfaceedit.web_editor.messages import pack_message

pytestmark = pytest.mark.usefixtures("one_thread")
CELLS = 4 * SIZE**2
GOOD = (
    {"type": "view", "target": "face", "kind": "image", "yaw": 0.2, "pitch": 0.1, "moving": True},
    {"type": "view", "target": "before", "kind": "depth", "yaw": 0, "pitch": 0, "revision": 0},
    {"type": "follow", "target": "face", "kind": "image", "yaw": 0, "pitch": 0, "moving": True},
    {"type": "stroke", "number": 0, "name": "painted map"},
    {"type": "choose", "seed": 4},
    {"type": "open", "name": "mine"},
    {"type": "thumbnail", "name": "mine"},
    {"type": "look", "group": "hair", "seed": 3, "amount": 0.5},
    {"type": "turn", "yaw": 0.1, "pitch": 0.0},
    {"type": "go", "revision": 0},
    {"type": "paint", "name": "hat"},
    {"type": "edit", "iterations": 1, "number": 0, "name": "painted map"},
    {"type": "transfer", "seed": 3, "what": "appearance", "region": "hair", "iterations": 1},
    {"type": "transfer", "project": "mine", "what": "geometry", "region": "skin", "iterations": 1},
    {"type": "invert", "name": "ann.png", "split": 40},
    {"type": "supply", "name": "ann.png"},
    {"type": "save", "name": "mine"},
    {"type": "stop"},
    {"type": "layers", "number": 0, "version": 0, "texels": 8},
    {"type": "adjust", "changes": {}},
    {"type": "adjust", "changes": {"nose width": 1.5}},
    {"type": "export", "what": "photograph", "name": "x"},
    {"type": "cancel"},
)
ODD = (
    None, True, -1, 0, 1, 1.5, 2**31, 2**70, 1e308, -1e308, float("nan"), float("inf"), "", "hair",
    "x" * 300, "\0", "\ud800", "../../etc/passwd", "a\nb", "\u202e", [], [[]], {}, {"a": 1}, "1",
)  # fmt: skip


def odd_header(random: random.Random) -> bytes:
    """A good header with some of its fields changed, or bytes that are no header."""
    header = dict(random.choice(GOOD))
    for name in random.sample(sorted(header), random.randint(0, min(2, len(header)))):
        if random.random() < 0.2:
            del header[name]
        else:
            header[name] = random.choice(ODD)
    text = json.dumps(header).encode()
    way = random.random()
    if way < 0.1:
        place = random.randrange(len(text))
        text = text[:place] + random.randbytes(random.randint(0, 4)) + text[place + 1 :]
    elif way < 0.13:
        text = random.choice((b"[" * 2000, b'{"type":' * 500, b"", b"9" * 5000, b"\xff" * 40))
    length = len(text) if random.random() > 0.05 else random.randrange(2**32)
    return length.to_bytes(4, "little") + text


def odd_picture(random: random.Random) -> bytes:
    """A picture of an odd mode, size or format, cut or with bytes changed."""
    mode = random.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"))
    size = random.choice(((1, 1), (8, 8), (17, 40), (64, 64), (300, 2)))
    buffer = io.BytesIO()
    form = random.choice(("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"))
    try:
        Image.new(mode, size).save(buffer, form)
    except (OSError, ValueError, KeyError):
        Image.new("RGB", size).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    for _ in range(random.choice((0, 0, 1, 3, 20))):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data[: random.choice((len(data), random.randrange(len(data) + 1)))])


def odd_message(random: random.Random) -> bytes:
    if random.random() < 0.15:
        first, second = odd_picture(random), random.choice((b"", odd_picture(random)))
        header = {"type": "invert", "name": "ann.png", "split": max(1, len(first))}
        return pack_message(header, first + second)
    if random.random() < 0.02:
        return random.randbytes(random.randrange(40))
    size = random.choice((0, 1, CELLS - 1, CELLS, CELLS, CELLS, 5000))
    payload = bytes(random.choices(range(random.choice((19, 256))), k=size))
    return odd_header(random) + payload


def campaign(page: Client, address: str, seed: int, count: int) -> Counter[str]:
    """What was heard while `count` messages were sent, each followed by a sound one."""
    source, heard = random.Random(seed), Counter[str]()
    for index in range(count):
        page.socket.send(odd_message(source))
        page.send("stop")
        page.send("go", revision=10**6 - 1)  # is always refused, and says so
        while True:
            header, _ = page.hear()
            heard[header["type"]] += 1
            message = header.get("message", header.get("problem", ""))
            assert DEFECT not in message, (seed, index, message)
            assert len(message) < 1000
            if header["type"] == "error" and ("there is no revision 999999" in message
                                              or "wait, or press Stop" in message):  # fmt: skip
                break
    return heard


def run(tmp_path, capfd, seed: int, count: int) -> Counter[str]:
    with running(tmp_path) as (server, address):
        server.session.save("mine")
        with Client(address) as page:
            page.wait("state")
            heard = campaign(page, address, seed, count)
        server.changes.stopping.set()
        while server.changes.job is not None:
            time.sleep(0.01)
        with Client(address) as later:  # how things stand is still to be had
            state, labels = later.wait("state")
            assert len(labels) == state["size"] ** 2 and max(labels) < 19
            header, _ = later.ask("view", target="face", kind="image", yaw=0, pitch=0)
            assert header["type"] == "frame"
        out = server.session.saved.out
        assert all(path.parent == out for path in out.rglob("*"))
    assert "Traceback" not in capfd.readouterr().err
    return heard


def test_no_message_breaks_the_editor(tmp_path, capfd):
    heard = run(tmp_path, capfd, seed=3, count=250)
    assert heard["error"] > 100 and heard["state"] > 1 and heard["frame"] > 1, heard


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_no_message_breaks_the_editor_at_length(tmp_path, capfd, seed):
    run(tmp_path, capfd, seed, count=2000)


def test_a_flood_of_maps_is_answered(tmp_path):
    """Of every size around the right one, at once; the page before it is not forgotten."""
    with running(tmp_path) as (_, address), Client(address) as page:
        _, labels = page.wait("state")
        for size in range(0, 2 * CELLS, 97):
            page.send("paint", np.zeros(size, np.uint8).tobytes(), name="hat")
        answers = [page.wait("error")[0]["message"] for _ in range(0, 2 * CELLS, 97)]
        assert all("bytes" in answer or "cannot be painted" in answer for answer in answers)
        assert len(labels) == CELLS
