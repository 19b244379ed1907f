"""OpenAPI: the description says what the scorer's own columns are."""

import json
import re

import jsonschema_rs
import pytest

from riverdelta.bento import admin, oip_rest, rest
from riverdelta.bento.openapi import document
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition

COLUMNS = {"user": [1, "ann"], "x": [0.5, 1], "shop": [0, 1]}


def body(document, path="/score"):
    """The schema of a POST's body, with what it refers to."""
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return {**named, "components": document["components"]}


@pytest.fixture
def described(definition):
    return document(definition, Settings(max_rows=3))


REFUSED = {
    "a column missing": {"columns": {"user": [1]}},
    "another column": {"columns": {**COLUMNS, "y": [1, 2]}},
    "no rows": {"columns": {name: [] for name in COLUMNS}},
    "too many rows": {"columns": {name: [1] * 4 for name in COLUMNS}},
    "an id beyond 64 bits": {"columns": {**COLUMNS, "user": [2**63, 1]}},
    "some ids in lists": {"columns": {**COLUMNS, "user": [1, [2]]}},
    "text for a number": {"columns": {**COLUMNS, "x": ["1", 2]}},
    "a propensity of zero": {"columns": COLUMNS, "propensity": [0, 1]},
    "another key": {"columns": COLUMNS, "cols": 1},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_described_as_such_and_answered_so(described, send, name):
    assert not jsonschema_rs.is_valid(body(described), REFUSED[name])
    if name != "too many rows":
        assert send("POST", "/score", json=REFUSED[name]).status_code == 400


def test_what_is_scored_is_described_as_such(described, send):
    for request in (
        {"columns": COLUMNS},
        {"columns": {name: [[value] for value in values] for name, values in COLUMNS.items()}},
        {"columns": COLUMNS, "propensity": [0.5, 1]},
        {"columns": COLUMNS, "propensity": None},
    ):
        assert jsonschema_rs.is_valid(body(described), request)
        assert send("POST", "/score", json=request).status_code == 200


def test_its_examples_are_scored(described, send):
    for path in ("/score", "/v2/models/{name}/infer"):
        for example in body(described, path)["examples"]:
            assert jsonschema_rs.is_valid(body(described, path), example)
            assert send("POST", path.format(name="ranker"), json=example).status_code == 200


def test_vectors_and_every_dtype_are_described(definition):
    specs = {"vec": "float32[2]", "flag": "bool", "small": "int8", "grid": "float64[2, 3]"}
    wide = Definition("wide", definition.base, "logit", columns=Schema.of(specs))
    schema = body(document(wide, Settings()))["properties"]["columns"]["properties"]
    for name, good, bad in (
        ("vec", [[1, 2]], [[1, 2, 3]]),
        ("flag", [True], [2]),
        ("small", [-128], [128]),
        ("grid", [[[1, 2, 3]] * 2], [[[1, 2, 3]]]),
    ):
        assert jsonschema_rs.is_valid(schema[name], good)
        assert not jsonschema_rs.is_valid(schema[name], bad)


def test_a_token_is_described_where_one_is_asked_for(definition, described):
    assert "security" not in described
    guarded = document(definition, Settings(admin_tokens="admin-token-of-the-shop"))
    assert guarded["security"] == [{"token": []}]
    assert guarded["paths"]["/v2/health/live"]["get"]["security"] == []
    assert "of-the-shop" not in str(guarded)


def test_every_route_is_described_and_nothing_else(described, runtime):
    routes = [*rest.routes(runtime), *admin.routes(runtime), *oip_rest.routes(runtime)]
    served = {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}
    assert served == {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}


def test_every_reference_leads_to_a_schema_and_every_schema_is_referred_to(described):
    found = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert found == described["components"]["schemas"].keys()
