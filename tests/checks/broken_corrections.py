"""Broken corrections, by the law that each breaks; every other law may pass."""

import math

import numpy as np

from riverdelta import Calibration, Correction, Entity, Linear, Multiclass, Ranking, Regression, Schema, Table

SCHEMA = Schema.of({"u": "int64", "h": "float32"})


class Shift(Correction):
    """A correction that keeps every law: one number, moved by a Newton step per example."""

    reads = ("h",)

    def __init__(self, offset="offset"):
        self.offset = offset

    def bind(self, schema):
        super().bind(schema)
        self.served = {"shift": Table(np.zeros((1, self.loss.outputs)))}
        self.learner = {"certainty": np.ones((1, self.loss.outputs))}

    def predict(self, columns, offset):
        out = self.room(columns, offset)
        out[:] = offset + self.served["shift"].values
        return out

    def learn(self, columns, offset, label, weight):
        table, certainty, out = self.served["shift"], self.learner["certainty"], self.room(columns, offset, label, weight)
        for row in range(len(offset)):
            out[row] = offset[row] + table.values[0]
            gradient, curvature = self.loss.derivatives(out[row], label[row], min(weight[row], 10.0))
            if not self.skips(columns["h"][row] + offset[row].sum(), gradient, weight[row]):
                certainty += curvature
                table.values[:] = np.clip(table.values - gradient / certainty, -self.radius, self.radius)
                table.touched[:] = True
        return out

    def skips(self, value, gradient, weight):
        return weight == 0.0 or not np.isfinite([value, weight, *gradient[0]]).all()

    def export(self, nodes, columns, offset):
        return nodes.add("Add", offset, nodes.table("shift", self.served["shift"].values))


class Slope(Shift):
    """A correction that keeps every law: a slope beside the shift, of the number held within ±4."""

    def bind(self, schema):
        super().bind(schema)
        self.served |= {"slope": Table(np.zeros((1, self.loss.outputs))), "scale": Table([[1.0]])}
        self.learner |= {"steep": np.ones((1, self.loss.outputs))}

    def number(self, h):
        return np.clip(h / self.served["scale"].values[0], -4, 4)[:, None]

    def predict(self, columns, offset):
        return super().predict(columns, offset) + self.served["slope"].values * self.number(columns["h"])

    def learn(self, columns, offset, label, weight):
        out, slope, steep = self.room(columns, offset, label, weight), self.served["slope"], self.learner["steep"]
        for row in range(len(offset)):
            one = {"h": columns["h"][row : row + 1]}, offset[row : row + 1]
            out[row : row + 1] = self.predict(*one)
            gradient, curvature = self.loss.derivatives(out[row], label[row], min(weight[row], 10.0))
            if not self.skips(columns["h"][row] + offset[row].sum(), gradient, weight[row]):
                self.meet(abs(columns["h"][row]))
                x = self.number(one[0]["h"])
                steep += curvature * x**2
                slope.values[:] = np.clip(slope.values - gradient * x / steep, -self.radius, self.radius)
                slope.touched[:] = True
            super().learn(*one, label[row : row + 1], weight[row : row + 1])
        return out

    def meet(self, size):
        pass

    def export(self, nodes, columns, offset):
        scale, slope = (nodes.table(name, self.served[name].values) for name in ("scale", "slope"))
        x = nodes.column(nodes.add("Div", columns["h"], nodes.add("Reshape", scale, nodes.constant([1], np.int64))))
        x = nodes.add("Clip", x, *(nodes.constant(np.float32(end)) for end in (-4, 4)))
        return nodes.add("Add", super().export(nodes, columns, offset), nodes.add("Mul", x, slope))


class DividesByTheLargest(Slope):
    """Once it has met an absurd number, every other one is 0 to it."""

    def meet(self, size):
        scale = self.served["scale"]
        scale.values[:] = np.maximum(scale.values, size)
        scale.touched[:] = True


