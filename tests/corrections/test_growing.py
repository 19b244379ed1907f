"""Tables that grow by need: they learn and serve what a table with a row for each slot would, to the last bit."""

import numpy as np
import pytest

from riverdelta import Calibration, Correction, Entity, Schema, Stack, Table
from riverdelta.checks import check
from riverdelta.checks.block import draw
from riverdelta.core.arrays import pack
from riverdelta.core.errors import Corrupt
from riverdelta.corrections.growing import INDEX, SLOTS, Growing
from riverdelta.corrections.hashing import Hash

SCHEMA = Schema.of({"u": "int64", "v": "float32[3]"})


def made(slots=64, **given):
    stack = Stack([Calibration(), Entity("u", on=["v"], slots=slots, **given)])
    stack.bind(SCHEMA)
    return stack


def learned(stack, seed, rows=200):
    block = draw(SCHEMA, rows, seed)
    stack.learn(block.columns, block.offset, block.label, block.weight)
    return stack


def dense(stack, slots):
    """The state as a version saved it that had a row for each slot."""
    state, name = dict(stack.state()), "entity_u/learner/" + SLOTS
    slot_of = state.pop(name)
    for key in ("entity_u/served/mean", "entity_u/learner/precision"):
        rows, state[key] = state[key], np.zeros((slots, state[key].shape[1]), np.float32)
        state[key][slot_of[1:]] = rows[1:]
    return state


@pytest.mark.parametrize("slots", [1, 2, 64, 4096])
def test_a_state_with_a_row_for_each_slot_is_loaded_and_goes_on_bit_for_bit(slots):
    old = learned(made(slots), 1)
    new = learned(made(slots), 2)  # what it has learned goes
    new.load(dense(old, slots))
    assert new.digest() == old.digest()
    assert learned(new, 3).digest() == learned(old, 3).digest()
    fresh = learned(made(slots), 2)
    fresh.load(dense(made(slots), slots))
    assert fresh.digest() == made(slots).digest()


def test_only_slots_that_were_learned_have_rows_whatever_else_is_scored():
    stack = made(2**18)
    one = {"u": np.array([7]), "v": np.ones((1, 3), np.float32)}
    for weight in (0.0, 1.0):
        stack.predict({**one, "u": np.array([8])}, np.zeros((1, 1), np.float32))
        stack.learn(one, np.zeros((1, 1), np.float32), np.ones(1, np.float32), np.full(1, weight, np.float32))
        assert len(stack.corrections[1].served["mean"].values) == 1 + int(weight)
    assert sum(map(len, pack(stack.state()))) < 4096
    now, most = stack.sizes()["entity_u"]
    assert 2**20 < now < 2**20 + 4096
    assert most == now + (2**18 - 1) * (2 * 4 * 4 + 8)
    assert stack.occupancy() == {"entity_u/mean": 2.0**-18}


def test_the_state_is_the_same_in_whatever_order_entities_came():
    rng = np.random.default_rng(5)
    users, v = np.arange(50), rng.normal(size=(50, 3)).astype(np.float32)
    states = []
    for order in (users, rng.permutation(users)):
        entity = Entity("u", slots=2**16)
        entity.bind(SCHEMA)
        # Without `on`, no entity affects another.
        entity.learn({"u": order, "v": v}, np.zeros((50, 1), np.float32), (order % 2).astype("f"), np.ones(50, "f"))
        states.append(Stack([entity]).digest())
    assert states[0] == states[1]


def test_all_slots_can_have_rows():
    stack = learned(made(8), 1, 400)
    entity = stack.corrections[1]
    assert sorted(entity.served[INDEX].values[:, 0].tolist()) == list(range(1, 9))
    assert sorted(entity.learner[SLOTS][1:].tolist()) == list(range(8))
    assert stack.occupancy() == {"entity_u/mean": 1.0}
    learned(stack, 2)


@pytest.mark.parametrize(
    "wrong",
    {
        "a slot twice": lambda slot_of: np.r_[slot_of[:-1], slot_of[1]],
        "no slot of it": lambda slot_of: np.r_[slot_of[:-1], 64],
        "a negative slot": lambda slot_of: np.r_[slot_of[:-1], -1],
        "a row too few": lambda slot_of: slot_of[:-1],
        "none": lambda slot_of: slot_of[:0],
        "another number of slots": lambda slot_of: np.r_[128, slot_of[1:]],
    }.values(),
)
def test_rows_that_do_not_fit_their_slots_are_refused_and_nothing_is_loaded(wrong):
    state, mine = dict(learned(made(), 1).state()), learned(made(), 2)
    before, name = mine.digest(), "entity_u/learner/" + SLOTS
    state[name] = wrong(state[name])
    with pytest.raises(Corrupt, match=r"entity_u: the saved 'mean' has .* slots; expected 64 slots"):
        mine.load(state)
    assert mine.digest() == before


def test_the_suite_takes_a_third_partys_correction_that_grows():
    check(PerUser(slots=32), SCHEMA)


class PerUser(Correction):
    """raw = offset + b[user]: one number for each user, moved by a Newton step an example."""

    reads, keys = ("u",), ("u",)
    grows, since, radius = ("shift", "certainty", SLOTS), (INDEX, SLOTS), 8.0

    def __init__(self, slots=32, offset="offset"):
        self.slots, self.offset = slots, offset

    def bind(self, schema):
        self._hash = Hash.draw("peruser/u", 1, self.slots)
        self.served = {"shift": Table(np.zeros((1, self.loss.outputs)), slots=self.slots)}
        self.learner = {"certainty": np.zeros((1, self.loss.outputs))}
        self._rows = Growing(self.served, self.learner, self.slots, "shift", "certainty")
        super().bind(schema)

    def predict(self, columns, offset):
        out, rows = self.room(columns, offset), self._rows.index.values[self._hash(columns["u"]), 0]
        out[:] = offset + self.served["shift"].values[rows]
        return out

    def learn(self, columns, offset, label, weight):
        out, slots, used = self.room(columns, offset, label, weight), self._hash(columns["u"]), self._rows.used
        shift, touched, slot_of, certainty = self._rows.room(len(offset))
        for i, slot in enumerate(slots):
            row = self._rows.index.values[slot, 0]
            out[i] = offset[i] + shift[row]
            gradient, curvature = self.loss.derivatives(out[i], label[i], min(weight[i], 10.0))
            if weight[i] == 0.0 or not np.isfinite([*out[i], label[i], weight[i]]).all():
                continue
            if row == 0:
                row, slot_of[used], self._rows.index.values[slot, 0] = used, slot, used
                self._rows.index.touched[slot], used = True, used + 1
            certainty[row] += curvature[0]
            shift[row] = np.clip(shift[row] - gradient[0] / (1.0 + certainty[row]), -self.radius, self.radius)
            touched[row] = True
        self._rows.keep(used)
        return out

    def saved(self):
        return self._rows.saved()

    def restore(self):
        self._rows.restore()

    def export(self, nodes, columns, offset):
        rows = self._rows.export(nodes, self._hash.export(nodes, columns["u"]))
        return nodes.add("Add", offset, nodes.add("Squeeze", rows, nodes.constant([1], np.int64)))

    def forget_id(self, name, own, rows):
        return self._rows.reset(self._hash(np.array([own]))) if name == "u" else 0

    def occupancy(self):
        return {"shift": (self._rows.used - 1) / self.slots}
