"""Scores as ONNX text, raw and as probabilities, in the ways that people write them."""

import onnx

#: A probability of the score z, float[N, 1], in the ways that people write it; each ends in p.
SIGMOIDS = {
    "sigmoid": "p = Sigmoid(z)",
    "reciprocal": "n = Neg(z) e = Exp(n) d = Add(one, e) p = Reciprocal(d)",
    "division": "n = Neg(z) e = Exp(n) d = Add(e, one) p = Div(one, d)",
    "odds": "e = Exp(z) d = Add(one, e) p = Div(e, d)",
    "tanh": "h = Mul(z, half) t = Tanh(h) u = Mul(t, half) p = Add(u, half)",
    "complement": "n = Neg(z) s = Sigmoid(n) p = Sub(one, s)",
    "clipped": "s = Sigmoid(z) p = Clip(s, low, high)",
    "shrunk": "s = Sigmoid(z) u = Mul(s, high) p = Add(u, low)",
    "log sigmoid": "n = Neg(z) s = Softplus(n) m = Neg(s) p = Exp(m)",
    "hard": "p = HardSigmoid(z)",
    "softmax, sliced": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = Slice(s, i1, i2, i1)",
    "softmax, gathered": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = Gather<axis = 1>(s, i1)",
    "softmax, split": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) q, p = Split<axis = 1>(s)",
    "softmax, selected": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = MatMul(s, second)",
    "softmax, written out": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) e = Exp(two) d = ReduceSum(e, i1) s = Div(e, d)"
    " p = Slice(s, i1, i2, i1)",
    "log-softmax": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = LogSoftmax(two) l = Slice(s, i1, i2, i1) p = Exp(l)",
    "a mean of two": "s = Sigmoid(z) n = HardSigmoid(z) p = Mean(s, n)",
    "either": "c = Greater(z, low) a = Sigmoid(z) b = HardSigmoid(z) p = Where(c, a, b)",
    "quantized": "s = Sigmoid(z) q = QuantizeLinear(s, step, none) p = DequantizeLinear(q, step, none)",
}
#: Probabilities of which the graph shows nothing: probed rows do.
HIDDEN = {
    "by a branch": "f = ReduceMax<keepdims = 0>(z) c = Greater(f, low) p = If(c) <then_branch = t () => (float[n, 1] a)"
    " { a = Sigmoid(z) }, else_branch = e () => (float[n, 1] b) { b = HardSigmoid(z) }>",
    "in a function": "p = local.squash(z)",
    "of parts of a score": "u = Relu(z) d = Sub(z, one) v = Relu(d) p = Sub(u, v)",
    "of a root": "q = Mul(z, z) d = Add(q, one) k = Sqrt(d) i = Reciprocal(k) t = Mul(z, i) u = Mul(t, half) p = Add(u, half)",
    "of a convolution": "s = Sigmoid(z) c = Unsqueeze(s, i2) d = Conv(c, kernel) p = Squeeze(d, i2)",
    "of a share times one": "e = Exp(z) d = Add(one, e) i = Reciprocal(d) p = Mul(e, i)",
}
TAILS = {
    "": "y = Identity(p)",
    "flat": "y = Reshape(p, column)",
    "cast": "wide = Cast<to = 11>(p) y = Cast<to = 1>(wide)",
    "dropout": "y = Dropout(p)",
    "squeezed": "r = Squeeze(p, i1) y = Unsqueeze(r, i1)",
}
CONSTANTS = (
    "float one = {1}, float half = {0.5}, float low = {0.001}, float high = {0.99}, int64[1] i1 = {1}, int64[1] i2 = {2},"
    " float[2, 1] second = {0, 1}, int64[2] column = {-1, 1}, float step = {0.00392156862}, uint8 none = {0}"
)
#: Scores that are raw, with nothing but a linear head that says so.
RAW = {
    "linear": "y = Identity(z)",
    "gemm": "y = Gemm(x, w, b)",
    "hidden relu": "h = Gemm(x, w2) r = Relu(h) y = Gemm(r, w, b)",
    "hidden sigmoid": "h = Gemm(x, w2) r = Sigmoid(h) y = Gemm(r, big, b)",
    "hidden tanh": "h = Gemm(x, w2) r = Tanh(h) y = MatMul(r, big)",
    "batch norm": "y = BatchNormalization(z, g, b, b, g)",
    "dropout": "y = Dropout(z)",
    "cast": "d = Cast<to = 11>(z) y = Cast<to = 1>(d)",
    "flat": "y = Flatten(z)",
    "clipped": "y = Clip(z, down, up)",
    "difference of logits": "h = Gemm(x, w2) a = Slice(h, i0, i1, i1) c = Slice(h, i1, i2, i1) y = Sub(a, c)",
    "logit of a probability": "s = Sigmoid(z) o = Sub(one, s) u = Div(s, o) y = Log(u)",
}
MORE = (
    "float[2, 2] w2 = {1, -2, 0.5, 1}, float[1] b = {0.1}, float[1] g = {1}, float[2, 1] big = {3, -4}, float down = {-15},"
    " float up = {15}, int64[1] i0 = {0}, float five = {5}, float shift = {2.5}"
)


def model(body, weights=(0.5, -1.5), more="", opset=17, functions=""):
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]> ranker (float[N, 2] x) => (float[N, 1] y) '
        f"<float[2, 1] w = {{{weights[0]}, {weights[1]}}}, {CONSTANTS}{more}> {{ z = MatMul(x, w) {body} }} {functions}"
    )
    return onnx.parser.parse_model(text)
