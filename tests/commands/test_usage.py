"""What is wrong with the words of a command line is said in one line; nothing given is lost."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from semfaceedit import cli, render
from semfaceedit.usage import gathered, unframed

BOTH = pytest.mark.parametrize("parser", [cli.parse, cli._parse_plain])


@dataclass(kw_only=True)
class Options:
    """Options of every kind."""

    folder: Path
    count: int = 3
    rate: float | None = None
    names: tuple[str, ...] = ("a",)
    flag: bool = False


@BOTH
def test_an_option_of_several_values_may_be_given_again(parser):
    words = ["--names", "b", "--folder", "x", "--names=c", "d", "--no-flag"]
    assert parser(Options, words, name="sample").names == ("b", "c", "d")


def test_words_of_other_options_stay_where_they_are():
    words = ["editing", "--set", "a=1", "-x", "--out", "o", "p", "--set=b=2"]
    assert gathered(words, {"--set"}) == [
        "editing", "--out", "o", "p", "--set", "a=1", "-x", "b=2",
    ]  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    "words,said",
    [
        (["--folder"], "--folder"),
        ([], "--folder"),
        (["--folder", "x", "--count", "many"], "'many'"),
        (["--folder", "x", "--rate", "fast"], "'fast'"),
        (["--folder", "x", "stray"], "stray"),
        (["--folder", "x", "--cuont", "3"], "no option --cuont: did you mean --count?"),
        (["--folder", "x", "--zzz=3"], "no option --zzz "),
    ],
)
def test_what_is_wrong_is_one_line(parser, words, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as ended:
        parser(Options, words, name="sample")
    text = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in text and text.startswith("semfaceedit sample: error: ")
    assert text.endswith("(semfaceedit sample --help shows the options)\n")
    assert text.count("\n") == 1 and "│" not in text


def test_a_command_leaves_with_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["semfaceedit", "--resolution", "abc"])
    with pytest.raises(SystemExit) as ended:
        render.main()
    assert ended.value.code == 2
    assert "--resolution 'abc': expected INT" in capsys.readouterr().err


def test_a_message_of_several_lines_is_one():
    text = "╭─ Title ─╮\n│ Two \x1b[1mwords\x1b[0m │\n│ more.   │\n│ ─────── │\n│ advice │\n╰─╯\n"
    assert unframed(text) == "two words more"
