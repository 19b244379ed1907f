"""Project: a wide vector read through a fixed matrix, alike in numpy and in the graph."""

import numpy as np
import pytest

from riverdelta import Entity, Linear, Project, Schema, Stack
from riverdelta.core.errors import ConfigurationError
from riverdelta.corrections.project import project
from riverdelta.learning.options import value

SCHEMA = Schema.of({"u": "int64", "h": "float32", "v": "float32[384]"})


def test_a_random_one_is_the_same_everywhere_and_another_for_another_column():
    mine = Project("v", 32).of(SCHEMA)
    assert mine.shape == (384, 32)
    assert set(np.unique(mine * np.sqrt(32)).round(6).tolist()) == {-1.0, 1.0}
    assert mine.tobytes() == Project("v", 32).of(SCHEMA).tobytes()
    assert (mine[:2, :8] > 0).astype(int).tolist() == FIRST
    other = Project("w", 32).of(Schema.of({"w": "float32[384]"}))
    assert 0.4 < (mine != other).mean() < 0.6


#: Signs of the first rows: stored tables depend on them.
FIRST = [[0, 1, 1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0]]


def test_a_random_one_keeps_lengths_and_inner_products():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 384)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    short = project(x, Project("v", 64).of(SCHEMA))
    off = short @ short.T - x @ x.T
    # The standard deviation of an inner product of unit vectors is at most √(2/64).
    assert np.sqrt(np.mean(off**2)) < np.sqrt(2 / 64)
    assert abs(np.linalg.norm(short, axis=1).mean() - 1.0) < 0.05


def test_a_row_has_the_same_bits_in_any_block():
    rng = np.random.default_rng(4)
    x, matrix = rng.normal(size=(70, 384)).astype(np.float32), Project("v", 31).of(SCHEMA)
    whole = project(x, matrix)
    assert whole.tobytes() == np.concatenate([project(x[i : i + 1], matrix) for i in range(70)]).tobytes()
    np.testing.assert_allclose(whole, x @ matrix, atol=1e-5)


def test_a_given_matrix_is_read_from_an_array_or_a_file_and_copied(tmp_path):
    matrix = np.random.default_rng(5).normal(size=(384, 3))
    np.save(tmp_path / "pca.npy", matrix)
    one, other = Project("v", 3, matrix=matrix), Project("v", 3, matrix=str(tmp_path / "pca.npy"))
    assert one == other
    assert value(one) == value(other) != value(Project("v", 3))
    matrix[:] = 0
    assert one.of(SCHEMA).any()


def test_it_goes_beside_its_own_column_and_other_features():
    stack = Stack([Entity("u", on=["v", Project("v", 8), "h"], slots=16), Linear(Project("v", 4), Project("v", 8))])
    stack.bind(SCHEMA)
    names = stack.corrections[0].coefficients()["mean"].features
    assert (len(names), names[-2:]) == (1 + 384 + 8 + 1, ("v_8[7]", "h"))


@pytest.mark.parametrize(
    ("made", "words"),
    {
        "a width of 0": (
            lambda: Project("v", 0),
            r"width is 0; expected an integer of at least 1: Project\(\"item_vec\", 32\)",
        ),
        "a bool": (lambda: Project("v", True), "width is True"),
        "no column": (lambda: Project("", 3), "key is ''"),
        "wider than its column": (lambda: Project("v", 384).of(SCHEMA), r"'v' has 384 numbers; write on=\['v'\]"),
        "a scalar": (lambda: Project("h", 2).of(SCHEMA), r"Project\('h', 2\)"),
        "an id": (lambda: Project("u", 2).of(SCHEMA), r"Project\('u', 2\)"),
        "a matrix of another width": (lambda: Project("v", 2, matrix=np.ones((384, 3))), r"float32\[384, 3\]; expected finite"),
        "a matrix of fewer rows": (lambda: Project("v", 2, np.ones((5, 2))).of(SCHEMA), r"expected float32\[384, 2\]"),
        "not finite": (lambda: Project("v", 2, matrix=[[np.nan, 1.0]]), "expected finite numbers"),
        "no file": (lambda: Project("v", 2, matrix="nowhere.npy"), "cannot be read: .*nowhere.npy"),
        "twice": (lambda: Entity("u", on=[Project("v", 2), Project("v", 2)]), "twice"),
    }.values(),
)
def test_what_does_not_fit_is_refused_by_name(made, words):
    with pytest.raises(ConfigurationError, match=words):
        made()
