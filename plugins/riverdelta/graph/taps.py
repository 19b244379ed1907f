"""Taps: inner tensors of the base as features, and the resulting schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from riverdelta.core.errors import ConfigurationError, ModelError, near
from riverdelta.core.features import Column, Schema
from riverdelta.core.losses import Loss
from riverdelta.core.nodes import PREFIX
from riverdelta.graph.axes import column_of, type_of
from riverdelta.graph.features import Features, readable
from riverdelta.graph.measured import measure
from riverdelta.graph.signature import Signature

#: The outputs of an interval around the prediction, where there is one.
BOUNDS = ("lower", "upper")


def outputs(loss: Loss) -> tuple[str, str, str, str]:
    """Return the output names of a merged model: the prediction, and the raw outputs as served, as corrected and of the base.

    Each is float32[N], or float32[N, K] if K > 1; the taps follow under their own names.

    >>> from riverdelta.core.losses import LOG_LOSS
    >>> outputs(LOG_LOSS)
    ('score', 'logit', 'corrected_logit', 'base_logit')
    """
    return "score", loss.raw, f"corrected_{loss.raw}", f"base_{loss.raw}"


def tap_columns(signature: Signature, taps: Mapping[str, str]) -> Schema:
    """Return each tap as a column; raises `ConfigurationError` if a tensor is missing or has no batch axis."""
    schema, shapes = Schema(), settled(signature.path, signature.model, signature.shapes, taps.values())
    for tap, tensor in taps.items():
        value = shapes.get(tensor)
        if value is None:
            raise ConfigurationError(
                f"tap {tap!r} names tensor {tensor!r}, which {signature.path.name} lacks: {near(tensor, shapes)}"
                f" (riverdelta inspect {signature.path.name} lists them all)"
            )
        if (column := tappable(signature.model, value)) is None:
            raise ConfigurationError(
                f"tap {tap!r} names tensor {tensor!r}, which is {column_of(signature.model, value) or type_of(value)}; "
                f"expected integers [N], or floats [N] or [N, D], with the batch axis N"
            )
        schema[tap] = Column(tap, column.dtype, column.shape)
    return schema


def settled(
    path: Path, model: ModelProto, shapes: Mapping[str, ValueInfoProto], names: Collection[str]
) -> dict[str, ValueInfoProto]:
    """Return the shapes, where those of the tensors `names` that are uncertain are measured."""
    measured = dict[str, ValueInfoProto]()
    if unsure := [name for name in names if name in shapes and _is_uncertain(model, shapes[name])]:
        with suppress(ModelError):  # a base that refuses made-up rows: what was inferred stays
            measured = measure(path, model, unsure)
    return {**shapes, **measured}


def _is_uncertain(model: ModelProto, value: ValueInfoProto) -> bool:
    """Whether the length of an axis is neither known nor that of an input's axis, as after many a Reshape."""
    named = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim} - {""}
    tensor = value.type.tensor_type
    unknown = any(not d.HasField("dim_value") and d.dim_param not in named for d in tensor.shape.dim)
    is_tensor = value.type.WhichOneof("value") in (None, "tensor_type")
    return is_tensor and (unknown or not tensor.HasField("shape"))


def all_features(
    signature: Signature, taps: Mapping[str, str], declared: Schema, names: Mapping[str, Sequence[str]] = {}
) -> Features:
    """Return what corrections may read: the base's inputs, named parts of them, the taps and the declared columns."""
    features = Features.of_parts(signature.inputs, tap_columns(signature, taps), declared, names, signature.path.name)
    kept = outputs(signature.loss)
    for name in features:
        if name in kept or name.startswith(PREFIX):
            raise ConfigurationError(
                f"the column {name!r} has a name reserved for the merged model ({', '.join(kept)}, and any that "
                f"begins with {PREFIX}); choose another name"
            )
    return features


def tappable(model: ModelProto, value: ValueInfoProto | None) -> Column | None:
    """Return a tensor as the column that a tap of it would be; None if it cannot be tapped."""
    column = column_of(model, value)
    return column if column is not None and readable(column) else None
