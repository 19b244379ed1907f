"""prepare: what it makes reaches the base, what it refuses is the client's error, and all else is the service's."""

import logging

import numpy as np
import onnx
import pytest

from riverdelta import Linear
from riverdelta.core.errors import ConfigurationError, InvalidInput, PrepareFailed, Unavailable
from riverdelta.core.features import Schema
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences, lacking
from riverdelta.learning.identity import describe, read

BASE = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids, int64[batch, sequence] mask, float[batch] price) => (float[batch] logit)
{ x = Cast<to = 1>(ids)  m = Cast<to = 1>(mask)  y = Mul(x, m)  s = ReduceSum<keepdims = 0>(y, last)  logit = Add(s, price) }"""
BASE = BASE.replace("=> (float[batch] logit)", "=> (float[batch] logit) <int64[1] last = {1}>")


def letters(columns):
    rows = [[ord(letter) for letter in text] for text in columns["text"]]
    return {"ids": rows, "mask": [[1] * len(row) for row in rows]}


@pytest.fixture
def define(tmp_path):
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "base.onnx")

    def make(prepare=letters, columns=None, **more):
        columns = {"text": "string", "price": "float32"} if columns is None else columns
        given = {"logit": "logit", "columns": Schema.of(columns), "prepare": prepare, **more}
        return Definition("letters", tmp_path / "base.onnx", **given)

    return make


def columns_of(*texts):
    return {"text": np.array(texts, object), "price": np.zeros(len(texts), np.float32)}


def test_requests_bring_the_declared_columns_and_the_base_gets_the_rest_padded(define):
    definition = define()
    assert [*definition.request_schema] == ["text", "price"]
    made = definition.complete(columns_of("ab", "", "abc"))
    assert made["ids"].tolist() == [[97, 98, 0], [0, 0, 0], [97, 98, 99]]
    assert made["mask"].tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert (made["ids"].dtype, made["ids"].flags.c_contiguous) == (np.int64, True)


def test_without_prepare_nothing_is_made(define):
    definition, columns = define(None, {}), {"ids": np.zeros((1, 1), np.int64)}
    assert definition.complete(columns) is columns


def test_a_value_error_is_the_client_s_and_any_other_error_the_service_s_with_its_traceback(define, caplog):
    def refuses(columns):
        raise ValueError("a text is longer than 5 pages")

    def breaks(columns):
        raise KeyError("vocabulary")

    def waits(columns):
        raise Unavailable("the tokenizer is starting")

    with pytest.raises(InvalidInput, match=r"prepare \(.*refuses\) refuses these columns: a text is longer than 5 pages"):
        define(refuses).complete(columns_of("a"))
    with caplog.at_level(logging.ERROR), pytest.raises(PrepareFailed, match=r"breaks\) failed with KeyError: .*vocabulary"):
        define(breaks).complete(columns_of("a"))
    assert "KeyError: 'vocabulary'" in caplog.text
    assert PrepareFailed.http_status == 500
    with pytest.raises(Unavailable):
        define(waits).complete(columns_of("a"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "returned null; expected a dict with ids, mask"),
        ({"ids": [[1]]}, "column 'mask' is missing"),
        ({"ids": [[1]], "mask": [[1]], "types": [[0]]}, "column 'types' is not declared"),
        ({"ids": [[1]], "mask": [[1]], "text": ["a"]}, "column 'text' is not declared"),
        ({"ids": [[1], [2]], "mask": [[1], [1]]}, "returned 2 rows of 'ids' for 1"),
        ({"ids": [[1, 2]], "mask": [[1]]}, "'mask' has 1 values along 'sequence' and 'ids' has 2"),
        ({"ids": [1], "mask": [1]}, "column 'ids' has shape int64[1]; expected int64[N, ?]"),
        ({"ids": np.array([[0.5]]), "mask": [[1]]}, "column 'ids' has type float64; expected int64[N, ?]"),
        ({"ids": np.array([[2**64 - 1]], np.uint64), "mask": [[1]]}, "column 'ids' has type uint64"),
    ],
)
def test_a_result_that_the_base_cannot_take_is_the_service_s_error_and_named(define, made, said):
    with pytest.raises(PrepareFailed, match=r"^prepare \(.*\) returned") as error:
        define(lambda columns: made).complete(columns_of("a"))
    assert said in str(error.value)


def test_safe_casts_are_made(define):
    made = {"ids": np.array([[7]], np.uint8), "mask": np.array([[1]], np.int32)}
    assert define(lambda columns: made).complete(columns_of("a"))["ids"].dtype == np.int64


def test_it_cannot_change_what_the_request_brought(define):
    def writes(columns):
        columns["extra"] = columns.pop("text")
        columns["price"][0] = 9.0

    columns = columns_of("a")
    with pytest.raises(InvalidInput, match="read-only"):
        define(writes).complete(columns)
    assert [*columns] == ["text", "price"]
    assert columns["price"].tolist() == [0.0]


async def later(columns):
    return {}


@pytest.mark.parametrize(
    ("prepare", "columns", "said"),
    [
        (letters, {}, r"declare what clients send: columns=\{'text': 'string'\}"),
        (3, {"text": "string"}, r"prepare is a int; expected a function"),
        (later, {"text": "string"}, r"prepare is a coroutine; expected a function"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_before_it_serves(define, prepare, columns, said):
    with pytest.raises(ConfigurationError, match=said):
        define(prepare, columns).preparation  # noqa: B018


def test_another_prepare_is_another_base_and_needs_what_requests_brought(define):
    def words(columns):
        return letters(columns)

    hour = {"text": "string", "hour": "float32"}
    mine, other = (describe(define(prepare, hour, keep_inputs=True)) for prepare in (letters, words))
    assert read(mine.model_dump_json().encode()) == mine
    assert differences(mine, mine) == []
    assert "prepare is function(" in differences(mine, other)[0]
    assert lacking(mine, other) == []
    kept = describe(define(letters, hour, corrections=[Linear("hour")]))
    assert lacking(kept, describe(define(words, hour, corrections=[Linear("hour")]))) == ["'text' (string[N])"]


def test_what_is_kept_is_what_the_request_brought(define):
    assert define(keep_inputs=True, corrections=[Linear("price")]).journal.keys() == {"price", "text"}
