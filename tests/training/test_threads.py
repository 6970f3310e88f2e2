"""Threads of a long loop: fewer while they wait for cores, all again when nothing else runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import use_threads

from semfaceedit.threads import LOOK_S, PATIENCE_S, FairThreads, RunQueue


class Machine:
    """Cores that other programs share, and the time."""

    def __init__(self, cores: int):
        self.cores, self.busy, self.now = cores, 0, 0.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def waited(self) -> float:
        """Threads beyond the free cores wait for one."""
        without = max(0, torch.get_num_threads() + self.busy - self.cores)
        waited, self.slept = without * self.slept, 0.0
        return waited

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def free_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with use_threads(4):
        yield


def counts(machine: Machine, threads: FairThreads, seconds: float) -> list[int]:
    """The number of threads after each look."""
    found = []
    for _ in range(round(seconds / LOOK_S)):
        machine.pass_by(LOOK_S)
        threads.step()
        found.append(torch.get_num_threads())
    return found


@pytest.mark.usefixtures("free_threads")
def test_a_busy_program_takes_a_thread_and_gives_it_back() -> None:
    machine = Machine(cores=4)
    with FairThreads(machine.waited, machine.clock) as threads:
        assert set(counts(machine, threads, 3.0)) == {4}
        machine.busy = 1
        assert counts(machine, threads, 1.0) == [4, 3, 3, 3]
        machine.busy = 0
        after = counts(machine, threads, 3 * PATIENCE_S[0])
        assert after[-1] == 4
        machine.busy = 9
        assert counts(machine, threads, 3 * LOOK_S)[-1] == 1
        assert counts(machine, threads, 0.5)[-1] == 1
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("free_threads")
def test_trials_of_all_threads_become_rare() -> None:
    machine = Machine(cores=4)
    machine.busy = 1
    with FairThreads(machine.waited, machine.clock) as threads:
        found = counts(machine, threads, 600.0)
    starts = [i for i in range(1, len(found)) if found[i] == 4 and found[i - 1] == 3]
    gaps = [LOOK_S * (after - before) for before, after in zip(starts, starts[1:], strict=False)]
    assert 6 <= gaps[0] <= 7
    assert 60 <= gaps[-1] <= 61
    assert found.count(4) <= 0.02 * len(found)


@pytest.mark.usefixtures("free_threads")
def test_a_moment_of_other_work_changes_nothing() -> None:
    machine = Machine(cores=4)
    with FairThreads(machine.waited, machine.clock) as threads:
        for _ in range(5):
            machine.busy = 1
            assert counts(machine, threads, LOOK_S) == [4]
            machine.busy = 0
            assert counts(machine, threads, LOOK_S) == [4]


@pytest.mark.usefixtures("free_threads")
def test_one_look_back_over_a_long_step_is_enough() -> None:
    machine = Machine(cores=4)
    machine.busy = 1
    with FairThreads(machine.waited, machine.clock) as threads:
        machine.pass_by(3.0)
        threads.step()
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("fixed", ["named", "unknown"])
@pytest.mark.usefixtures("free_threads")
def test_threads_stay_where_they_are_fixed(fixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(cores=4)
    machine.busy = 4
    if fixed == "named":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    waited = machine.waited if fixed == "named" else lambda: None
    with FairThreads(waited, machine.clock) as threads:
        assert set(counts(machine, threads, 3.0)) == {4}


@pytest.mark.usefixtures("free_threads")
def test_threads_come_back_when_the_loop_fails() -> None:
    machine = Machine(cores=4)
    machine.busy = 2
    with pytest.raises(ZeroDivisionError):
        for _ in FairThreads(machine.waited, machine.clock).over(range(9)):
            machine.pass_by(LOOK_S)
            if torch.get_num_threads() < 4:
                raise ZeroDivisionError
    assert torch.get_num_threads() == 4


def test_the_wait_of_all_threads_is_added_up(tmp_path: Path) -> None:
    def write(task: str, waited: int) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        (tmp_path / task / "schedstat").write_text(f"123456 {waited} 7\n")

    queue = RunQueue(tmp_path)
    assert queue.waited() is None
    write("1", 2_000_000_000)
    assert queue.waited() == 2.0
    write("1", 2_500_000_000)
    write("2", 1_000_000_000)
    assert queue.waited() == 1.5
    (tmp_path / "1" / "schedstat").unlink()
    (tmp_path / "1").rmdir()
    assert queue.waited() == 0.0
    (tmp_path / "2" / "schedstat").write_text("0\n")
    assert queue.waited() is None


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the system does not tell")
def test_this_process_knows_what_it_waited() -> None:
    queue = RunQueue()
    first = queue.waited()
    assert first is not None and first >= 0
    again = queue.waited()
    assert again is not None and 0 <= again < 60
