"""Ctrl-C while a video is written leaves no part of one, and the one before stays."""

import numpy as np
import pytest

from semfaceedit.pictures.video import save_animation

FRAME = np.zeros((32, 32, 3), np.uint8)


class Interrupted(list):
    """Frames among which somebody presses Ctrl-C."""

    def __iter__(self):
        yield from self[:3]
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["turn.mp4", "turn.webp", "turn.gif"])
def test_an_interrupted_video_leaves_nothing(tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        save_animation(path, Interrupted([FRAME] * 6), fps=12)
    assert list(tmp_path.iterdir()) == []
    save_animation(path, [FRAME, 255 - FRAME], fps=12)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_animation(path, Interrupted([FRAME] * 6), fps=12)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before
