"""The Open Inference Protocol, spoken by Triton's own clients."""

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

N = 3


def inputs(module, binary=None, **changed):
    columns = {
        "user_id": np.array([1, 2, 3]),
        "item_id": np.array([4, 5, 6]),
        "hour": np.array([0.5, 1, 2], np.float32),
        **changed,
    }
    made = []
    for name, data in columns.items():
        kind = {"i": "INT64", "f": "FP32", "O": "BYTES"}[data.dtype.kind]
        tensor = module.InferInput(name, list(data.shape), kind)
        tensor.set_data_from_numpy(data, **({} if binary is None else {"binary_data": binary}))
        made.append(tensor)
    return made


@pytest.fixture(params=["http", "grpc"])
def triton(request, server):
    """(module, client): either transport."""
    if request.param == "http":
        client = triton_http.InferenceServerClient(f"127.0.0.1:{server.port}")
        yield triton_http, client
    else:
        client = triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        yield triton_grpc, client
    client.close()


def test_the_server_and_both_models_are_live_and_ready(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ranker")
    assert client.is_model_ready("ranker-feedback", "1")


def field(value, name):
    return value[name] if isinstance(value, dict) else getattr(value, name)


def test_metadata_names_columns_types_and_shapes(triton):
    _, client = triton
    metadata = client.get_model_metadata("ranker")
    taken = {field(i, "name"): (field(i, "datatype"), [int(n) for n in field(i, "shape")]) for i in field(metadata, "inputs")}
    assert taken == {"user_id": ("INT64", [-1]), "item_id": ("INT64", [-1]), "hour": ("FP32", [-1])}
    assert field(client.get_server_metadata(), "name") == "riverdelta"


def test_scores_come_back_and_their_feedback_is_a_model_too(triton):
    module, client = triton
    result = client.infer("ranker", inputs(module), request_id="r-1")
    score = result.as_numpy("score")
    assert score.shape == (N,)
    assert ((score > 0) & (score < 1)).all()
    impressions = result.as_numpy("impressions")[0].decode()
    ids = np.array([f"{impressions}.{i}".encode() for i in range(N)], dtype=object)
    wanted = [module.InferInput("id", [N], "BYTES"), module.InferInput("label", [N], "FP32")]
    wanted[0].set_data_from_numpy(ids)
    wanted[1].set_data_from_numpy(np.array([1, 0, np.nan], np.float32))
    answer = client.infer("ranker-feedback", wanted)
    assert answer.as_numpy("outcome").tolist() == [b"accepted"] * 3
    assert answer.as_numpy("position")[0] > 0


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "BOOL", "FP64"])
def test_a_label_of_any_numeric_datatype_is_taken(triton, datatype):
    module, client = triton
    impressions = client.infer("ranker", inputs(module)).as_numpy("impressions")[0].decode()
    fed = [module.InferInput("id", [N], "BYTES"), module.InferInput("label", [N], datatype)]
    fed[0].set_data_from_numpy(np.array([f"{impressions}.{i}".encode() for i in range(N)], dtype=object))
    fed[1].set_data_from_numpy(np.array([1, 0, 1], triton_to_np_dtype(datatype)))
    assert client.infer("ranker-feedback", fed).as_numpy("outcome").tolist() == [b"accepted"] * 3


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_weights_and_times_are_tensors_beside_the_label(triton, datatype):
    module, client = triton
    impressions = client.infer("ranker", inputs(module)).as_numpy("impressions")[0].decode()
    ids = np.array([f"{impressions}.{i}".encode() for i in range(N)], dtype=object)
    times, weights = np.array([1.7e9, np.nan, 1.7e9 + 0.5]), np.array([2.5, 0, 1], triton_to_np_dtype(datatype))
    kinds = (
        ("id", "BYTES", ids),
        ("label", "FP32", np.float32([1, 0, 1])),
        ("weight", datatype, weights),
        ("time", "FP64", times),
    )
    fed = [module.InferInput(name, [N], kind) for name, kind, _ in kinds]
    for tensor, (_, _, data) in zip(fed, kinds, strict=True):
        tensor.set_data_from_numpy(data)
    assert client.infer("ranker-feedback", fed).as_numpy("outcome").tolist() == [b"accepted"] * 3
    fed[2].set_data_from_numpy(-weights)
    with pytest.raises(InferenceServerException, match=r"item 0 has the weight -2\.5; expected 0 to 100"):
        client.infer("ranker-feedback", fed)


def test_optional_arguments_that_change_nothing_are_ignored_and_sequences_are_refused_with_the_reason(triton):
    module, client = triton
    plain = client.infer("ranker", inputs(module), request_id="r-2").as_numpy("base_logit")
    hinted = client.infer("ranker", inputs(module), priority=3, timeout=1_000_000, parameters={})
    assert np.array_equal(plain, hinted.as_numpy("base_logit"))
    with pytest.raises(InferenceServerException, match="no request depends on an earlier one"):
        client.infer("ranker", inputs(module), sequence_id=7, sequence_start=True)
    with pytest.raises(InferenceServerException, match="has 'delta'"):
        client.infer("ranker", inputs(module), parameters={"delta": 1})


