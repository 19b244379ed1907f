"""Whatever the service's own description allows, and what it does not, gets an answer that the description knows."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

load_all_checks()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
#: Each of the operator's commands waits for the learner.
COMMANDS = 6


@pytest.fixture(scope="module")
def described(server):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def test_the_description_is_a_valid_openapi_document(described):
    described.validate()
    assert described.raw_schema["openapi"] == "3.1.0"
    assert {"/score", "/feedback", "/status", "/openapi.json", "/v2/models/{name}/infer"} <= set(described.raw_schema["paths"])


def test_the_examples_in_the_description_are_answered(described, server):
    schemas = described.raw_schema["components"]["schemas"]
    for path, model in (("/score", "ScoreRequest"), ("/v2/models/{name}/infer", "InferRequest")):
        for example in schemas[model]["examples"]:
            named = {"name": "ranker"} if "{name}" in path else {}
            case = described[path]["POST"].Case(path_parameters=named, body=example, media_type="application/json")
            assert case.call_and_validate(checks=CHECKS).status_code == 200


def send_whatever(operation, mode, examples):
    """Send `examples` requests of one operation, made by its description or in spite of it, and check every answer."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def send(case):
        case.call_and_validate(checks=CHECKS)

    send()


def examples(operation):
    if operation.method != "post":
        return 5
    return COMMANDS if operation.path.startswith("/admin") else EXAMPLES


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_every_answer_is_one_that_is_described(described, http, mode):
    for found in described.get_all_operations():
        operation = found.ok()
        if mode == GenerationMode.POSITIVE or operation.body or operation.path_parameters or operation.query:
            send_whatever(operation, mode, examples(operation))
    # Whatever was commanded meanwhile, the other tests find a service that learns.
    assert not http.call("POST", "/admin/resume", {})["frozen"]
    assert http.score({"user_id": [1], "item_id": [1], "hour": [1.0]})
