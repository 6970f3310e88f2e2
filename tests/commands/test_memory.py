"""Freed memory serves the next step."""

import platform
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import resource, torch
from semfaceedit.memory import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for _ in range(9):
        before = faults()
        for count in (9, 17, 40):
            torch.ones(count, 1 << 20)
        yield faults() - before
print(*steps())
assert keep_freed_memory()
print(*steps())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_steps_fault_their_memory_in_once() -> None:
    """Page faults of most steps; while the heap finds its size there are some more."""
    command = [sys.executable, "-c", STEPS]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    plain, kept = (statistics.median(map(int, line.split())) for line in result.stdout.splitlines())
    assert kept < 1000 < plain


REQUESTS = """
import gc, sys
from pathlib import Path
from faces import open_editor
from semfaceedit.api import InvertSettings, invert
from semfaceedit.memory import give_back_memory
from semfaceedit.web_editor.session import EditingSession

editor = open_editor(Path(sys.argv[1]))
quick = dict(geometry_iterations=2, appearance_iterations=2, perceptual_weight=0.0)

def used(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) >> 10  # MiB

def render(size):
    editor.generate(1, resolution=size)

def fit(size):
    face = editor.generate(1, resolution=size).project
    settings = InvertSettings(resolution=size, **quick)
    invert(editor.generator, face.image, face.labels, pose=(0.0, 0.0), settings=settings)

def views(size):
    session = EditingSession(editor, Path(sys.argv[1]), resolution=size)
    session.choose(1)
    session.view("image", (0.2, 0.0))

for request, size in ((render, 256), (fit, 128), (views, 256)):
    request(16)
    give_back_memory()
    before = used("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    request(size)
    gc.collect()
    give_back_memory()
    print(request.__name__, used("VmHWM") - before, used("VmRSS") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_memory_of_a_large_request_is_given_back(tmp_path: Path) -> None:
    """What a render, a fit and the editor's views took: nothing holds on to it."""
    helpers = Path(__file__).parents[1] / "helpers"
    code = f"import sys; sys.path.insert(0, {str(helpers)!r})\n{REQUESTS}"
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        name, most, left = line.split()
        assert int(most) > 40 and int(left) <= 8, result.stdout
