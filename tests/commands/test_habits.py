"""What people type and what their machines do: seeds, memory, pipes, two runs at once."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from semfaceedit import cli, invert, render
from semfaceedit.cli import parse_seeds
from semfaceedit.errors import UserError
from semfaceedit.failures import is_lack_of_memory
from semfaceedit.files import try_lock
from semfaceedit.options import say_if_not_followed
from semfaceedit.training.run_folder import locked


@pytest.mark.parametrize(
    ("text", "said"),
    [("5-2", "write 2-5"), ("0-99999999999", "at most 100,000"), (str(2**63), "from 0 to"),
     ("0-9,0-99999", "at most 100,000"), ("", "is not a number"), ("²", "is not a number")],
)  # fmt: skip
def test_seeds_that_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_seeds(text)


def test_seeds_up_to_63_bits():
    assert parse_seeds(f"3-5,{2**63 - 1}") == [3, 4, 5, 2**63 - 1]


@pytest.mark.parametrize("seed", ["-5", str(2**63)])
def test_a_seed_is_refused_by_every_command(seed, capsys):
    assert invert.main([f"--seed={seed}"]) == 1
    assert f"--seed {seed}: use a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("error", [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError(),
])  # fmt: skip
def test_lack_of_memory_names_the_options_that_need_it(monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(render, "open_checkpoint", fail)
    assert render.main(["--seeds", "0"]) == 1
    said = capsys.readouterr().err
    assert "--chunk-rays or --resolution" in said and said.count("\n") == 1


def test_the_allocator_says_what_is_expected():
    with pytest.raises(RuntimeError) as error:
        torch.zeros(2**60, dtype=torch.uint8)
    assert is_lack_of_memory(error.value)


def test_a_reader_that_leaves_early(monkeypatch, capsys):
    @dataclass(kw_only=True)
    class Options:
        """Nothing."""

    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert cli.run_command(Options, lambda _: print("x" * 100), [], name="test") == 1
    assert capsys.readouterr().err == ""


def test_a_run_folder_is_held_by_one_process(tmp_path):
    with locked(tmp_path), pytest.raises(UserError) as error, locked(tmp_path):
        pass
    assert f"process {os.getpid()} on " in str(error.value)
    with locked(tmp_path):
        pass


def test_no_locks_without_fcntl(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "a").open("w") as file:
        assert try_lock(file.fileno()) is None
    with locked(tmp_path), locked(tmp_path):
        pass


def test_no_module_needs_fcntl_to_be_imported():
    """It is Unix's alone; `try_lock` imports it where it is used."""
    for path in Path(cli.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(import|from) fcntl", path.read_text(), re.M), path


def test_an_edit_that_did_not_follow_is_said(capsys):
    say_if_not_followed({"labels_inside": 0.02})
    assert "only 2% of the labels inside" in capsys.readouterr().err
    say_if_not_followed({"labels_inside": 0.8})
    say_if_not_followed({})
    assert capsys.readouterr().err == ""
