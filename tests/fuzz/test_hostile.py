"""Every file of tests/hostile stands for a fault that was found: it is refused by a named error, or taken as what it is."""

import asyncio
import logging
import shutil
import sqlite3
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from riverdelta.core.errors import Corrupt, ModelError, Unavailable, Unsupported
from riverdelta.core.records import Tick, decode
from riverdelta.graph.signature import Signature
from riverdelta.serving.oip.messages import MESSAGES, SERVICE
from riverdelta.serving.session import Session
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import Delta, FolderRegistry, LiveStore, ReleaseStore, State

HOSTILE = Path(__file__).parents[1] / "hostile"
MOST_BYTES = 4096
RECORDS = {
    "length_past_its_buffer.arrow": "not a journal record",
    "negative_length.arrow": "not a journal record",
    "bool_byte_of_2.arrow": "a boolean is 2; expected 0 or 1",
    "int32_where_int64_belongs.arrow": r"its request is not int64\[N\]",
    "labels_of_two_axes.arrow": r"its label is not float32\[N\]",
    "cut_in_its_schema.arrow": "not a journal record",
    "tick_with_a_time_of_text.json": "its time is '12'",
    "tick_with_a_time_of_true.json": "its time is True",
    "tick_without_a_time.json": "time",
    "tick_with_one_more_field.json": "tock",
    "control_without_an_action.json": "its action is not text",
    "control_with_a_list_of_arguments.json": "its arguments are not an object",
    "kind_that_is_a_list.json": r"its kind is \['tick'\]",
    "nested_1000_deep.json": "recursion",
}
INDEXES = {
    "index_with_a_file_above_its_folder.json": "not an index of releases",
    "index_with_a_file_of_the_root.json": "not an index of releases",
    "index_with_a_file_of_no_name.json": "not an index of releases",
    "index_with_the_folder_above_as_a_file.json": "not an index of releases",
    "index_with_a_file_of_a_null_byte.json": "not an index of releases",
    "index_with_weights_above_its_folder.json": "not an index of releases",
    "index_with_a_number_of_text.json": "not an index of releases",
    "index_with_facts_that_are_a_list.json": "not an index of releases",
    "index_with_a_champion_of_text.json": "not an index of releases",
    "index_that_is_a_list.json": "not an index of releases",
    "index_cut_short.json": "is not valid JSON",
    "index_nested_2000_deep.json": "is not valid JSON",
}
REQUESTS = {
    "shape_with_an_axis_of_0.oip": "at most 8 axes and 2",
    "shape_of_negative_axes.oip": "an integer of at least 0",
    "shape_of_2_to_the_64.oip": "shape|JSON",
    "shape_that_is_true.oip": "an integer of at least 0",
    "text_among_numbers.oip": "has a str among its values; expected FP32",
    "data_beside_its_bytes.oip": "data and binary_data_size",
    "size_of_minus_1.oip": "binary_data_size is -1",
    "size_past_the_body.oip": "binary_data_size 9223372036854775808; 4 bytes are left",
    "size_that_is_true.oip": "binary_data_size is True",
    "bytes_behind_the_last_tensor.oip": "4 bytes remain after the last input",
    "header_length_past_the_body.oip": "at most the body's",
    "header_length_of_a_sign.oip": "expected a number of bytes",
    "header_length_inside_the_json.oip": "JSON .* is not JSON",
    "one_tensor_twice.oip": "'x' is given twice",
    "text_longer_than_the_body.oip": "4294967295 bytes, but only 4 are left",
    "text_that_ends_in_its_length.oip": "ends inside the length of element 0",
    "text_that_is_not_utf8.oip": "not UTF-8",
}
MESSAGES_OF = {
    "contents_beside_raw_bytes.txtpb": "fp32_contents and raw_input_contents",
    "contents_of_another_type.txtpb": "has int64_contents; expected fp32_contents",
    "contents_of_a_type_without_any.txtpb": "needs raw_input_contents",
    "raw_bytes_for_more_inputs.txtpb": "2 raw_input_contents for 1 inputs",
    "a_shape_that_overflows.txtpb": "at most 500 rows",
    "a_negative_shape.txtpb": "sizes of at least 0",
    "an_int32_beyond_int8.txtpb": "expected INT8",
    "a_text_longer_than_its_bytes.txtpb": "4294967295 bytes, but only 4 are left",
}
SEGMENTS = {
    "record_in_another_s_place.sql": "record 2 in .* does not match its digest",
    "record_with_the_digest_of_another.sql": "record 3 in .* does not match its digest",
    "record_that_is_missing.sql": "lacks record 3",
    "record_without_a_payload.sql": "record 1 in .* does not match its digest",
    "record_of_text.sql": "record 1 in .* does not match its digest",
    "record_of_bytes_that_are_no_utf8_text.sql": "is damaged: Could not decode to UTF-8",
    "table_that_is_missing.sql": "is damaged: no such table: record",
    "column_that_is_missing.sql": "is damaged: no such column: digest",
    "first_record_of_text.sql": "has 'one' as its 'first'",
    "first_record_that_is_missing.sql": "lacks 'first'",
    "incarnation_of_64_bits.sql": "has 9223372036854775807 as its 'incarnations'",
    "swept_that_is_no_json.sql": r"has '\[1' as its 'swept'",
    "settings_that_are_no_json.sql": "has '{' as its 'settings'",
    "settings_that_are_a_list.sql": r"has '\[\]' as its 'settings'",
    "settings_of_another_name.sql": "as its 'settings'",
    "settings_of_an_unknown_policy.sql": "has .*newest.* as its 'settings'",
    "settings_with_a_window_of_text.sql": "as its 'settings'",
    "tick_of_nothing.sql": "has None as its 'tick'",
    "block_of_nine_bytes.sql": "as its 'requests'",
    "label_of_text.sql": "as its 'feedback'",
}
CHECKPOINTS = {
    "shape_past_its_bytes.checkpoint": "cannot be used",
    "shape_that_overflows.checkpoint": "cannot be used",
    "type_that_numpy_lacks.checkpoint": "cannot be used",
    "header_of_2_to_the_63_bytes.checkpoint": "cannot be used",
    "header_that_is_no_text.checkpoint": "cannot be used",
    "digest_of_another.checkpoint": "do not match the digest",
}
LIVE = {
    "000000000003.live": "contains swap 2; it is left out",
    "000000000004.live": "do not match the digest",
    "000000000005.live": "is not a valid delta: the saved state lacks 'received'",
    "000000000006.live": "is not a valid delta",
    "000000000007.live": r"is not a valid delta: the saved 'state' is float64\[2, 3\]",
}
WEIGHTS = {
    "weights_above_the_folder.onnxtxt": "outside the model's folder",
    "weights_at_the_root.onnxtxt": "outside the model's folder",
    "weights_of_no_name.onnxtxt": "which is missing",
    "weights_of_a_folder.onnxtxt": "which is missing",
    "weights_from_a_negative_byte.onnxtxt": "invalid reference to external data|is damaged",
    "weights_of_negative_length.onnxtxt": "invalid reference to external data|is damaged",
    "weights_past_the_end.onnxtxt": "'w' ends at 4611686018427387920",
    "weights_of_a_petabyte.onnxtxt": "'w' ends at 1125899906842624",
}
MODELS = {
    "name_that_is_no_text.onnx": "is not a valid ONNX model|is not an ONNX model",
    "input_of_type_99.onnx": "is not a valid|has type UNKNOWN 99",
}
TAKEN = {"bool_bytes_of_2_and_255.oip", "000000000000020 copy.checkpoint"}
TABLES = (RECORDS, INDEXES, REQUESTS, MESSAGES_OF, SEGMENTS, CHECKPOINTS, LIVE, WEIGHTS, MODELS)


