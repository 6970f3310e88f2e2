"""What `--help` shows: every option explained, defaults once, an example that can be copied."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from commands import OPTIONS

from semfaceedit import cli
from semfaceedit.editing.mask_edits import EDITS
from semfaceedit.usage import check_effect

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(kw_only=True)
class Base:
    device: str | None = None
    """Where it
    runs (default: the CPU)."""
    seed: int = 0
    """A number."""


@dataclasses.dataclass(kw_only=True)
class SampleOptions(Base):
    """What it does.

    Example: semfaceedit sample --images a.png b.png --folder a-folder-with-a-long-name --no-align
    """

    images: tuple[Path, ...] = ()
    """Pictures."""
    align: bool = True
    """Crop first."""
    quick: bool = False
    """Be quick."""
    order: Literal["ab", "ba"] | None = None
    """Which first."""
    folder: Path
    """A folder."""


def test_required_options_come_first_and_inherited_ones_last() -> None:
    options = cli.describe(SampleOptions)
    assert [o.flag for o in options] == [
        "--folder", "--images", "--align", "--quick", "--order", "--device", "--seed"
    ]  # fmt: skip
    assert [o.hint for o in options] == [
        "(required)", "", "(default: --align)", "", "", "", "(default: 0)"
    ]  # fmt: skip
    assert [o.metavar for o in options] == [
        "PATH", "PATH ...", None, None, "{ab,ba}", "TEXT", "INT"
    ]  # fmt: skip
    assert options[5].help == "Where it runs (default: the CPU)."


def test_an_example_is_broken_before_an_option(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = cli.description(SampleOptions)
    assert text == (
        "What it does.\n\nExample:\n"
        "  semfaceedit sample --images a.png b.png \\\n"
        "      --folder a-folder-with-a-long-name --no-align"
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_explained(name: str) -> None:
    for option in cli.describe(OPTIONS[name]):
        assert option.help, option.flag
        assert f"{option.help} {option.hint}".count("(default") <= 1, option.flag


@pytest.mark.parametrize("name", OPTIONS)
def test_the_example_of_each_command_can_be_copied(name: str, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, found, rest = cli.description(OPTIONS[name]).partition("Example:\n")
    assert found
    words = shlex.split(rest.partition("\n\n")[0].replace("\\\n", ""))
    assert words[: 1 + len(name.split())] == ["semfaceedit", *name.split()]
    check_effect(cli.parse(OPTIONS[name], words[1 + len(name.split()) :], name=name))


def test_every_label_edit_is_named_where_it_is_asked_for() -> None:
    (paint,) = (option for option in cli.describe(OPTIONS["edit"]) if option.flag == "--paint")
    page = " ".join((ROOT / "docs" / "editing.md").read_text(encoding="utf-8").split())
    for name in EDITS:
        assert name in paint.help and name in page, name


@pytest.mark.parametrize("parser", [cli.parse, cli._parse_plain])
def test_both_parsers_show_the_same_help(parser, capsys) -> None:
    with pytest.raises(SystemExit):
        parser(SampleOptions, ["--help"], name="sample")
    text = capsys.readouterr().out
    for words in ("What it does.", "Example:", "A folder.", "(default: 0)", "Where it runs"):
        assert words in text
    assert "None" not in text and "(default: False)" not in text


def test_help_into_a_closed_pipe_is_quiet() -> None:
    command = f"{shlex.quote(sys.executable)} -m semfaceedit train --help | true"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr
