"""Processes: what one has for itself and what it has worked, as the system counts it."""

import os

import numpy as np

from riverdelta.lab.processes import cpu_seconds, own_bytes

MIB = 1 << 20


def test_memory_that_is_filled_counts_and_the_pages_of_a_file_do_not(tmp_path):
    path = tmp_path / "pages"
    path.write_bytes(bytes(64 * MIB))
    before = own_bytes(os.getpid())
    mapped = np.memmap(path, np.uint8, "r")
    assert mapped[::4096].sum() == 0
    assert own_bytes(os.getpid()) - before < 32 * MIB
    filled = np.ones(64 * MIB, np.uint8)
    assert own_bytes(os.getpid()) - before > 60 * MIB
    assert filled[0] == 1


def test_work_costs_processor_time():
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) < before + 0.05:
        np.linalg.norm(np.ones(100_000))
    assert cpu_seconds(os.getpid()) >= before + 0.05
