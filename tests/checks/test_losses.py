"""A loss that its laws pass is learned by every correction and served; one with a fault is caught, by the law that names it."""

import numba
import numpy as np
import onnx
import pytest
from mutants import broken_by, each_law_has_its_own, each_of
from river.linear_model import LogisticRegression

from riverdelta import Calibration, Count, Entity, Linear, Lookup, Multiclass, Ranking, Regression, River, Schema, Stack
from riverdelta.checks import parametrize_with_checks
from riverdelta.checks.block import draw
from riverdelta.core.errors import ConfigurationError, InvalidInput, Unsupported
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, VALUE, Kernels
from riverdelta.core.losses.log_loss import LogLoss
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.parity import compare, corrections_of
from riverdelta.graph.runtime import open_session
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features, outputs
from riverdelta.learning.joiner import Joiner
from riverdelta.serving.session import Session
from riverdelta.storage.registry import State

SQUARED, SOFTMAX = Regression(), Multiclass(range(3))
LOSSES = {"binary": LOG_LOSS, "squared": SQUARED, "softmax": SOFTMAX}
EVERY = LOSSES | {"in a range": Regression((-5, 5)), "counts": Count(), "lists": Ranking(), "graded lists": Ranking(grades=4)}
SCHEMA = Schema.of({"u": "int64", "i": "int64", "h": "float32", "v": "float32[5]"})
TASTE = Lookup("taste", "i", {key: [key % 3 - 1.0, 0.5] for key in (0, 1, 3, 4, 5)})
TAGS = Lookup("tags", "i", {key: list(range(key % 4 + 1)) for key in (0, 1, 3, 4, 5)})
CORRECTIONS = {
    "calibration": Calibration(),
    "linear": Linear("u", ("u", "i"), "h", "v", TASTE, TAGS, slots=64),
    "linear by ftrl": Linear("u", "h", method="ftrl", l1=0.01, l2=0.1, slots=64),
    "entity": Entity("u", on=["v", "h", TASTE], slots=64, forget=0.99),
}


@parametrize_with_checks(EVERY)
def test_a_loss_keeps_the_law(check):
    check()


@numba.njit(DERIVATIVES, cache=True)
def half_the_gradient(raw, label, weight, gradient, curvature):
    p = 1.0 / (1.0 + np.exp(-raw[:, 0]))
    gradient[:, 0] = 0.5 * weight * (p - label)
    curvature[:, 0] = weight * p * (1.0 - p)


@numba.njit(DERIVATIVES, cache=True)
def the_weight_once_too_often(raw, label, weight, gradient, curvature):
    p = 1.0 / (1.0 + np.exp(-raw[:, 0]))
    gradient[:, 0] = weight * weight * (p - label)
    curvature[:, 0] = weight * p * (1.0 - p)


@numba.njit(DERIVATIVES, cache=True)
def a_curvature_below_zero(raw, label, weight, gradient, curvature):
    p = 1.0 / (1.0 + np.exp(-raw[:, 0]))
    gradient[:, 0] = weight * (p - label)
    curvature[:, 0] = -1e-3


@numba.njit(DERIVATIVES, cache=True)
def infinity_by_infinity(raw, label, weight, gradient, curvature):
    p = np.exp(raw[:, 0]) / (1.0 + np.exp(raw[:, 0]))
    gradient[:, 0] = weight * (p - label)
    curvature[:, 0] = weight * p * (1.0 - p)


@numba.njit(DERIVATIVES, cache=True)
def weights_cut(raw, label, weight, gradient, curvature):
    p = 1.0 / (1.0 + np.exp(-raw[:, 0]))
    gradient[:, 0] = np.minimum(weight, 2.5) * (p - label)
    curvature[:, 0] = np.minimum(weight, 2.5) * p * (1.0 - p)


@numba.njit(MIX, cache=True)
def overshoots(base, corrected, weight, served):
    served[:] = base + 1.5 * weight * (corrected - base)


@numba.njit(MIX, cache=True)
def mixes_logits(base, corrected, weight, served):
    served[:] = base + weight * np.minimum(np.maximum(corrected - base, -30.0), 30.0)


@numba.njit(VALUE)
def uncached(raw, label, losses):
    losses[:] = np.log1p(np.exp(-raw[:, 0])) + (1.0 - label) * raw[:, 0]


def predicts_by_the_first(self, raw, group=None):
    made = type(self).__mro__[1].inverse_link(self, raw, group)
    return made * (1.0 + 1e-7 * np.tanh(self.rows(raw)[:, :1]))


def with_kernels(**changed):
    names = ("value", "derivatives", "mix", "predict")
    functions = dict(zip(names, LOG_LOSS.kernels.functions, strict=True)) | changed
    return {"kernels": Kernels(*functions.values())}


def mutant(name, **attributes):
    return type(name, (LogLoss,), attributes)()


