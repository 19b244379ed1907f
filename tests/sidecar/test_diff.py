"""Diff: the coefficients that moved most between two releases come first, in effect, and an id's can be asked for."""

import numpy as np
import onnx
import pytest

from river import compose, linear_model, preprocessing
from riverdelta import Calibration, Correction, Entity, Linear, Lookup, River, Table
from riverdelta.core.errors import Corrupt, InvalidInput, NotFound
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.ids import parse_ids
from riverdelta.core.settings import Settings
from riverdelta.corrections.hashing import Hash
from riverdelta.learning.definition import Definition
from riverdelta.sidecar.diff import diff
from riverdelta.storage.home import Home

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, int64[N] item, float[N] x) => (float[N] logit) {
  half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""
GENRES = Lookup("genres", key="item", table={7: [1, 3], 8: [2]})


class Bias(Correction):
    """A third party's correction, which says no more of itself than its table."""

    offset = "offset"
    reads = ()

    def bind(self, schema):
        self.served, self.learner = {"bias": Table(np.zeros((1, 1)))}, {}

    def predict(self, columns, offset):
        return offset + self.served["bias"].values

    def learn(self, columns, offset, label, weight):
        out = self.predict(columns, offset)
        self.served["bias"].values += 0.5
        return out

    def export(self, nodes, columns, offset):
        return nodes.add("Add", offset, nodes.table("bias", self.served["bias"].values))


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)

    def make(*corrections):
        definition = Definition("ranker", path, "logit", columns=Schema.of({"vec": "float32[2]"}), corrections=corrections)
        home = Home(definition, Settings.load(home=tmp_path / "home"))
        home.prepare()
        return Shop(definition, home.releases())

    return make


class Shop:
    """A store of releases, and a stack that learns between them."""

    def __init__(self, definition, store):
        self.definition, self.store, self.stack, self.examples = definition, store, definition.new_stack(), 0

    def learn(self, rows=50, user=5, item=7, label=1.0, **given):
        columns = {
            "user": np.full(rows, user),
            "item": np.full(rows, item),
            "x": np.full(rows, given.get("x", 2.0), np.float32),
            "vec": np.tile(np.array(given.get("vec", [3.0, 4.0]), np.float32), (rows, 1)),
        }
        base = (columns["x"] / 2).reshape(-1, 1)
        self.stack.learn(columns, base, np.full(rows, label, np.float32), np.ones(rows, np.float32))
        self.examples += rows
        return self

    def release(self):
        number, path = self.store.next_path()
        path.write_bytes(self.store.get(0).path.read_bytes())
        state = {f"stack/{name}": array for name, array in self.stack.state().items()}
        self.store.add(number, path, number, self.examples, 0.0, {}, state)
        return number

    def diff(self, a, b, **given):
        return diff(self.definition, self.store, a, b, **given)


def test_the_change_of_each_kind_of_coefficient_is_named_and_in_logits(shop):
    made = shop(Calibration(), Linear("x", intercept=True, slots=8), Entity("user", on=["vec"], slots=64)).learn()
    found = made.diff(0, made.release())
    assert found.examples == 50
    changes = {(c.correction, c.feature): c for c in found.changes}
    assert set(changes) == {("calibration", n) for n in ("intercept", "slope")} | {
        *(("linear", n) for n in ("intercept", "x")),
        *(("entity_user", n) for n in ("intercept", "vec[0]", "vec[1]")),
    }
    served = {name: table.values for name, table in made.stack.tables().items()}
    slope, x = changes["calibration", "slope"], changes["linear", "x"]
    assert (slope.before, slope.after) == (0.0, float(served["riverdelta/calibration/line"][0, 1]))
    assert slope.effect == pytest.approx(slope.after * 1.0)  # each offset is 1
    assert x.effect == pytest.approx(x.after * 2.0)
    slot = int(Hash.draw("entity/user", 1, 64)(np.array([5]))[0])
    second = changes["entity_user", "vec[1]"]
    assert (second.slot, second.id, x.slot) == (slot, None, None)
    # The vector's length is 5, so that each of its two elements has a root mean square of 5 / √2.
    assert second.effect == pytest.approx(float(served["riverdelta/entity_user/mean"][1, 2]) * 5 / np.sqrt(2))
    assert [abs(c.effect) for c in found.changes] == sorted((abs(c.effect) for c in found.changes), reverse=True)


