"""Files of the editor: uploads, saved and damaged faces, its folder; and how it begins and ends."""

import errno
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from editor_server import Client, number_at_hand, with_hair_on_top
from faces import write_checkpoint
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from semfaceedit import editor as command
from semfaceedit.editing.project import FaceProject
from semfaceedit.web_editor import changes
from semfaceedit.web_editor.uploads import clean_name

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_photograph_that_shows_no_face(client):
    image, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(image, "PNG")
    Image.new("L", (64, 64)).save(mask, "PNG")
    payload = image.getvalue() + mask.getvalue()
    client.send("invert", payload, split=len(image.getvalue()), name="ann.jpg")
    message = client.wait("error")[0]["message"]
    assert message.startswith("the label map: shows no face") and "/" not in message
    client.send("invert", image.getvalue(), split=len(image.getvalue()), name="ann.jpg")
    assert client.wait("error")[0]["message"].startswith("the photograph: no face was found")
    client.send("invert", b"no picture", split=4, name="ann.jpg")
    assert "the photograph" in client.wait("error")[0]["message"]


def sent_picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_is_too_large_is_not_decoded(client, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    small, large = sent_picture(8, 8), sent_picture(13_000, 13_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for first, second in ((large, b""), (small, large)):
            client.send("invert", first + second, split=len(first), name="ann.png")
            message = client.wait("error")[0]["message"]
            assert "more than 50 million pixels" in message and "make it smaller" in message


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("a\0b.png", "ab"), ("../../x.png", "x"), ("a/b\\c:d.jpg", "b c d"), (".png", "png"),
        ("///", "photograph"), ("\n.png", "photograph"), ("x" * 200 + ".png", "x" * 60),
        ("Screenshot 2026 at 1.00\u202fPM.png", "Screenshot 2026 at 1.00 PM"),
        ("Zo\u00eb.jpeg", "Zo\u00eb"), ("\ud800.png", "photograph"),
    ],
)  # fmt: skip
def test_names_of_photographs_are_cleaned(name, wanted):
    assert clean_name(name) == wanted


def test_a_photograph_of_any_name_is_looked_at(client, capfd):
    """A name that holds a NUL byte used to end in a traceback."""
    small = sent_picture(8, 8)
    client.send("invert", small + small, split=len(small), name="a\0b.png")
    assert "shows no face" in client.wait("error")[0]["message"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_look_is_kept_on_the_disk_without_being_asked(served, client, monkeypatch):
    server, _ = served
    monkeypatch.setattr(changes, "KEEP_AFTER", 0.05)
    client.ask("look", group="hair", seed=3, amount=0.7)
    wanted = server.session.face.appearance.phases
    end = time.monotonic() + 10
    while not any(
        torch.equal(FaceProject.load(path).appearance.phases, wanted)
        for path in server.session.saved.out.glob("autosave-*.safetensors")
    ):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_file_that_cannot_be_read_locks_nothing(served, client):
    server, _ = served
    server.session.saved.out.mkdir(exist_ok=True)
    link = server.session.saved.out / "nowhere.safetensors"
    link.symlink_to(server.session.saved.out / "none")
    try:
        state, labels = client.ask("go", revision=server.session.history[1])
        assert "nowhere" not in state["projects"]
        client.send("edit", with_hair_on_top(labels), number=number_at_hand(server), iterations=2)
        client.wait("state", busy="the face follows the map")
        client.wait("state", busy="")
    finally:
        link.unlink()


def test_damaged_projects_lock_no_page_out(served, client):
    """Each is refused; a client that comes later learns how things stand."""
    server, address = served
    server.session.save("whole")
    path = server.session.saved.file("whole")
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damage = (
        ({}, {"pose": torch.tensor([float("nan"), 0])}),
        ({}, {"labels": torch.full((32, 32), 200, dtype=torch.uint8)}),
        ({}, {"labels": torch.tensor(1, dtype=torch.uint8)}),
        ({}, {"labels": torch.zeros(8, 9, dtype=torch.uint8)}),
        ({"metrics": {"psnr": "x"}}, {}), ({"group_of_class": 1}, {}), ({"crop": [1]}, {}),
    )  # fmt: skip
    for changed, values in damage:
        text = json.dumps(header | changed)
        save_file(tensors | values, path, {"semfaceedit": text})
        client.send("open", name="whole")
        assert "it was damaged" in client.wait("error")[0]["message"]
    with Client(address) as later:
        assert later.wait("state")[0]["revisions"][-1] == "face 5"
    path.unlink()


def test_a_port_in_use_is_said_in_one_line(tmp_path, capsys):
    weights = write_checkpoint(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code = command.main(["--checkpoint", str(weights), "--port", str(port)])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and f"port {port}" in said and "--port 0" in said


@pytest.mark.parametrize("out", ["file", "closed/deep/faces"])
def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(
    tmp_path, capsys, monkeypatch, out
):
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir()
    make = Path.mkdir

    def refused(path, *arguments, **named):
        if tmp_path / "closed" in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        make(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refused)
    assert command.main(["--out", str(tmp_path / out)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / out) in said and "folder" in said


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "semfaceedit.web_editor.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert command.main([]) == 1
    assert "pip install 'semfaceedit[editor]'" in capsys.readouterr().err


def test_resolution_is_checked(capsys):
    assert command.main(["--resolution", "5000"]) == 1
    assert "use 16 to 1024" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C as a signal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_keeps_the_face(tmp_path, sent):
    weights = write_checkpoint(tmp_path)
    arguments = ["--checkpoint", str(weights), "--out", str(tmp_path / "out"), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SEMFACEEDIT_CACHE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "semfaceedit.editor", *arguments],
        stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.readline()
        address, key = re.search(r"http://([\d.:]+)/\?key=([\w-]+) ", said).groups()
        with Client(address, key) as client:
            client.wait("state")
            state, labels = client.ask("look", group="hair", seed=2, amount=1)
            client.send(
                "edit", with_hair_on_top(labels), number=state["numbers"][-1], iterations=2000
            )
            client.wait("progress")
            process.send_signal(sent)
            said = process.stderr.read()
        began = time.monotonic()
        assert process.wait(30) == 0 and time.monotonic() - began < 20
    assert "Traceback" not in said and "wrote" in said and "autosave" in said
    assert list((tmp_path / "out").glob("autosave-*.safetensors"))
