"""Ctrl-C while a video is written leaves no part of one, and the one before stays."""

import numpy as np
import pytest
from PIL import Image

from semfaceedit.pictures.video import save_animation

FRAME = np.zeros((32, 32, 3), np.uint8)


def interrupted(frames):
    """Somebody presses Ctrl-C when the fourth frame has come."""
    yield from frames[:3]
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["turn.mp4", "turn.webp", "turn.gif"])
def test_an_interrupted_video_leaves_nothing(tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        save_animation(path, [FRAME] * 6, fps=12, watch=interrupted)
    assert list(tmp_path.iterdir()) == []
    save_animation(path, [FRAME, 255 - FRAME], fps=12)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_animation(path, [FRAME] * 6, fps=12, watch=interrupted)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["turn.mp4", "turn.webp", "turn.gif"])
def test_progress_counts_every_frame_once(tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    frames, seen = [np.full_like(FRAME, 40 * n) for n in range(5)], []

    def watch(given):
        for frame in given:
            yield frame
            seen.append(int(frame[0, 0, 0]))

    save_animation(tmp_path / name, frames, fps=12, watch=watch)
    assert seen == [0, 40, 80, 120, 160]
    if not name.endswith("mp4"):
        with Image.open(tmp_path / name) as found:
            assert found.n_frames == 5
            found.seek(3)
            assert abs(int(np.asarray(found.convert("RGB"))[0, 0, 0]) - 120) < 3
