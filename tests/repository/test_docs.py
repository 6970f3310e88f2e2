"""The pages for readers: their links lead somewhere, and their commands take the options shown."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest
from commands import OPTIONS

from semfaceedit.__main__ import COMMANDS
from semfaceedit.cli import parse
from semfaceedit.usage import check_effect

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "semfaceedit/weights/README.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]  # fmt: skip
README_LINES = 130
LINK = re.compile(r"\]\(([^)\s#]+)(?:#([^)\s]+))?\)")
COMMAND = re.compile(
    r"^(?:semfaceedit |torchrun .* -m semfaceedit\.)([a-z_-]+) ?(.*)", re.MULTILINE
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def documented() -> list[tuple[str, str]]:
    """(command, its arguments) of every line of the pages that runs one."""
    texts = [(ROOT / page).read_text().replace("\\\n", " ") for page in PAGES]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    return [match for block in blocks for match in COMMAND.findall(block)]


def test_documented_commands_take_the_options_shown() -> None:
    lines = documented()
    assert {"train", "render", "invert", "edit", "transfer", "evaluate"} <= {
        name for name, _ in lines
    }
    for name, text in lines:
        command, arguments = name.replace("_", "-"), shlex.split(text, comments=True)
        assert command in COMMANDS
        if command == "evaluate":
            questions = list(takewhile(lambda word: not word.startswith("-"), arguments))
            arguments = arguments[len(questions) :]
            command = "evaluate ablate" if questions == ["ablate"] else command
        check_effect(parse(OPTIONS[command], arguments, name=command))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