def each(table):
    return pytest.mark.parametrize(("name", "words"), table.items(), ids=table.keys())


def test_every_file_is_small_and_has_its_answer_here_or_in_the_tests_of_base_models():
    known = {name for table in TABLES for name in table} | TAKEN | {"README.md", "write.py"}
    named = (HOSTILE.parent / "graph").glob("test_*.py")
    text = "".join(path.read_text() for path in named)
    for path in HOSTILE.iterdir():
        if path.is_file():
            assert path.stat().st_size <= MOST_BYTES, path
            assert path.name in known or (path.suffix == ".onnxtxt" and path.stem in text), path
    assert all((HOSTILE / name).is_file() for name in known)


def test_files_that_are_no_text_are_those_that_are_written_by_the_script():
    spec = spec_from_file_location("written", HOSTILE / "write.py")
    written = module_from_spec(spec)
    spec.loader.exec_module(written)
    assert {path.name for path in HOSTILE.iterdir() if path.suffix in (".arrow", ".checkpoint", ".live", ".onnx")} == set(
        written.FILES
    )


@each(RECORDS)
def test_a_record_is_corrupt(name, words):
    with pytest.raises(Corrupt, match=words):
        decode((HOSTILE / name).read_bytes())


@each(INDEXES)
def test_an_index_is_corrupt(tmp_path, name, words):
    (tmp_path / "releases").mkdir()
    shutil.copy(HOSTILE / name, tmp_path / "releases" / "index.json")
    with pytest.raises(Corrupt, match=rf"index.json.* {words}" if words.startswith("no") else words):
        ReleaseStore(FolderRegistry(tmp_path)).all()


