"""The mixture inside the graph is the mixture in Python, and nothing at all where nothing was learned."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.nodes import Nodes

LOGITS = st.floats(-1e4, 1e4, width=32)


@pytest.fixture(scope="module")
def mixture():
    import onnxruntime

    nodes = Nodes(13)
    out = LOG_LOSS.export_mixture(nodes, "b", "c", "w")
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("b", ["N", 1]), ("c", ["N", 1]), ("w", [1, 1]))
    ]
    output = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes.nodes, "mixture", inputs, [output], nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(base, corrected, weight):
        column = [np.asarray(v, np.float32).reshape(-1, 1) for v in (base, corrected)]
        return session.run(None, {"b": column[0], "c": column[1], "w": np.full((1, 1), weight, np.float32)})[0][:, 0]

    return run


def test_the_sign_of_a_zero_and_the_largest_floats_pass_bit_for_bit(mixture):
    base = np.array([-0.0, 0.0, 3.4e38, -3.4e38, 1e-45, -1e-45], np.float32)
    for weight in (0.0, 0.1, 0.5, 1.0):
        assert mixture(base, base, weight).tobytes() == base.tobytes()


@given(
    base=arrays(np.float32, 7, elements=st.floats(-60, 60, width=32)),
    corrected=arrays(np.float32, 7, elements=st.floats(-60, 60, width=32)),
    weight=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.999999, 1.0]),
)
def test_it_is_the_mixture_of_the_two_probabilities(mixture, base, corrected, weight):
    np.testing.assert_allclose(
        mixture(base, corrected, weight), LOG_LOSS.mix(base, corrected, np.float32(weight))[:, 0], atol=1e-5
    )


@given(
    base=LOGITS, corrected=st.sampled_from([-np.inf, -3.4e38, -1e30, 1e30, 3.4e38, np.inf]), weight=st.floats(0, 1, width=32)
)
def test_a_correction_gone_wild_moves_the_logit_by_at_most_the_bound(mixture, base, corrected, weight):
    served = mixture([base], [corrected], weight)[0]
    assert abs(served - np.float32(base)) <= 30.01
