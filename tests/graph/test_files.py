"""Merged models on disk: shared weights that nobody overwrites, and one self-contained file."""

import shutil

import numpy as np
import onnx
import pytest

from riverdelta import Calibration
from riverdelta.core.errors import Corrupt, Unsupported
from riverdelta.graph import files
from riverdelta.graph.files import export, save
from riverdelta.graph.signature import Signature
from riverdelta.graph.weights import weights_name

NUMBERS = ", ".join(str(i % 600 / 7) for i in range(1800))
DEEP = f"""
ranker (float[N, 600] x) => (float[N, 1] y)
<float[600, 3] w = {{{NUMBERS}}}, float[600, 3] v = {{{NUMBERS}}}, float[3, 1] u = {{1, -2, 3}}>
{{ a = MatMul(x, w)  b = MatMul(x, v)  h = Sub(a, b)  k = Add(h, a)  y = MatMul(k, u) }}
"""


@pytest.fixture(params=["inline", "external"])
def base(request, write, write_external):
    return write(DEEP) if request.param == "inline" else write_external(DEEP)


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, 600)).astype(np.float32)


def test_releases_share_one_file_of_weights_and_score_as_the_base(base, combine, plain, x):
    releases = [combine(base, [Calibration()], number=n) for n in (1, 2)]
    folder = releases[0].path.parent
    weights = folder / weights_name(releases[0].signature)
    assert {p.name for p in folder.iterdir()} == {"000001.onnx", "000002.onnx", weights.name}
    assert all(r.path.stat().st_size < 8000 < weights.stat().st_size for r in releases)
    for release in releases:
        np.testing.assert_array_equal(plain(release.path, {"x": x})["logit"], plain(base, {"x": x})["y"][:, 0])


def test_the_folder_may_move_and_the_base_may_go(base, combine, plain, x, tmp_path):
    merged = combine(base, [Calibration()])
    expected = plain(base, {"x": x})["y"][:, 0]
    moved = shutil.move(merged.path.parent, tmp_path / "elsewhere")
    base.unlink()
    np.testing.assert_array_equal(plain(moved / merged.path.name, {"x": x})["logit"], expected)


def test_weights_are_written_once_and_a_damaged_file_is_refused_by_name(base, combine):
    merged = combine(base, [Calibration()])
    weights = merged.path.with_name(weights_name(merged.signature))
    before = weights.stat()
    save(merged.model, merged.signature, merged.path.with_name("000009.onnx"))
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=f"{weights.name} has {before.st_size - 1} bytes; expected {before.st_size}"):
        save(merged.model, merged.signature, merged.path.with_name("000010.onnx"))


def test_another_base_gets_another_file(write, combine):
    first, second = combine(write(DEEP), []), combine(write(DEEP.replace("-2, 3", "-2, 4"), "other.onnx"), [], number=1)
    assert weights_name(first.signature) != weights_name(second.signature)


def test_a_base_without_large_tensors_needs_no_second_file(write, combine):
    merged = combine(write("g (float[N] x) => (float[N] y) { y = Neg(x) }"), [Calibration()])
    assert [p.name for p in merged.path.parent.iterdir()] == ["000000.onnx"]


def test_four_bit_weights_survive(write, combine, plain):
    base = write(
        "g (float[N, 2400] x) => (float[N, 1] y) <float s = {0.5}, int4[1] q = {0}>"
        " { w = DequantizeLinear(q, s) y = MatMul(x, w) }",
        opset=21,
        ir=10,
    )
    model = onnx.load(base)
    del model.graph.initializer[1]
    model.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [2400, 1], [1, -2, 3] * 800))
    onnx.save(model, base)
    x = np.eye(2, 2400, dtype=np.float32)
    assert plain(combine(base, [Calibration()]).path, {"x": x})["logit"].tolist() == [0.5, -1.0]


def test_one_file_holds_everything(base, combine, plain, x, tmp_path):
    merged = combine(base, [Calibration()])
    expected = plain(merged.path, {"x": x})
    (single,) = export(merged.path, tmp_path / "out" / "merged.onnx")
    shutil.rmtree(merged.path.parent)
    onnx.checker.check_model(str(single), full_check=True)
    for name, values in plain(single, {"x": x}).items():
        np.testing.assert_array_equal(values, expected[name])
    assert [p.name for p in single.parent.iterdir()] == ["merged.onnx"]


def test_one_file_that_would_be_too_large_is_refused_with_its_size(base, combine, tmp_path, monkeypatch):
    merged = combine(base, [Calibration()])
    monkeypatch.setattr(files, "_LIMIT", 10_000)
    with pytest.raises(Unsupported, match="at most 10000: `riverdelta export` writes two"):
        export(merged.path, tmp_path / "merged.onnx", alone=True)
    assert not (tmp_path / "merged.onnx").exists()


def test_what_is_too_large_for_one_file_is_two_that_may_move(base, combine, plain, x, tmp_path, monkeypatch):
    merged = combine(base, [Calibration()])
    expected = plain(merged.path, {"x": x})
    monkeypatch.setattr(files, "_LIMIT", 10_000)
    made = export(merged.path, tmp_path / "out" / "merged.onnx")
    assert [path.name for path in made] == ["merged.onnx", "merged.onnx.data"]
    shutil.rmtree(merged.path.parent)
    moved = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    for name, values in plain(moved / "merged.onnx", {"x": x}).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("location", ["../wide.bin", "/etc/hostname", "link", "missing.bin", ""])
def test_one_file_of_a_model_whose_weights_lie_elsewhere_is_refused_by_name(write_external, tmp_path, location):
    path = write_external(DEEP)
    (path.parent / "link").symlink_to(shutil.copy(path.with_name("wide.bin"), tmp_path))
    model = onnx.load(path, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(Corrupt, match=r"wide\.onnx cannot be read with its weights"):
        export(path, tmp_path / "merged.onnx")
    assert not (tmp_path / "merged.onnx").exists()


def test_other_weights_in_the_folder_do_not_count(write, combine, tmp_path, monkeypatch):
    merged = combine(write("g (float[N] x) => (float[N] y) { y = Neg(x) }"), [Calibration()])
    merged.path.with_name("base-0000.bin").write_bytes(bytes(20_000))
    monkeypatch.setattr(files, "_LIMIT", 10_000)
    assert export(merged.path, tmp_path / "merged.onnx") == [tmp_path / "merged.onnx"]


def test_a_base_that_changed_under_its_signature_is_not_mixed_with_the_old_one(write_external, combine, tmp_path):
    base = write_external(DEEP)
    signature = Signature.read(base)
    assert signature.digest
    base.with_name("wide.bin").write_bytes(b"short")
    with pytest.raises(Corrupt, match="bytes; expected"):
        save(onnx.ModelProto(), signature, tmp_path / "releases" / "000000.onnx")
    assert list((tmp_path / "releases").iterdir()) == []
