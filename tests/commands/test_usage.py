"""What is wrong with the words of a command line is said in one line; nothing given is lost."""

import dataclasses
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from commands import OPTIONS

from semfaceedit import cli, invert, render, train
from semfaceedit.errors import UserError
from semfaceedit.usage import Within, check_ranges, gathered, unframed

BOTH = pytest.mark.parametrize("parser", [cli.parse, cli._parse_plain])


@dataclass(kw_only=True)
class Options:
    """Options of every kind."""

    folder: Path
    count: int = 3
    rate: float | None = None
    names: tuple[str, ...] = ("a",)
    flag: bool = False


@dataclass(kw_only=True)
class Underscored:
    """Options of several words."""

    folder: Path
    many_names: tuple[str, ...] = ("a",)
    no_mask: bool = False
    flag: bool = False


@BOTH
def test_an_option_of_several_values_may_be_given_again(parser):
    words = ["--names", "b", "--folder", "x", "--names=c", "d", "--no-flag"]
    assert parser(Options, words, name="sample").names == ("b", "c", "d")


@BOTH
def test_underscores_are_dashes(parser):
    """Of options that are given again, too; values keep theirs."""
    words = ["--many_names", "b_b", "--folder", "x_y", "--many-names=c_c", "--no_flag"]
    options = parser(Underscored, words, name="sample")
    assert options.many_names == ("b_b", "c_c") and options.folder == Path("x_y")


@BOTH
def test_a_switch_named_no_has_no_opposite(parser, capsys):
    assert parser(Underscored, ["--folder", "x", "--no-mask"], name="sample").no_mask
    assert not parser(Underscored, ["--folder", "x"], name="sample").no_mask
    with pytest.raises(SystemExit):
        parser(Underscored, ["--help"], name="sample")
    help_text = capsys.readouterr().out
    assert "--no-mask" in help_text and "--no-no" not in help_text
    assert "--no-flag" in help_text
    with pytest.raises(SystemExit):
        parser(Underscored, ["--folder", "x", "--no-no-mask"], name="sample")
    assert "no option --no-no-mask: did you mean --no-mask" in capsys.readouterr().err


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


NUMBERS = [
    (name, option)
    for name, options_type in OPTIONS.items()
    for option in cli.describe(options_type)
    if re.search(r"\b(int|float)\b", str(option.type)) and option.flag != "--seed"
]


@pytest.mark.parametrize(
    ("name", "option"), NUMBERS, ids=[f"{name} {option.flag}" for name, option in NUMBERS]
)
def test_every_number_has_a_range_and_is_refused_beyond(name, option, tmp_path, monkeypatch):
    """`--seed` is checked for all commands alike."""
    monkeypatch.chdir(tmp_path)
    hints = get_type_hints(OPTIONS[name], include_extras=True)
    marks = hints[option.field.name].__metadata__
    (within,) = [mark for mark in marks if isinstance(mark, Within)]
    default = option.default
    for value in default if isinstance(default, tuple) else (default,):
        assert value is None or value in within
    required = [o for o in cli.describe(OPTIONS[name]) if o.default is dataclasses.MISSING]
    words = [word for o in required for word in (o.flag, "a")]
    beyond = ["nan", "inf"] if "float" in str(option.type) else []
    beyond += [str(int(within.least) - 1)] if math.isfinite(within.least) else []
    beyond += [str(within.above)] if math.isfinite(within.above) else []
    beyond += [str(int(within.most) + 1)] if math.isfinite(within.most) else []
    assert within.least >= 0 or within.above >= 0 or within.unit
    for value in beyond:
        options = cli.parse(OPTIONS[name], [*words, f"{option.flag}={value}"], name=name)
        with pytest.raises(UserError, match=rf"^{option.flag} {re.escape(value)}: "):
            check_ranges(options)


def test_what_to_give_instead_is_said():
    assert Within(1, 4096).advice(0) == "use 1 to 4096"
    assert Within(0, below=1).advice(1) == "must be at least 0 and less than 1"
    assert Within(above=0, most=1).advice(2) == "must be more than 0 and at most 1"
    assert Within(0).advice(math.nan) == "must be finite"
    assert 1 in Within(1) and 0 not in Within(above=0) and math.inf not in Within(1)


def test_angles_are_in_radians_and_a_file_of_options_has_ranges_too(tmp_path, capsys):
    assert render.main(["--yaws", "9", "--out", str(tmp_path / "r")]) == 1
    said = "--yaws 9: use -1.57 to 1.57 radians (9 degrees are 0.157)"
    assert capsys.readouterr().err == f"semfaceedit render: error: {said}\n"
    words = ["--seed", "1", "--pitch", "0", "--yaw", "20", "--out", str(tmp_path / "a.safetensors")]
    assert invert.main(words) == 1
    said = "--yaw 20: use -1.31 to 1.31 radians (20 degrees are 0.349)"
    assert said in capsys.readouterr().err
    (tmp_path / "a.toml").write_text("rare_share = 1.5\n")
    assert train.main(["--config", str(tmp_path / "a.toml"), "--out", str(tmp_path)]) == 1
    assert "--rare-share 1.5: use 0 to 1" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.toml"]