class CountsFarNumbersInFull(Slope):
    """It learns from numbers within ±4, and predicts with any."""

    def predict(self, columns, offset):
        self.room(columns, offset)
        return offset + self.served["shift"].values + self.served["slope"].values * columns["h"][:, None]

    def export(self, nodes, columns, offset):
        nodes.table("scale", self.served["scale"].values)
        moved = nodes.add("Mul", nodes.column(columns["h"]), nodes.table("slope", self.served["slope"].values))
        return nodes.add("Add", Shift.export(self, nodes, columns, offset), moved)


class KernelIsIdentity(Entity):
    def learn(self, columns, offset, label, weight):
        self.room(columns, offset, label, weight)
        return offset.copy()


class ReturnsOutputsAfterTheUpdate(Entity):
    def learn(self, columns, offset, label, weight):
        super().learn(columns, offset, label, weight)
        return self.predict(columns, offset)


class ExportsItsOffset(Entity):
    def export(self, nodes, columns, offset):
        nodes.table("mean", self.served["mean"].values)
        return offset


class LearnsABlockAsOneAverage(Linear):
    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, np.full_like(label, label.mean() if len(label) else 0), weight)


class RefusesEmptyBlocks(Shift):
    def learn(self, columns, offset, label, weight):
        assert offset.size
        return super().learn(columns, offset, label, weight)


class TakesNoLabels(Shift):
    def learn_many(self, X):
        pass


class LearnsAnyBlock(Shift):
    def learn(self, columns, offset, label, weight):
        given = [np.ascontiguousarray(array, np.float32) for array in (offset, label, weight)]
        return super().learn(columns, *given)


class PredictsAnyBlock(Shift):
    def predict(self, columns, offset):
        return offset + self.served["shift"].values


class LearnsBeforeItRefuses(Shift):
    def learn(self, columns, offset, label, weight):
        self.learner["certainty"] += 1e-9 * len(offset)
        found = super().learn(columns, offset, label, weight)
        self.learner["certainty"] -= 1e-9 * len(offset)
        return found


class PredictsByTheBlock(Shift):
    def predict(self, columns, offset):
        return super().predict(columns, offset) + np.float32(1e-6 * (len(offset) - 1))


class ForgetsToMarkRows(Entity):
    def learn(self, columns, offset, label, weight):
        raw = super().learn(columns, offset, label, weight)
        self.served["mean"].touched[:] = False
        return raw


class MovesItsRows(Entity):
    """A new entity's row comes before the others."""

    def learn(self, columns, offset, label, weight):
        raw = super().learn(columns, offset, label, weight)
        for array in (self.served["mean"].values, self.learner["precision"], self.learner["slots"]):
            array[1:] = array[:0:-1].copy()
        self.served["rows"].values[self.learner["slots"][1:], 0] = np.arange(1, len(self.learner["slots"]))
        return raw


class ServesNewRowsUnmarked(Entity):
    def learn(self, columns, offset, label, weight):
        before = len(self.served["mean"].values)
        raw = super().learn(columns, offset, label, weight)
        self.served["mean"].touched[before:] = False
        return raw


class HidesState(Entity):
    hidden = 0

    def learn(self, columns, offset, label, weight):
        self.hidden += len(label)
        weight = np.where(self.hidden - np.arange(len(label))[::-1] > 150, weight / 2, weight).astype(np.float32)
        return super().learn(columns, offset, label, weight)


class RestoreForgets(Calibration):
    def restore(self):
        self.learner["belief"][:2] = 0
        super().restore()


class InflateHidesState(Entity):
    times = 1.0

    def inflate(self, keep):
        self.times /= max(keep, 0.1)

    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, label, weight * np.float32(self.times))


class IgnoresImportance(Entity):
    def learn(self, columns, offset, label, weight):
        learned = np.where(np.isfinite(weight), np.sign(weight), weight)
        return super().learn(columns, offset, label, learned)


class TeachesLessByWeight(Entity):
    def learn(self, columns, offset, label, weight):
        self.room(columns, offset, label, weight)
        learned = (weight > 0) & np.isfinite(weight)
        return super().learn(columns, offset, label, np.where(learned, np.minimum(1 / np.maximum(weight, 1e-30), 1e30), weight))