@pytest.fixture
def post(client, loop):
    def post(name):
        data = (HOSTILE / name).read_bytes()
        lines, _, body = data.partition(b"\n\n") if not data.startswith(b"\n") else (b"", b"", data[1:])
        headers = dict(line.split(": ") for line in lines.decode().splitlines())
        sent = client.post("/v2/models/ranker/infer", content=body, headers=headers)
        return asyncio.run_coroutine_threadsafe(sent, loop).result(30)

    return post


@each(REQUESTS)
def test_a_request_is_refused(post, name, words):
    answer = post(name)
    assert answer.status_code == 400
    assert pytest.raises(AssertionError, match=words).matches(AssertionError(answer.json()["error"])), answer.text


def test_any_byte_but_0_of_a_bool_tensor_is_true(post):
    answer = post("bool_bytes_of_2_and_255.oip")
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [0.0, 1.0, 1.0, 1.0]


@each(MESSAGES_OF)
def test_a_message_is_refused(port, name, words):
    message = text_format.Parse((HOSTILE / name).read_text(), MESSAGES["ModelInferRequest"]())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError, match=words) as refused:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(message.SerializeToString(), timeout=30)
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


@each(SEGMENTS)
def test_a_segment_is_refused_by_name(tmp_path, name, words):
    folder, columns = tmp_path / "journal", {"user": np.arange(3)}
    journal, logit = Journal(SqliteLog(folder)), np.zeros(3, np.float32)
    request = journal.append(Rows(columns, logit, logit, logit, None, State(0, 0, 0), 1.0))
    keys = np.array([journal.incarnation]), np.array([request]), np.zeros(1, np.int64)
    journal.feedback(*keys, np.ones(1, np.float32), 1.0).result(30)
    journal.write(Tick(2.0))
    journal.write(Tick(3.0))
    journal.close()
    with sqlite3.connect(folder / "000001.sqlite") as db:
        db.executescript((HOSTILE / name).read_text())
    db.close()

    def use():
        journal = Journal(SqliteLog(folder))
        try:
            journal.read(0, 100)
            for wanted in (request, 99):
                journal.feedback(keys[0], np.array([wanted]), keys[2], np.zeros(1, np.float32), 4.0).result(30)
        finally:
            journal.close()

    with pytest.raises((Corrupt, Unavailable), match=rf"000001.sqlite.* {words}|{words}"):
        use()


@each(CHECKPOINTS)
def test_a_checkpoint_is_passed_over_and_named(tmp_path, caplog, name, words):
    store = CheckpointStore(FolderRegistry(tmp_path))
    store.save(3, {"weights": np.ones(1)})
    shutil.copy(HOSTILE / name, tmp_path / "checkpoints" / "000000000000020.checkpoint")
    assert store.load().position == 3
    assert "000000000000020.checkpoint" in caplog.text
    assert words in caplog.text


def test_a_copy_of_a_checkpoint_is_none(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(HOSTILE / "000000000000020 copy.checkpoint", tmp_path / "checkpoints")
    store = CheckpointStore(FolderRegistry(tmp_path))
    assert (store.load(), store.oldest()) == (None, 0)
    store.save(3, {"weights": np.ones(1)})
    assert store.load().position == 3


@each(LIVE)
def test_a_live_state_is_left_out_and_named(tmp_path, caplog, name, words):
    caplog.set_level(logging.ERROR)
    store, swap = LiveStore(FolderRegistry(tmp_path)), int(Path(name).stem)
    one = np.ones((1, 1), np.float32)
    states = [State(1, n, n) for n in range(swap + 1)]
    for n in range(1, swap + 1):
        store.publish(
            Delta(states[n], None if n == 1 else states[n - 1], {"t": (None if n == 1 else np.zeros(1, np.int64), one)})
        )
    shutil.copy(HOSTILE / name, tmp_path / "live")
    assert [delta.state.swap for delta in store.follow(None)] == list(range(1, swap))
    assert pytest.raises(AssertionError, match=words).matches(AssertionError(caplog.text)), caplog.text


@each(WEIGHTS)
def test_a_base_whose_weights_lie_elsewhere_is_refused(tmp_path, name, words):
    path = tmp_path / "base.onnx"
    path.write_bytes(onnx.parser.parse_model((HOSTILE / name).read_text()).SerializeToString())
    with pytest.raises(ModelError, match=words):
        Signature.read(path)


@each(MODELS)
def test_a_model_is_refused_as_a_base_and_as_a_release(name, words):
    with pytest.raises((ModelError, Unsupported), match=rf"{name}.* ({words})"):
        Signature.read(HOSTILE / name)
    with pytest.raises(ModelError, match=name):
        Session(HOSTILE / name, State(0, 0, 0), providers=["CPUExecutionProvider"])