@pytest.mark.parametrize("binary", [True, False])
def test_json_and_binary_tensors_give_the_same_scores(server, binary):
    client = triton_http.InferenceServerClient(f"127.0.0.1:{server.port}")
    outputs = [triton_http.InferRequestedOutput("base_logit", binary_data=binary)]
    base = client.infer("ranker", inputs(triton_http, binary), outputs=outputs).as_numpy("base_logit")
    client.close()
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as over_grpc:
        assert np.array_equal(base, over_grpc.infer("ranker", inputs(triton_grpc)).as_numpy("base_logit"))


def test_string_ids_and_the_axis_that_batching_clients_add_are_taken(triton):
    module, client = triton
    users = np.array([[b"ann"], [b"bob"], ["zoë".encode()]], dtype=object)
    wide = inputs(module, user_id=users, item_id=np.array([[4], [5], [6]]), hour=np.ones((3, 1), np.float32))
    assert client.infer("ranker", wide).as_numpy("score").shape == (3,)


HOSTILE = {
    "an unknown model": ("rankr", {}, "did you mean ranker"),
    "a missing version": ("ranker", {"model_version": "7"}, "no version '7'"),
    "an unknown output": ("ranker", {"outputs": ["scores"]}, "no output 'scores'"),
    "another type": ("ranker", {"user_id": np.array([1.5, 2, 3], np.float32)}, "'user_id' has type float32"),
    "uneven columns": ("ranker", {"item_id": np.array([4, 5])}, "'item_id' has 2 rows"),
    "nan": ("ranker", {"hour": np.array([np.nan, 1, 2], np.float32)}, "'hour' holds nan at row 0"),
    "a column too many": ("ranker", {"shoe": np.array([1, 2, 3])}, "has 'shoe'; allowed: user_id, item_id, hour"),
    "no rows": ("ranker", {n: np.empty(0, t) for n, t in (("user_id", int), ("item_id", int), ("hour", np.float32))}, "0 rows"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_request_is_refused_by_name_over_either_transport(triton, name):
    module, client = triton
    model, changed, message = HOSTILE[name]
    changed = dict(changed)
    given = {k: changed.pop(k) for k in ("model_version",) if k in changed}
    if "outputs" in changed:
        given["outputs"] = [module.InferRequestedOutput(o) for o in changed.pop("outputs")]
    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer(model, inputs(module, **changed), **given)
    expected = "NOT_FOUND|404" if "model" in name or "version" in name else "INVALID_ARGUMENT|400"
    assert str(refused.value.status()).removeprefix("StatusCode.") in expected.split("|")


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_compressed_requests_are_scored_and_an_answer_may_come_without(triton, packed):
    module, client = triton
    plain = client.infer("ranker", inputs(module)).as_numpy("base_logit")
    if module is triton_grpc:
        answer = client.infer("ranker", inputs(module), compression_algorithm=packed)
    else:
        wanted = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
        answer = client.infer("ranker", inputs(module), **wanted)
    assert np.array_equal(answer.as_numpy("base_logit"), plain)


def as_json(module, client, what, *given):
    """The client's answer as a dict over either transport; protobuf's JSON has 64-bit integers as text."""
    more = {} if module is triton_http else {"as_json": True}
    return getattr(client, what)(*given, **more)


def test_the_repository_lists_both_models_and_loads_none(triton):
    module, client = triton
    found = as_json(module, client, "get_model_repository_index")
    models = found if isinstance(found, list) else found["models"]
    assert [(m["name"], m["version"], m["state"]) for m in models] == [
        ("ranker", "1", "READY"),
        ("ranker-feedback", "1", "READY"),
    ]
    for act in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="does not exist"):
            act("ranker")


def test_the_configuration_has_tritons_types_and_the_shapes_of_the_metadata(triton):
    module, client = triton
    found = as_json(module, client, "get_model_config", "ranker")
    config = found.get("config", found)
    kinds = {i["name"]: (i["data_type"], [int(n) for n in i["dims"]]) for i in config["input"]}
    assert kinds == {"user_id": ("TYPE_INT64", [-1]), "item_id": ("TYPE_INT64", [-1]), "hour": ("TYPE_FP32", [-1])}
    assert {o["name"]: o["data_type"] for o in config["output"]}["impressions"] == "TYPE_STRING"
    assert (config["name"], config["backend"], config.get("max_batch_size", 0)) == ("ranker", "onnxruntime", 0)


def test_statistics_count_what_the_worker_that_answers_scored(triton):
    module, client = triton
    for _ in range(20):  # over HTTP either worker may answer
        client.infer("ranker", inputs(module))
    found = as_json(module, client, "get_inference_statistics", "ranker")
    (stats,) = found["model_stats"]
    rows, runs = int(stats["inference_count"]), int(stats["execution_count"])
    times = stats["inference_stats"]
    assert rows >= runs >= int(times["success"]["count"]) >= 1
    assert int(times["success"]["ns"]) > int(times["compute_infer"]["ns"]) > 0
    assert int(stats["last_inference"]) > 1e12
    every = as_json(module, client, "get_inference_statistics")["model_stats"]
    assert [one["name"] for one in every] == ["ranker", "ranker-feedback"]


def test_what_is_not_offered_is_an_error_that_the_client_can_read(triton):
    _, client = triton
    for act in (client.get_trace_settings, client.get_log_settings, client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="does not exist"):
            act()
    with pytest.raises(InferenceServerException, match="no version '7'"):
        client.get_model_config("ranker", "7")
    with pytest.raises(InferenceServerException, match="there is no model"):
        client.get_inference_statistics("rankr")