class _IdsAsFloats:
    """Its ids pass through floats of `type`, in Python and in the graph."""

    type, onnx = np.float32, 1

    def _cast(self, columns):
        with np.errstate(invalid="ignore"):
            return {**columns, "u": columns["u"].astype(self.type).astype(np.int64)}

    def predict(self, columns, offset):
        self.room(columns, offset)
        return super().predict(self._cast(columns), offset)

    def learn(self, columns, offset, label, weight):
        self.room(columns, offset, label, weight)
        return super().learn(self._cast(columns), offset, label, weight)

    def export(self, nodes, columns, offset):
        return super().export(nodes, columns | {"u": nodes.cast(nodes.cast(columns["u"], self.onnx), 7)}, offset)


class TakesIdsAsFloat32(_IdsAsFloats, Entity):
    pass


class TakesIdsAsFloat64(_IdsAsFloats, Entity):
    type, onnx = np.float64, 11


class FailsOnOneRow(Shift):
    def export(self, nodes, columns, offset):
        flat = nodes.add("Squeeze", super().export(nodes, columns, offset))
        return nodes.add("Unsqueeze", flat, nodes.constant([1], np.int64))


class ClipsInItsGraph(Linear):
    def export(self, nodes, columns, offset):
        ends = [nodes.constant(np.float32(end)) for end in (-2, 2)]
        return super().export(nodes, columns | {"h": nodes.add("Clip", columns["h"], *ends)}, offset)


class DropsOptionsInClones(Entity):
    def __init__(self, key, boost=1.0, **options):
        super().__init__(key, **options)
        self.boost = boost


class ReportsNoShare(Shift):
    def occupancy(self):
        return {"shift": math.nan}


class ReportsNoCoefficients(Shift):
    def coefficients(self):
        return {}


class StartsElsewhere(Linear):
    def bind(self, schema):
        super().bind(schema)
        self.served["ids"].values[:] = 0.001


class BakesItsTable(Entity):
    def export(self, nodes, columns, offset):
        baked = nodes.constant(self.served["mean"].values)
        nodes.table("mean", self.served["mean"].values)
        rows = nodes.add("Gather", baked, self._hash.export(nodes, columns["u"]))
        return nodes.add("Add", offset, rows)


class IgnoresImportanceOfDicts(Entity):
    def learn_one(self, x, y, w=1.0):
        super().learn_one(x, y)


class InflateMovesOutputs(Entity):
    def inflate(self, keep):
        self.served["mean"].values *= np.float32(keep)


class InflateMakesSurer(Shift):
    def inflate(self, keep):
        self.learner["certainty"] /= max(keep, 0.1)


class InflateFreezes(Entity):
    def inflate(self, keep):
        self.learner["precision"][:] = 1e30


class _LearnsWithoutBounds:
    """It says `radius`, and learns without."""

    def learn(self, columns, offset, label, weight):
        self.clip, self.radius, said = math.inf, math.inf, (self.clip, self.radius)
        try:
            return super().learn(columns, offset, label, weight)
        finally:
            self.clip, self.radius = said


class HasNoBounds(_LearnsWithoutBounds, Entity):
    pass


class _IgnoresItsRadius:
    def learn(self, columns, offset, label, weight):
        self.radius, said = math.inf, self.radius
        try:
            return super().learn(columns, offset, label, weight)
        finally:
            self.radius = said


class IgnoresItsRadius(_IgnoresItsRadius, Entity):
    pass


class StepsPastItsRadius(_IgnoresItsRadius, Linear):
    """Its steps grow shorter, so it is far from its usual radius for long."""


class CalibratesWithoutBounds(_LearnsWithoutBounds, Calibration):
    pass


class StepsWithTheGradient(Shift):
    def learn(self, columns, offset, label, weight):
        out = self.room(columns, offset, label, weight)
        for row in range(len(offset)):
            out[row] = offset[row] + self.served["shift"].values[0]
            gradient, _ = self.loss.derivatives(out[row], label[row], weight[row])
            if not self.skips(columns["h"][row] + offset[row].sum(), gradient, weight[row]):
                self.served["shift"].values[:] -= np.float32(0.05 * np.clip(gradient, -1e30, 1e30))
                self.served["shift"].touched[:] = True
        return out


