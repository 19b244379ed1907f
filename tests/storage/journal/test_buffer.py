"""Rows wait in order, become blocks, and are counted when they are given up."""

import numpy as np
import pytest

from riverdelta.core.errors import TooLarge
from riverdelta.storage.journal.buffer import Buffer, Rows
from riverdelta.storage.registry import State

STATE = State(1, 2, 4)


def add(buffer, rows, propensity=None, time=1.5, state=STATE):
    logit = np.arange(rows, dtype=np.float32)
    return buffer.add(Rows({"x": logit[:, None]}, logit, logit + 1, logit + 2, propensity, state, time))


def test_requests_become_one_block_in_their_order():
    buffer = Buffer(9, limit=100)
    later = State(1, 3, 8)
    assert [add(buffer, 2), add(buffer, 3, np.full(3, 0.5, np.float32), time=2.5, state=later)] == [0, 1]
    block = buffer.block()
    rows = block.impressions
    assert block.requests.tolist() == [[0, 2], [1, 3]]
    assert (rows.incarnation, len(rows)) == (9, 5)
    assert rows.request.tolist() == [0, 0, 1, 1, 1]
    assert rows.index.tolist() == [0, 1, 0, 1, 2]
    assert rows.time.tolist() == [1.5, 1.5, 2.5, 2.5, 2.5]
    assert rows.swap.tolist() == [2, 2, 3, 3, 3]
    assert rows.position.tolist() == [4, 4, 8, 8, 8]
    assert rows.served[:, 0].tolist() == [2, 3, 2, 3, 4]
    assert np.isnan(rows.propensity[:2]).all()
    assert rows.columns["x"].shape == (5, 1)


def test_a_block_waits_until_it_is_forgotten_and_what_came_since_stays():
    buffer = Buffer(1, limit=100)
    add(buffer, 2)
    block = buffer.block()
    add(buffer, 3)
    assert buffer.rows == 5
    buffer.forget(block, {})
    assert (buffer.rows, buffer.requests, buffer.dropped) == (3, 1, 0)
    assert buffer.block().requests.tolist() == [[1, 3]]


def test_a_large_backlog_leaves_in_several_blocks_and_a_request_is_never_cut():
    buffer = Buffer(1, limit=10**6)
    for rows in (9_000, 9_000, 40_000):
        add(buffer, rows)
    sizes = []
    while (block := buffer.block()) is not None:
        sizes.append(len(block.impressions))
        buffer.forget(block, {})
    assert sizes == [9_000, 9_000, 40_000]


def test_requests_whose_inputs_have_other_lengths_leave_in_blocks_of_their_own():
    buffer, logit = Buffer(1, limit=100), np.zeros(2, np.float32)
    for length in (3, 3, 1, 3):
        buffer.add(Rows({"history": np.ones((2, length), np.int32)}, logit, logit, logit, None, STATE, 1.5))
    shapes = []
    while (block := buffer.block()) is not None:
        shapes.append(block.impressions.columns["history"].shape)
        buffer.forget(block, {})
    assert shapes == [(4, 3), (2, 1), (2, 3)]


def test_past_the_limit_the_oldest_go_and_are_counted():
    buffer = Buffer(1, limit=5)
    for _ in range(4):
        add(buffer, 2)
    assert (buffer.rows, buffer.dropped) == (4, 4)
    assert buffer.block().requests.tolist() == [[2, 2], [3, 2]]


def test_a_request_with_more_rows_than_an_index_can_name_is_refused():
    with pytest.raises(TooLarge, match="1048577 rows; at most 1048576"):
        add(Buffer(1, limit=10), 2**20 + 1)
