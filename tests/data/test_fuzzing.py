"""Damaged files of every kind are read or refused: never a crash, a hang or a wrong result."""

import resource

import pytest
from fuzzing import campaign


def grown(count: int, **settings) -> int:
    """MiB that a campaign without failures has added to the largest size of the process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = campaign(count, **settings)
    assert outcomes.failures == []
    for kind, counts in outcomes.counts.items():
        assert counts.total() == count and (kind == "pairs" or counts["refused"] > 0), kind
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10


def test_a_few_damaged_files_of_each_kind():
    assert grown(25) < 1024


@pytest.mark.slow
def test_many_damaged_files_of_each_kind():
    assert grown(1000, first=10_000) < 1024