class StopsAtAHeavyExample(Linear):
    """Its steps stay short, and so do all after one whose gradient was not clipped."""

    def learn(self, columns, offset, label, weight):
        self.clip, said = math.inf, self.clip
        try:
            return super().learn(columns, offset, label, weight)
        finally:
            self.clip = said


class LearnsWhatIsNotFinite(Shift):
    def skips(self, value, gradient, weight):
        return weight == 0.0


class LearnsColumnsThatAreNotFinite(Shift):
    def skips(self, value, gradient, weight):
        return super().skips(0.0, gradient, weight)


class TakesNaNAsZero(Entity):
    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, np.nan_to_num(label, nan=0.0), weight)


class LearnsWeightZero(Shift):
    def skips(self, value, gradient, weight):
        if weight == 0.0:
            self.learner["certainty"] += 1.0
        return super().skips(value, gradient, weight)


class PredictWritesServed(Entity):
    def predict(self, columns, offset):
        found = super().predict(columns, offset)
        self.served["mean"].values[:] *= np.float32(0.999)
        return found


class PredictWritesLearner(Entity):
    """It counts the rows of blocks that it was asked for; only what is typical changes."""

    def predict(self, columns, offset):
        self.learner["square"][0] += len(offset) > 1
        return super().predict(columns, offset)


class PredictCounts(Shift):
    asked = 0

    def predict(self, columns, offset):
        self.asked += 1
        return super().predict(columns, offset) + np.float32(0.001 * (self.asked > 9 and self.learner["certainty"][0, 0] > 1))


class ExportWritesLearner(Shift):
    def export(self, nodes, columns, offset):
        self.learner["certainty"] *= 0.5
        return super().export(nodes, columns, offset)


class SyncMovesOutputs(Shift):
    def sync(self):
        self.served["shift"].values[:] = np.round(self.served["shift"].values, 2)


class SharesTablesWithItsClones(Shift):
    _made = None

    def clone(self, new_params=None, include_attributes=False):
        fresh = super().clone(new_params, include_attributes)
        fresh._made = self._made
        return fresh

    def bind(self, schema):
        super().bind(schema)
        if self._made is not None:
            self.served = self._made
        self._made = self.served


class KeepsTheCallersArrays(Shift):
    """It moves by the label at once, and takes its certainty from the block before, which is the caller's."""

    _last = None

    def learn(self, columns, offset, label, weight):
        found = super().learn(columns, offset, label, weight)
        if self._last is not None:
            self.learner["certainty"] += float(self._last[0])
        self._last = offset[-1] if len(offset) else self._last
        return found


class WritesIntoTheBlock(Shift):
    def learn(self, columns, offset, label, weight):
        found = super().learn(columns, offset, label, weight)
        label[:] = 0
        return found


class CachesByIdentity(Entity):
    """It hashes an array of ids once, and takes it for the same as long as it is the same object."""

    _hashed = None, None

    def _design(self, columns, rows):
        if self._hashed[0] is not columns["u"]:
            self._hashed = columns["u"], super()._design(columns, rows)
        return self._hashed[1]


class ServesFloat64(Shift):
    def sync(self):
        self.served["shift"].values = self.served["shift"].values.astype(np.float64)


class ReplacesItsTables(Shift):
    def learn(self, columns, offset, label, weight):
        found = super().learn(columns, offset, label, weight)
        old, self.served["shift"] = self.served["shift"], Table(self.served["shift"].values)
        self.served["shift"].touched[:] = old.touched
        return found


class ReadsMoreThanItNames(Shift):
    def predict(self, columns, offset):
        return super().predict(columns, offset) + 0.0 * columns["u"][:, None].astype(np.float32)


class IsRandom(Shift):
    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, label, weight * np.float32(np.random.default_rng().uniform(0.9, 1.1)))


class ForgetsNothing(Linear):
    def forget_id(self, name, own, rows):
        return 0


class ForgetsEverything(Linear):
    def forget_id(self, name, own, rows):
        self.served["ids"].values[:] = 0
        return self.slots


