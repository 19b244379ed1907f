"""Bound tables: what is written is what the next run reads, in host memory and on a device."""

import numpy as np
import pytest

from riverdelta.graph.runtime import choose_providers
from riverdelta.serving.session.tables import DeviceTable, HostTable


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def kind(request):
    if request.param == "host":
        return HostTable
    if "CUDAExecutionProvider" not in choose_providers():
        pytest.skip("no CUDA device works here")
    return DeviceTable


def test_rows_and_whole_tables_are_written_in_place(kind):
    rng = np.random.default_rng(5)
    expected = rng.normal(size=(1000, 3)).astype(np.float32)
    table = kind(expected)
    value = table.value
    for _ in range(20):
        rows = np.sort(rng.choice(1000, rng.integers(1, 300), replace=False))
        values = rng.normal(size=(len(rows), 3)).astype(np.float32)
        table.write(rows, values)
        expected[rows] = values
        assert table.holds(rows, values)
        assert table.holds(None, expected)
        assert not table.holds(rows, values + 1)
    table.write(None, -expected)
    assert table.holds(None, -expected)
    assert table.value is value


def test_writing_no_rows_changes_nothing(kind):
    table = kind(np.ones((4, 2), np.float32))
    table.write(np.empty(0, np.int64), np.empty((0, 2), np.float32))
    assert table.holds(None, np.ones((4, 2), np.float32))


def test_the_table_is_a_copy_of_what_it_was_made_from(kind):
    values = np.ones((4, 2), np.float32)
    table = kind(values)
    values[:] = 7
    assert table.holds(None, np.ones((4, 2), np.float32))
