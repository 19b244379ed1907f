"""Slices: each value's loss and calibration is its own, whatever the others do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.evaluation.slices import HALF_LIFE, MOST, Slices

SCHEMA = Schema.of({"country": "int64", "shop": "int64", "price": "float32"})
DECLARED = {"country": ["de", "fr"], "shop": [7, -3]}
ROWS = st.lists(
    st.tuples(st.sampled_from(["de", "fr", "us"]), st.sampled_from([7, -3, 0, 2**63 - 1]), st.floats(-5, 5, width=32),
              st.floats(-5, 5, width=32), st.sampled_from([0.0, 1.0])),
    min_size=1, max_size=30,
)  # fmt: skip


def block(rows):
    country, shop, base, served, label = zip(*rows, strict=True)
    columns = {"country": np.array([id64(c) for c in country]), "shop": np.array(shop)}
    return columns, *(np.array(a, np.float32) for a in (base, served, label, np.ones(len(rows))))


@settings(max_examples=60)
@given(ROWS)
def test_a_slice_has_the_loss_and_the_calibration_of_its_rows_alone(rows):
    slices = Slices(DECLARED, SCHEMA)
    slices.update(*block(rows))
    for at, column, known in ((0, "country", {"de", "fr"}), (1, "shop", {7, -3})):
        report = slices.report()[column]
        assert set(report) == {*map(str, known), "other"}
        for value in [*known, "other"]:
            mine = [r for r in rows if r[at] == value or (value == "other" and r[at] not in known)]
            fading = 0.5 ** (np.arange(len(mine) - 1, -1, -1) / HALF_LIFE)
            for scorer, k in (("base", 2), ("served", 3)):
                found = report[str(value)][scorer]
                z, y = np.array([r[k] for r in mine]), np.array([r[4] for r in mine])
                assert found["examples"] == len(mine)
                if not mine:
                    assert found["loss"] is None
                    continue
                assert found["loss"] == pytest.approx(np.average(np.logaddexp(0, z) - y * z, weights=fading), abs=1e-12)
                if not y.any():
                    assert found["calibration_ratio"] is None
                else:
                    assert found["calibration_ratio"] == pytest.approx(
                        fading @ (1 / (1 + np.exp(-z))) / (fading @ y), rel=1e-12
                    )


def test_old_examples_fade_within_their_own_slice():
    slices = Slices({"country": ["de"]}, SCHEMA)
    de, n = id64("de"), 6 * HALF_LIFE
    for z in (-3, 3):
        columns = {"country": np.full(n, de)}
        slices.update(columns, np.zeros(n), np.full(n, z), np.ones(n), np.ones(n))
        slices.update({"country": np.zeros(n, int)}, np.zeros(n), np.zeros(n), np.ones(n), np.ones(n))
    old, new = np.logaddexp(0, 3), np.logaddexp(0, -3)
    left = 0.5 ** (n / HALF_LIFE)
    assert slices.report()["country"]["de"]["served"]["loss"] == pytest.approx((left * old + new) / (left + 1), abs=1e-12)
    assert slices.report()["country"]["other"]["served"]["loss"] == pytest.approx(np.log(2), abs=1e-12)


def test_what_cannot_be_a_slice_is_refused_by_name():
    for declared, said in (
        ({"price": [1]}, "'price', which is float32"),
        ({"country": []}, "expected 1 to"),
        ({"country": ["de", "de"]}, "distinct ids"),
        ({"country": ["other"]}, "other than 'other'"),
        ({"country": [1.5]}, "1 to 32 distinct ids"),
        ({"country": [True]}, "1 to 32 distinct ids"),
        ({"country": [str(i) for i in range(MOST + 1)]}, f"1 to {MOST}"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Slices(declared, SCHEMA)
    with pytest.raises((ConfigurationError, InvalidInput), match="'town'"):
        Slices({"town": [1]}, SCHEMA)


def test_one_value_alone_is_one_slice():
    assert list(Slices({"country": "de"}, SCHEMA).report()["country"]) == ["de", "other"]
    assert list(Slices({"country": 49}, SCHEMA).report()["country"]) == ["49", "other"]


def test_rows_without_the_column_and_rows_that_are_not_finite_count_nowhere():
    slices = Slices({"country": ["de"]}, SCHEMA)
    slices.update({}, np.ones(2), np.ones(2), np.ones(2), np.ones(2))
    slices.update({"country": np.full(2, id64("de"))}, np.array([np.nan, 1]), np.array([1, np.inf]), np.ones(2), np.ones(2))
    assert slices.report()["country"]["de"]["base"]["examples"] == 0


def test_other_slices_begin_anew_and_other_shapes_are_refused():
    slices = Slices({"country": ["de"]}, SCHEMA)
    slices.update({"country": np.full(2, id64("de"))}, *np.ones((4, 2)))
    fresh = Slices({"shop": [7]}, SCHEMA)
    fresh.load(slices.state())
    assert fresh.report()["shop"]["7"]["base"]["examples"] == 0
    with pytest.raises(Corrupt, match=r"'country/sums' is float64\[2, 2, 4\]; expected float64\[3, 2, 4\]"):
        Slices({"country": ["de", "fr"]}, SCHEMA).load(slices.state())