def test_what_happened_before_the_first_release_is_no_change(shop):
    made = shop(Linear("user", slots=64)).learn(user=5)
    first = made.release()
    second = made.learn(user=6, label=0.0).release()
    (change,) = made.diff(first, second).changes
    assert change.slot == int(Hash.draw("linear/user", 1, 64)(np.array([6]))[0])
    assert change.after < 0
    assert made.diff(first, first).changes == []
    back = made.diff(second, first)
    assert (back.examples, back.changes[0].effect) == (-50, -change.effect)


def test_only_the_top_are_shown_and_all_are_counted(shop):
    made = shop(Linear("user", slots=4096))
    for user in range(40):
        made.learn(rows=1 + user, user=user)
    found = made.diff(0, made.release(), top=3)
    (turnover,) = found.tables
    assert (turnover.correction, turnover.changed, turnover.coefficients) == ("linear", 40, 4096)
    whole = made.diff(0, 1, top=100).changes
    assert len(whole) == 40
    assert list(found.changes) == list(whole[:3])


def test_an_id_shows_its_own_coefficients_changed_or_not(shop):
    made = shop(Linear("user", ("user", "item"), GENRES, slots=512), Entity("user", slots=64)).learn()
    number = made.release()
    mine = made.diff(0, number, ids={"user": 5}).changes
    assert {(c.correction, c.id) for c in mine} == {("linear", "user=5"), ("entity_user", "user=5")}
    assert all(c.effect > 0 for c in mine)
    assert [c.effect for c in made.diff(0, number, ids={"user": 99}).changes] == [0.0, 0.0]
    both = {c.id for c in made.diff(0, number, ids={"user": 5, "item": 7}).changes}
    assert both == {"user=5", "user=5, item=7", "genres=1 of item=7", "genres=3 of item=7"}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ({"itm": 7}, "did you mean item"),
        ({"x": 7}, "there are: item, user"),
        ({"item": 7}, "alone; for a cross give"),
    ],
)
def test_an_id_that_nothing_is_keyed_by_is_refused_with_what_there_is(shop, ids, said):
    made = shop(Linear(("user", "item"), slots=64)).learn()
    with pytest.raises(InvalidInput, match=said):
        made.diff(0, made.release(), ids=ids)


@pytest.mark.parametrize("text", ["user", "x=3", "users=3", "user=9223372036854775808", "user=-9223372036854775809"])
def test_what_is_no_id_is_refused(text):
    schema = Schema.of({"user": "int64", "x": "float32"})
    with pytest.raises(InvalidInput):
        parse_ids([text], schema)
    with pytest.raises(InvalidInput, match="each column once"):
        parse_ids(["user=3", "user=4"], schema)


def test_text_is_hashed_as_everywhere_and_a_number_is_itself():
    schema = Schema.of({"user": "int64"})
    for text, expected in (("ann", id64("ann")), ("-7", -7), ('"-7"', id64("-7")), ("", id64("")), ("1.5", id64("1.5"))):
        assert parse_ids([f"user={text}"], schema) == {"user": expected}
    assert parse_ids([], schema) is None


def test_a_river_pipeline_has_river_s_own_names_and_no_size(shop):
    encoded = compose.Select("user") | preprocessing.OneHotEncoder(drop_zeros=True)
    made = shop(River((compose.Select("x") + encoded) | linear_model.LogisticRegression(), slots=64)).learn()
    first = made.release()
    found = {c.feature: c for c in made.diff(0, first).changes}
    assert set(found) == {"intercept", "x", "user_5"}
    assert all((c.before, c.effect) == (0.0, None) and c.after > 0 for c in found.values())
    second = made.learn(user=6).release()
    assert {c.feature for c in made.diff(second, first).changes} == {"intercept", "x", "user_6"}
    (mine,) = made.diff(first, second, ids={"user": 6}).changes
    assert (mine.feature, mine.id, mine.before) == ("user_6", "user=6", 0.0)


def test_a_correction_that_says_nothing_of_itself_has_rows_and_columns(shop):
    made = shop(Bias()).learn(rows=1)
    (change,) = made.diff(0, made.release()).changes
    assert (change.feature, change.slot, change.before, change.after, change.effect) == ("column 0", 0, 0.0, 0.5, None)


def test_a_release_that_is_not_there_or_not_whole_is_named(shop):
    made = shop(Calibration()).learn()
    number = made.release()
    with pytest.raises(NotFound, match="there is no release 9; there are: 0, 1"):
        made.diff(0, 9)
    made.store.get(number).state_path.write_bytes(b"damaged")
    with pytest.raises(Corrupt, match=r"000001\.state"):
        made.diff(0, number)