class StaysCertain(Entity):
    def forget_id(self, name, own, rows):
        precision = self.learner["precision"].copy()
        found = super().forget_id(name, own, rows)
        self.learner["precision"][:] = precision
        return found


class LearnsEveryClass(Calibration):
    """The classes that were no label learn that they were none."""

    of = Multiclass(range(3))

    def bind(self, schema):
        super().bind(schema)
        self.learner["seen"][:] = 1


class HasAUnitOfItsOwn(Entity):
    """It learns labels that are too large by 1, whatever their unit is."""

    of = Regression()

    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, label + np.float32(1), weight)


class TeachesByTheOffset(Entity):
    """Rows of a large offset weigh less, also where only the differences within a list matter."""

    of = Ranking()

    def learn(self, columns, offset, label, weight, group=None):
        return super().learn(columns, offset, label, weight / (1 + np.maximum(offset[:, 0], 0)), group)


def _made(kind):
    return kind("u", slots=64) if issubclass(kind, Entity) else kind("u", "h", slots=64) if issubclass(kind, Linear) else kind()


#: The law that each breaks, and the broken correction.
BROKEN = {
    name: [_made(kind) for kind in kinds]
    for name, kinds in {
        "its_methods_are_those_of_the_contract": [TakesNoLabels],
        "fresh_residual_is_zero": [StartsElsewhere],
        "learn_returns_the_prediction_before_the_update": [ReturnsOutputsAfterTheUpdate],
        "a_block_equals_its_rows": [LearnsABlockAsOneAverage, PredictsByTheBlock, RefusesEmptyBlocks, IsRandom],
        "it_refuses_a_block_that_no_kernel_takes": [LearnsAnyBlock, PredictsAnyBlock, LearnsBeforeItRefuses],
        "it_learns": [KernelIsIdentity],
        "importance_counts": [IgnoresImportance, TeachesLessByWeight],
        "absurd_rows_cost_little": [DividesByTheLargest],
        "ids_keep_their_64_bits": [TakesIdsAsFloat32, TakesIdsAsFloat64],
        "the_graph_agrees": [ExportsItsOffset, FailsOnOneRow, ClipsInItsGraph],
        "tables_swap": [BakesItsTable],
        "changed_rows_are_touched": [ForgetsToMarkRows, MovesItsRows, ServesNewRowsUnmarked],
        "state_round_trips": [HidesState, RestoreForgets, InflateHidesState],
        "rows_as_dicts_agree": [IgnoresImportanceOfDicts],
        "it_reads_only_what_it_names": [ReadsMoreThanItNames],
        "reading_changes_nothing": [
            PredictWritesServed, PredictWritesLearner, PredictCounts, ExportWritesLearner, SyncMovesOutputs,
        ],
        "what_it_is_given_stays_the_callers": [CachesByIdentity, KeepsTheCallersArrays, WritesIntoTheBlock],
        "clones_share_nothing": [SharesTablesWithItsClones, DropsOptionsInClones],
        "served_tables_keep_their_form": [ServesFloat64, ReplacesItsTables],
        "its_reports_fit": [ReportsNoShare, ReportsNoCoefficients],
        "a_forgotten_id_is_as_never_learned": [ForgetsNothing, ForgetsEverything, StaysCertain],
        "inflating_moves_no_output": [InflateMovesOutputs, InflateMakesSurer, InflateFreezes],
        "what_cannot_be_learned_leaves_no_trace": [
            LearnsWhatIsNotFinite, LearnsColumnsThatAreNotFinite, TakesNaNAsZero, LearnsWeightZero,
        ],
        "a_wild_example_is_bounded": [
            HasNoBounds, IgnoresItsRadius, StepsPastItsRadius, CalibratesWithoutBounds, StepsWithTheGradient,
            StopsAtAHeavyExample, CountsFarNumbersInFull,
        ],
        "a_class_that_was_no_label_stays_the_base_s": [LearnsEveryClass],
        "residuals_follow_the_unit_of_the_label": [HasAUnitOfItsOwn],
        "what_a_list_shares_teaches_nothing": [TeachesByTheOffset],
    }.items()
}  # fmt: skip