BROKEN = {
    "its_methods_are_those_of_the_contract": [
        mutant("TakesNoWhat", check_labels=lambda self, label: LogLoss.check_labels(self, label))
    ],
    "its_name_is_free": [mutant("NamedAsPredictions", raw="score")],
    "its_attributes_fit": [mutant("ReachesAnywhere", reach=np.inf)],
    "derivatives_are_those_of_the_value": [
        mutant("HalfTheGradient", **with_kernels(derivatives=half_the_gradient)),
        mutant("TheWeightSquared", **with_kernels(derivatives=the_weight_once_too_often)),
        mutant("NegativeCurvature", **with_kernels(derivatives=a_curvature_below_zero)),
        mutant("NaNAtALargeLogit", **with_kernels(derivatives=infinity_by_infinity)),
        mutant("CutsWeights", **with_kernels(derivatives=weights_cut)),
    ],
    "the_value_is_bounded": [mutant("TooLowABound", bound=5.0)],
    "nan_stays_nan": [
        mutant("JudgesAll", judged=lambda self, base, label, group=None: LogLoss.judged(self, np.nan_to_num(base), label))
    ],
    "labels_are_refused_by_row": [
        mutant("LabelsOfAnyKind", valid=lambda self, label: np.isfinite(label)),
        mutant("LabelsBetween", valid=lambda self, label: (np.asarray(label) >= 0) & (np.asarray(label) <= 1)),
        mutant("LabelsNearby", valid=lambda self, label: np.isin(np.float32(label), (0, 1))),
    ],
    "links_invert_each_other": [mutant("ALinkOfItsOwn", link=lambda self, p: 2 * LogLoss.link(self, p))],
    "mixtures_lie_between": [mutant("Overshoots", **with_kernels(mix=overshoots))],
    "spread_bounds_the_difference": [
        mutant("HalfTheSpread", spread=lambda self, base, corrected, group=None: 0.5 * LogLoss.spread(self, base, corrected))
    ],
    "mixing_loses_nothing_at_the_mixable_rate": [
        mutant("TooHighARate", mixable=lambda self, weight: np.ones(np.shape(weight))),
        mutant(
            "RightAtFewWeights",
            mixable=lambda self, weight: np.where(np.isin(weight, (0.1, 1, 3, 50)), LogLoss.mixable(self, weight), 1.0),
        ),
        mutant("MixesLogits", **with_kernels(mix=mixes_logits)),
    ],
    "the_graph_agrees": [
        mutant("AnotherLinkInTheGraph", export_link=lambda self, nodes, p: nodes.add("Log", p)),
        mutant(
            "ServesTheCorrectedOutput", export_mixture=lambda self, nodes, base, c, weight, group=None: nodes.add("Identity", c)
        ),
    ],
    "what_all_outputs_share_changes_nothing": [
        type("PredictsByTheFirst", (kind,), {"inverse_link": predicts_by_the_first})(*given)
        for kind, given in ((Multiclass, (range(3),)), (Ranking, ()))
    ],
    "kernels_are_cached": [mutant("CompiledAtEachStart", **with_kernels(value=uncached))],
}


@each_of(BROKEN)
def test_a_broken_loss_breaks_the_law(law, mutant):
    assert law in broken_by(mutant)


def test_every_law_has_a_mutant_of_its_own():
    each_law_has_its_own(BROKEN, LOG_LOSS)


@parametrize_with_checks(CORRECTIONS, SCHEMA, SQUARED)
def test_a_correction_keeps_its_laws_with_a_squared_loss(check):
    check()


@parametrize_with_checks(CORRECTIONS, SCHEMA, SOFTMAX)
def test_a_correction_keeps_its_laws_with_a_loss_of_three_outputs(check):
    check()


@parametrize_with_checks(CORRECTIONS, SCHEMA, Count())
def test_a_correction_keeps_its_laws_with_counts(check):
    check()


@parametrize_with_checks(CORRECTIONS, SCHEMA, Ranking())
def test_a_correction_keeps_its_laws_with_lists(check):
    check()


def test_a_pipeline_is_refused_where_its_loss_is_another():
    for loss in (SQUARED, SOFTMAX, Count(), Ranking()):
        with pytest.raises(Unsupported, match=f"cannot lower {type(loss).__name__}.*; end it in LinearRegression"):
            Stack([River(LogisticRegression(), ("h",))], loss).bind(SCHEMA)


BASES = {
    "binary": "ranker (int64[N] u, float[N] h) => (float[N] y) { y = Neg(h) }",
    "squared": "ranker (int64[N] u, float[N] h) => (float[N] y) { y = Neg(h) }",
    "softmax": """ranker (int64[N] u, float[N] h) => (float[N, 3] y)
        <float[1, 3] w = {0.5, -1.0, 0.25}, int64[1] one = {1}> { wide = Unsqueeze(h, one) y = MatMul(wide, w) }""",
}
NAMES = {
    "binary": ("score", "logit", "corrected_logit", "base_logit"),
    "squared": ("score", "value", "corrected_value", "base_value"),
    "softmax": ("score", "logit", "corrected_logit", "base_logit"),
}


