"""Ensembles of trees, as the converters of tree libraries write them."""

import numpy as np
from onnx import TensorProto, helper


def ensemble(leaves, transform="NONE", ids=None, trees=1, op="TreeEnsembleClassifier", **more):
    """Stumps on the first of two numbers `x`; a regressor makes y, and a classifier of 0 and 1 the label and p.

    `leaves` are the weights, for the classes or targets `ids` (all 0 without any).
    """
    regressor, size = op.endswith("Regressor"), len(leaves)
    what, outputs = ("target", ["y"]) if regressor else ("class", ["label", "p"])
    more |= {"n_targets": 1} if regressor else {"classlabels_int64s": [0, 1]}
    more |= {f"{what}_treeids": np.repeat(range(trees), size // trees), f"{what}_nodeids": [1, 2] * (size // 2)}
    more |= {f"{what}_ids": ids or [0] * size, f"{what}_weights": leaves}
    node = helper.make_node(
        op, ["x"], outputs, domain="ai.onnx.ml", post_transform=transform, nodes_treeids=np.repeat(range(trees), 3),
        nodes_nodeids=[0, 1, 2] * trees, nodes_featureids=[0] * 3 * trees, nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * trees,
        nodes_values=[0.0] * 3 * trees, nodes_truenodeids=[1, 0, 0] * trees, nodes_falsenodeids=[2, 0, 0] * trees, **more,
    )  # fmt: skip
    shapes = {"x": ["N", 2], "y": ["N", 1], "p": ["N", 2]}
    x, *made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT if name in shapes else TensorProto.INT64, shapes.get(name, ["N"]))
        for name in ("x", *outputs)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "g", [x], made), ir_version=8, opset_imports=opsets)