def stack_of(loss, schema):
    stack = Stack([Calibration(), Linear("u", "h", slots=64), Entity("u", on=["h"], slots=64)], loss)
    stack.bind(schema)
    return stack


@pytest.mark.parametrize("name", LOSSES)
def test_the_merged_model_serves_what_was_learned_with_a_loss(name, tmp_path):
    loss, path = LOSSES[name], tmp_path / "base.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{BASES[name]}'), path)
    signature = Signature.read(path, loss=loss)
    assert (signature.predicts, outputs(loss)) == (False, NAMES[name])
    schema = all_features(signature, {}, Schema()).schema
    stack, block, fresh = stack_of(loss, schema), draw(schema, 400, 1, loss), draw(schema, 50, 2, loss)
    session = open_session(path.read_bytes())
    base = session.run(None, block.columns)[0].reshape(-1, loss.outputs)
    stack.learn(block.columns, base, block.label, block.weight)
    model = merge(signature, stack, {}, Schema(), gate_weight=0.75)
    scored = Session(save(model, signature, tmp_path / "merged.onnx"), State(0, 0, 0), loss=loss).run(fresh.columns)
    base = session.run(None, fresh.columns)[0].reshape(-1, loss.outputs)
    corrected = stack.predict(fresh.columns, base)
    served = loss.mix(base, corrected, 0.75)
    shape = (50, loss.outputs) if loss.outputs > 1 else (50,)
    assert {array.shape for array in (scored.score, scored.served, scored.corrected, scored.base)} == {shape}
    for found, expected in zip(
        (scored.base, scored.corrected, scored.served, scored.score),
        (base, corrected, served, loss.inverse_link(served)),
        strict=True,
    ):
        np.testing.assert_allclose(loss.rows(found), expected, atol=2e-4)
    part = corrections_of(model, stack, schema, {})
    run = open_session(part.SerializeToString())
    names = [output.name for output in run.get_outputs()]
    parity = compare(lambda feeds: dict(zip(names, run.run(None, feeds), strict=True)), stack, fresh.columns, base)
    parity.check()
    assert parity.rows == 50


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_learned_lowers_the_loss_of_later_rows(name):
    loss = LOSSES[name]
    stack, block = stack_of(loss, SCHEMA), draw(SCHEMA, 3_000, 3, loss)
    corrected = stack.learn(block.columns, block.offset, block.label, block.weight)
    before, after = (loss.value(raw[1_000:], block.label[1_000:]).mean() for raw in (block.offset, corrected))
    assert after < 0.9 * before


def test_homes_of_two_losses_are_told_apart():
    stacks = [stack_of(loss, SCHEMA) for loss in (LOG_LOSS, SQUARED)]
    assert len({stack.fingerprint_of_0_1() for stack in stacks}) == 2


def test_coefficients_of_several_outputs_have_their_output_in_their_name():
    stack = stack_of(SOFTMAX, SCHEMA)
    line, linear, entity = (c.coefficients() for c in stack.corrections)
    assert line["line"].features[:3] == ("intercept -> 0", "slope -> 0", "intercept -> 1")
    assert linear["ids"].features == ("u -> 0", "u -> 1", "u -> 2")
    for found in (line["line"], linear["ids"], linear["dense"], entity["mean"]):
        assert found.values.shape[1] == len(found.features) == len(found.sizes)


def test_river_s_faces_speak_the_labels_of_the_loss():
    softmax, squared = Entity("u", slots=8, offset=None), Entity("u", slots=8, offset=None)
    softmax.loss, squared.loss = SOFTMAX, SQUARED
    for _ in range(60):
        softmax.learn_one({"u": 1}, 2)
        squared.learn_one({"u": 1}, -1.5)
    assert softmax.predict_one({"u": 1}) == 2
    assert softmax.predict_proba_one({"u": 1}).keys() == {0, 1, 2}
    assert squared.predict_one({"u": 1}) == pytest.approx(-1.5, abs=0.1)
    with pytest.raises(InvalidInput, match="label 3; expected one of '0', '1', '2'"):
        softmax.learn_one({"u": 1}, 3)
    with pytest.raises(Unsupported, match="no list of labels"):
        squared.predict_proba_one({"u": 1})


def test_silence_and_the_sampling_of_negatives_are_refused_where_no_label_means_them():
    with pytest.raises(ConfigurationError, match=r"silence stands for no label of Regression.* RIVERDELTA_LABELS=explicit"):
        Joiner("silence", 60.0, loss=SQUARED)
    with pytest.raises(ConfigurationError, match=r"has no negatives; set RIVERDELTA_KEEP_NEGATIVES=1"):
        Joiner(keep_negatives=0.5, loss=SQUARED)
