"""Does Lathe compute what ONNX Runtime computes, op by op? Seeded random variations of every op that
Lathe reads: attributes, shapes, opsets, what is given and what is left out. Where ONNX Runtime computes
something, Lathe must compute the same or say that it does not support it; with a disagreement stands
what ONNX's reference evaluator computes."""

import argparse
import collections
import concurrent.futures
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnx.reference
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)


class Case:
    """A model of one node; `given` are inputs of the run, `known` are initialisers."""

    def __init__(self, op, opset, inputs, attributes, outputs=1):
        self.op, self.opset, self.attributes = op, opset, attributes
        self.given, self.known, names = {}, {}, []
        for i, (value, is_known) in enumerate(inputs):
            value = None if value is None else numpy.asarray(value)
            names.append("" if value is None else f"i{i}")
            if value is not None:
                (self.known if is_known else self.given)[f"i{i}"] = value
        self.outputs = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, names, self.outputs, "node", **attributes)

        def info(name, value):
            return helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        graph = helper.make_graph(
            [node], op, [info(n, v) for n, v in self.given.items()],
            [helper.make_empty_tensor_value_info(y) for y in self.outputs],
            [numpy_helper.from_array(v, n) for n, v in self.known.items()])
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        self.model.ir_version = 8

    def __str__(self):
        def short(v):
            return f"{v.dtype}{list(v.shape)}" + (f"={v.tolist()}" if v.size < 9 else "")
        parts = [f"{n}:{short(v)}" for n, v in {**self.given, **self.known}.items()]
        parts += [f"{n}={v}" for n, v in self.attributes.items()]
        return f"{self.op}-{self.opset} " + " ".join(parts)

    def onnxruntime(self):
        """What ONNX Runtime computes, or None. Types of outputs are found out first."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(self.typed().SerializeToString(), options,
                                                   ["CPUExecutionProvider"])
            return session.run(None, self.given)
        except Exception:  # whatever it refuses
            return None

    def typed(self):
        """Outputs need types for ONNX Runtime: inferred ones, or those of input 0."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        inferred = onnx.shape_inference.infer_shapes(model)
        for ours, theirs in zip(model.graph.output, inferred.graph.output):
            kind = theirs.type.tensor_type.elem_type
            values = list({**self.given, **self.known}.values())
            if not kind:
                kind = helper.np_dtype_to_tensor_dtype(values[0].dtype)
            ours.CopyFrom(helper.make_tensor_value_info(ours.name, kind, None))
        return model

    def reference(self):
        try:
            return onnx.reference.ReferenceEvaluator(self.model).run(None, self.given)
        except Exception:
            return None

    def write(self, folder, outputs):
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        onnx.save(self.typed(), folder / "model.onnx")
        for i, (name, value) in enumerate(self.given.items()):
            (data / f"input_{i}.pb").write_bytes(
                numpy_helper.from_array(value, name).SerializeToString())
        for i, (name, value) in enumerate(zip(self.outputs, outputs)):
            (data / f"output_{i}.pb").write_bytes(
                numpy_helper.from_array(numpy.asarray(value), name).SerializeToString())


# ---- what is varied ------------------------------------------------------------------------------

class Draw(random.Random):
    """Random numbers, shapes and tensors."""

    def floats(self, *shape):
        return numpy.float32([self.gauss(0, 1) for _ in range(int(numpy.prod(shape)))]).reshape(shape)

    def ints(self, low, high, *shape):
        count = int(numpy.prod(shape))
        return numpy.int64([self.randint(low, high) for _ in range(count)]).reshape(shape)

    def shape(self, rank, low=1, high=6):
        return [self.randint(low, high) for _ in range(rank)]

    def maybe(self, attributes, name, value, chance=0.5):
        if self.random() < chance:
            attributes[name] = value
        return attributes

    def broadcasting(self, shape):
        """A shape that broadcasts to this one."""
        part = [d if self.random() < 0.6 else 1 for d in shape]
        return part[self.randint(0, len(part)):]


def given(*values):
    return [(v, False) for v in values]


def known(*values):
    return [(v, True) for v in values]


def numbers(*values):
    return numpy.int64(values)


# Left out, since ONNX Runtime 1.23 and ONNX's reference or text disagree there: with noop_with_empty_axes
# ONNX Runtime leaves out the square or root as well; an output_shape a whole stride or more beyond what
# a ConvTranspose reaches; SAME where the kernel is smaller than the stride, of ConvTranspose and pools;
# SAME and VALID with dilations of pools, which ONNX Runtime ignores; windows of AveragePool that end
# behind the padding, where it counts, and all padding that counts since opset 19; Slice backwards to
# INT_MAX; Dropout's mask before opset 12; tf_crop_and_resize of an axis whose length stays, and any
# resize whose lengths stay although its scales are not 1.
GENERATORS = []


def varies(*ops):
    """Registers a function that makes a case of one of these ops."""
    def register(function):
        GENERATORS.extend((op, function) for op in ops)
        return function
    return register


@varies("Abs", "Ceil", "Erf", "Exp", "Floor", "Identity", "Neg", "Reciprocal", "Relu", "Sigmoid",
        "Softplus", "Softsign", "Tanh", "HardSwish", "Mish")
def plain(d, op):
    opset = d.choice([18, 19, 22] if op == "Mish" else [14, 17] if op == "HardSwish" else [9, 13, 21])
    x = d.floats(*d.shape(d.randint(0, 5))) * numpy.float32(3)
    if op in ("Abs", "Neg", "Identity") and d.random() < 0.3:
        x = d.ints(-9, 9, *d.shape(3)).astype(d.choice([numpy.int64, numpy.int32]))
    return Case(op, opset, given(x), {})


@varies("Log", "Sqrt")
def positive(d, op):
    return Case(op, d.choice([7, 13]), given(abs(d.floats(*d.shape(3))) + numpy.float32(0.01)), {})


@varies("Celu", "Elu", "HardSigmoid", "LeakyRelu", "Selu", "ThresholdedRelu", "Gelu")
def with_parameters(d, op):
    a = {}
    if op == "Gelu":
        return Case(op, 20, given(d.floats(3, 7)),
                    d.maybe(a, "approximate", d.choice(["none", "tanh"])))
    d.maybe(a, "alpha", d.uniform(0.05, 2))
    if op == "HardSigmoid":
        d.maybe(a, "beta", d.uniform(-1, 1))
    if op == "Selu":
        d.maybe(a, "gamma", d.uniform(0.5, 2))
    return Case(op, d.choice([12, 13, 17]), given(d.floats(2, 3, 5)), a)


@varies("Clip")
def clip(d, op):
    x = d.floats(3, 5)
    low, high = numpy.float32(d.uniform(-1, 0.5)), numpy.float32(d.uniform(-0.5, 1))
    if d.random() < 0.4:
        a = {}
        d.maybe(a, "min", float(low))
        d.maybe(a, "max", float(high))
        return Case(op, d.choice([6, 7, 10]), given(x), a)
    bounds = [v if d.random() < 0.6 else None for v in (low, high)]
    bounds = [None if v is None else numpy.array(v) for v in bounds]
    while bounds and bounds[-1] is None:
        bounds.pop()
    return Case(op, d.choice([11, 12, 13]), given(x) + known(*bounds), {})


@varies("Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Max", "Min", "Sum", "Mean")
def two(d, op):
    shape = d.shape(d.randint(0, 4))
    a, b = d.floats(*shape), d.floats(*d.broadcasting(shape))
    if op not in ("PRelu",) and d.random() < 0.3:
        a, b = b, a
    if op == "Pow":
        a = abs(a) + numpy.float32(0.1)
        if d.random() < 0.5:
            b = numpy.float32(d.choice([0, 1, 2, 3, 0.5, -1, -2]))
            b = numpy.array(b if d.random() < 0.5 else numpy.int64(b) if b == int(b) else b)
    if op in ("Add", "Sub", "Mul") and d.random() < 0.3:
        a, b = (numpy.int64(v * 9) for v in (a, b))
    if op == "Div" and d.random() < 0.3:
        a, b = numpy.int64(a * 9), numpy.int64(numpy.sign(b)) * 3 + 1
    more = [d.floats(*d.broadcasting(shape)) for _ in range(d.randint(0, 2))]
    inputs = [a, b] + (more if op in ("Max", "Min", "Sum", "Mean") else [])
    if op in ("Max", "Min", "Sum", "Mean") and d.random() < 0.2:
        inputs = inputs[:1]
    flags = [d.random() < 0.3 for _ in inputs]
    return Case(op, d.choice([12, 13, 17]), list(zip(inputs, flags)), {})


@varies("Mod")
def mod(d, op):
    shape = d.shape(2)
    kind = d.choice([numpy.int64, numpy.int32])
    a = d.ints(-20, 20, *shape).astype(kind)
    b = d.ints(1, 7, *d.broadcasting(shape)).astype(kind)
    b = numpy.where(d.random() < 0.5, -b, b).astype(kind)
    return Case(op, d.choice([10, 13]), known(a, b), d.maybe({}, "fmod", d.choice([0, 1]), 0.7))


@varies("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Where",
        "Range")
def decided(d, op):
    shape = d.shape(2, high=4)
    a, b = d.ints(-3, 3, *shape), d.ints(-3, 3, *d.broadcasting(shape))
    opset = d.choice([12, 13, 17])
    if op in ("And", "Or"):
        return Case(op, opset, known(a > 0, b > 0), {})
    if op == "Not":
        return Case(op, opset, known(a > 0), {})
    if op == "Where":
        return Case(op, opset, known(d.ints(0, 1, *shape) > 0, a, b), {})
    if op == "Range":
        step = d.choice([-3, -1, 1, 2])
        return Case(op, opset, known(*(numpy.array(v, numpy.int64)
                                       for v in (d.randint(-5, 5), d.randint(-9, 9), step))), {})
    return Case(op, opset, known(a, b), {})


@varies("Cast")
def cast(d, op):
    x = d.choice([d.floats(7) * numpy.float32(100), d.ints(-5, 5, 7), d.ints(0, 1, 6) > 0,
                  d.ints(-2**40, 2**40, 4), d.ints(-9, 9, 3).astype(numpy.int32)])
    to = d.choice([TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL])
    return Case(op, d.choice([9, 13, 19]), [(x, d.random() < 0.3)],
                {"to": to})


@varies("ArgMax", "ArgMin")
def arg(d, op):
    x = d.ints(-2, 2, *d.shape(d.randint(1, 4))).astype(numpy.float32)
    opset = d.choice([7, 11, 12, 13])
    a = d.maybe({}, "axis", d.randint(-x.ndim if opset >= 11 else 0, x.ndim - 1), 0.8)
    d.maybe(a, "keepdims", d.choice([0, 1]))
    if opset >= 12:
        d.maybe(a, "select_last_index", d.choice([0, 1]))
    return Case(op, opset, given(x), a)


@varies("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
        "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")
def reduce(d, op):
    x = d.floats(*d.shape(d.randint(1, 4)))
    if op == "ReduceLogSum":
        x = abs(x) + numpy.float32(0.1)
    opset = d.choice([11, 13, 18])
    axes = d.sample(range(x.ndim), d.randint(0, x.ndim))
    axes = [a - x.ndim if d.random() < 0.3 else a for a in axes]
    a = d.maybe({}, "keepdims", d.choice([0, 1]))
    as_input = opset >= 18 or (op == "ReduceSum" and opset >= 13)
    inputs = given(x)
    if as_input:
        if axes or op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"):
            d.maybe(a, "noop_with_empty_axes", d.choice([0, 1]))
        if d.random() < 0.8 or (axes and "noop_with_empty_axes" in a):
            inputs += known(numpy.int64(axes))
    elif axes:
        a["axes"] = axes
    return Case(op, opset, inputs, a)


@varies("Softmax", "LogSoftmax", "Hardmax")
def softmax(d, op):
    x = d.floats(*d.shape(d.randint(1, 4)))
    if op == "Hardmax":
        x = numpy.round(x)
    opset = d.choice([7, 11, 13])
    axis = d.randint(-x.ndim if opset >= 11 else 0, x.ndim - 1)
    if opset < 13 and x.ndim == 1:
        axis = 0
    return Case(op, opset, given(x), d.maybe({}, "axis", axis, 1 if x.ndim == 1 else 0.8))


@varies("LRN")
def lrn(d, op):
    x = d.floats(*d.shape(d.choice([4, 4, 3, 5]), high=7))
    a = {"size": d.choice([1, 3, 5, 7])}
    for name, low, high in (("alpha", 1e-4, 1), ("beta", 0.1, 1), ("bias", 0.5, 2)):
        d.maybe(a, name, d.uniform(low, high))
    return Case(op, d.choice([7, 13]), given(x), a)


@varies("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
def normalise(d, op):
    x = d.floats(2, 4, *d.shape(d.randint(1, 3)))
    epsilon = d.maybe({}, "epsilon", d.choice([1e-5, 1e-3, 0.1]))
    c = [d.floats(4) for _ in range(3)]
    if op == "BatchNormalization":
        if d.random() < 0.5:
            d.maybe(epsilon, "momentum", 0.5)
        variance = abs(d.floats(4)) + numpy.float32(0.1)
        return Case(op, d.choice([9, 14, 15]), given(x) + [(v, d.random() < 0.7)
                                                           for v in (*c, variance)], epsilon)
    if op == "InstanceNormalization":
        return Case(op, d.choice([6, 8, 13]), given(x) + known(*c[:2]), epsilon)
    if op == "LayerNormalization":
        axis = d.choice([1, 2, 1 - x.ndim, 2 - x.ndim])
        rest = x.shape[axis:]
        d.maybe(epsilon, "stash_type", 1)
        scale, bias = d.floats(*rest), d.floats(*rest)
        return Case(op, 17, given(x) + known(*([scale, bias][:d.randint(1, 2)])),
                    {**epsilon, "axis": axis})
    groups = d.choice([1, 2, 4])
    return Case(op, 21, given(x) + known(*c[:2]), {**epsilon, "num_groups": groups})


@varies("Gemm")
def gemm(d, op):
    m, n, k = d.shape(3)
    a = {}
    for name in ("alpha", "beta"):
        d.maybe(a, name, d.uniform(-2, 2))
    for name in ("transA", "transB"):
        d.maybe(a, name, d.choice([0, 1]))
    left = d.floats(*((k, m) if a.get("transA") else (m, k)))
    right = d.floats(*((n, k) if a.get("transB") else (k, n)))
    inputs = [(left, False), (right, d.random() < 0.6)]
    opset = d.choice([7, 9, 11, 13])
    if opset < 11 or d.random() < 0.7:
        inputs.append((d.floats(*d.broadcasting([m, n])), d.random() < 0.6))
    return Case(op, opset, inputs, a)


@varies("MatMul")
def matmul(d, op):
    m, n, k = d.shape(3)
    stack = d.shape(d.randint(0, 2), high=3)
    a = d.floats(*stack, m, k) if d.random() < 0.8 else d.floats(k)
    b = d.floats(*d.broadcasting(stack), k, n) if d.random() < 0.8 else d.floats(k)
    return Case(op, d.choice([9, 13]), [(a, False), (b, d.random() < 0.5)], {})


def window(d, extents, automatic=True, dilations=True):
    """Attributes of a sliding window."""
    n = len(extents)
    a = {"kernel_shape": [d.randint(1, 4) for _ in extents]}
    d.maybe(a, "strides", [d.randint(1, 3) for _ in range(n)], 0.7)
    if dilations:
        d.maybe(a, "dilations", [d.choice([1, 2 if 2 * k - 1 <= e else 1])
                                 for k, e in zip(a["kernel_shape"], extents)], 0.4)
    if automatic and d.random() < 0.4:
        a["auto_pad"] = d.choice(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    if a.get("auto_pad", "NOTSET") == "NOTSET":
        d.maybe(a, "pads", [d.randint(0, k - 1) for k in a["kernel_shape"]] +
                [d.randint(0, k - 1) for k in a["kernel_shape"]], 0.6)
    return a


@varies("Conv", "ConvTranspose", "ConvTranspose")
def conv(d, op):
    n = d.choice([1, 2, 2, 2, 3])
    extents = d.shape(n, 4, 9)
    a = window(d, extents)
    groups = d.choice([1, 1, 2, 4])
    inside, outside = groups * d.randint(1, 3), d.randint(1, 3)
    if op == "Conv":
        weight = d.floats(groups * outside, inside // groups, *a["kernel_shape"])
    else:
        weight = d.floats(inside, outside, *a["kernel_shape"])
        strides, dilations = a.get("strides", [1] * n), a.get("dilations", [1] * n)
        # ONNX Runtime also computes garbage for an output_padding of a stride or more.
        if d.random() < 0.4:
            a["output_padding"] = [d.randint(0, s - 1) for s in strides]
        if d.random() < 0.4:
            natural = [(e - 1) * s + (k - 1) * w + 1 for e, s, k, w in
                       zip(extents, strides, a["kernel_shape"], dilations)]
            a["output_shape"] = [max(1, v + d.randint(-2, s - 1)) for v, s in zip(natural, strides)]
            a.pop("pads", 0)
        elif a.get("auto_pad", "").startswith("SAME"):
            a["strides"] = [min(s, k) for s, k in zip(strides, a["kernel_shape"])]
            a.pop("output_padding", 0)
    if groups > 1 or d.random() < 0.2:
        a["group"] = groups
    if d.random() < 0.3:
        del a["kernel_shape"]
    inputs = given(d.floats(d.randint(1, 2), inside, *extents)) + known(weight)
    if d.random() < 0.5:
        inputs += known(d.floats(groups * outside))
    return Case(op, d.choice([7, 11, 13, 22]), inputs, a)


@varies("MaxPool", "AveragePool", "AveragePool", "LpPool")
def pool(d, op):
    extents = d.shape(d.choice([1, 2, 2, 2, 3]), 4, 9)
    opset = d.choice({"MaxPool": [8, 10, 11, 12], "AveragePool": [7, 10, 11, 19, 22],
                      "LpPool": [11, 18, 22]}[op])
    dilations = opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]
    a = window(d, extents, dilations=dilations)
    if a.get("auto_pad", "NOTSET") != "NOTSET":
        a.pop("dilations", 0)
        if "strides" in a:
            a["strides"] = [min(s, k) for s, k in zip(a["strides"], a["kernel_shape"])]
    if opset >= (18 if op == "LpPool" else 10):
        d.maybe(a, "ceil_mode", d.choice([0, 1]))
    if op == "AveragePool":
        d.maybe(a, "count_include_pad", d.choice([0, 1]))
        if a.get("count_include_pad"):
            a.pop("ceil_mode", 0)
            if opset >= 19:
                a.pop("pads", 0)
    if op == "LpPool":
        d.maybe(a, "p", d.choice([1, 2, 3]))
    return Case(op, opset, given(d.floats(1, 3, *extents)), a)


@varies("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(d, op):
    a = d.maybe({}, "p", d.choice([1, 2, 3])) if op == "GlobalLpPool" else {}
    return Case(op, 13, given(d.floats(2, 3, *d.shape(d.randint(1, 3)))), a)


@varies("Pad")
def pad(d, op):
    x = d.floats(*d.shape(d.randint(1, 4), low=2))
    mode = d.choice(["constant", "edge", "reflect", "wrap"])
    opset = d.choice([2, 10, 11, 13, 18, 19]) if mode != "wrap" else 19
    axes = list(range(x.ndim))
    if opset >= 18 and d.random() < 0.4:
        axes = d.sample(axes, d.randint(1, x.ndim))
    low = -1 if mode != "reflect" else 0
    most = [3 if mode == "constant" else x.shape[a] - 1 for a in axes]
    pads = [d.randint(low, m) for m in most] + [d.randint(low, m) for m in most]
    a = d.maybe({}, "mode", mode, 1 if mode != "constant" else 0.5)
    if opset < 11:
        return Case(op, opset, given(x), {**d.maybe(a, "value", d.uniform(-1, 1)), "pads": pads})
    inputs = given(x) + known(numpy.int64(pads))
    inputs += known(numpy.array(numpy.float32(d.uniform(-1, 1))) if d.random() < 0.5 else None)
    if len(axes) < x.ndim or (opset >= 18 and axes != sorted(axes)):
        inputs += known(numpy.int64([v - x.ndim if d.random() < 0.3 else v for v in axes]))
    while inputs[-1][0] is None:
        inputs.pop()
    return Case(op, opset, inputs, a)


@varies("Slice")
def slice_(d, op):
    x = d.floats(*d.shape(d.randint(1, 4)))
    axes = d.sample(range(x.ndim), d.randint(1, x.ndim))
    bounds = [[d.choice([d.randint(-8, 8), d.randint(-8, 8), 2**63 - 1, -2**63]) for _ in axes]
              for _ in range(2)]
    opset = d.choice([1, 9, 10, 11, 13])
    if opset < 10:
        return Case(op, opset, given(x), {"starts": bounds[0], "ends": bounds[1], "axes": axes})
    axes = [v - x.ndim if opset >= 11 and d.random() < 0.3 else v for v in axes]
    steps = [d.choice([1, 2, 3, -1, -2]) for _ in axes]
    bounds[1] = [min(e, 8) if s < 0 else e for e, s in zip(bounds[1], steps)]
    kind = d.choice([numpy.int64, numpy.int64, numpy.int32])
    lists = [numpy.clip(v, numpy.iinfo(kind).min, numpy.iinfo(kind).max).astype(kind)
             for v in (numpy.array(w, object) for w in (*bounds, axes, steps))]
    return Case(op, opset, given(x) + known(*lists[:d.choice([3, 4, 4])]), {})


@varies("Gather")
def gather(d, op):
    x = d.floats(*d.shape(d.randint(1, 4)))
    axis = d.randint(0, x.ndim - 1)
    opset = d.choice([1, 11, 13])
    extent = x.shape[axis]
    indices = d.ints(-extent if opset >= 11 else 0, extent - 1, *d.shape(d.randint(0, 2), high=4))
    if d.random() < 0.3:
        indices = indices.astype(numpy.int32)
    if opset >= 11 and d.random() < 0.4:
        axis -= x.ndim
    return Case(op, opset, given(x) + [(indices, d.random() < 0.6)],
                d.maybe({}, "axis", axis, 0.9 if axis in (0,) else 1))


@varies("DepthToSpace", "SpaceToDepth")
def blocks(d, op):
    b = d.randint(1, 3)
    if op == "SpaceToDepth":
        return Case(op, 13, given(d.floats(2, 3, 2 * b, 3 * b)), {"blocksize": b})
    opset = d.choice([1, 11, 13])
    a = {"blocksize": b}
    if opset >= 11:
        d.maybe(a, "mode", d.choice(["DCR", "CRD"]))
    return Case(op, opset, given(d.floats(2, 2 * b * b, 2, 3)), a)


@varies("Concat", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Expand", "Tile",
        "Shape", "Size", "Dropout", "ConstantOfShape")
def move(d, op):
    x = d.floats(*d.shape(d.randint(1, 4)))
    axis = d.randint(0, x.ndim - 1)
    if op == "Concat":
        opset = d.choice([4, 11, 13])
        parts = []
        for _ in range(d.randint(1, 4)):
            shape = list(x.shape)
            shape[axis] = d.randint(0 if d.random() < 0.2 else 1, 4)
            parts.append((d.floats(*shape), d.random() < 0.3))
        return Case(op, opset, parts, {"axis": axis - (x.ndim if opset >= 11 and d.random() < 0.4 else 0)})
    if op == "Split":
        opset = d.choice([2, 11, 13, 18])
        count = d.randint(1, 3)
        sizes = [d.randint(1, 4) for _ in range(count)]
        shape = list(x.shape)
        a = {"axis": axis - (x.ndim if opset >= 11 and d.random() < 0.4 else 0)}
        if d.random() < 0.5:
            shape[axis] = sum(sizes)
            if opset < 13:
                return Case(op, opset, given(d.floats(*shape)), {**a, "split": sizes}, count)
            return Case(op, opset, given(d.floats(*shape)) + known(numpy.int64(sizes)), a, count)
        shape[axis] = count * d.randint(1, 3)
        if opset >= 18:
            a["num_outputs"] = count
            shape[axis] = d.randint(count, 8)
        return Case(op, opset, given(d.floats(*shape)), a, count)
    if op in ("Squeeze", "Unsqueeze"):
        opset = d.choice([1, 11, 13])
        ones = [i for i, v in enumerate(x.shape) if v == 1]
        axes, rank = d.sample(ones, d.randint(0, len(ones))), x.ndim
        if op == "Unsqueeze":
            rank += 2
            axes = d.sample(range(rank), 2)
        axes = [v - rank if opset >= 11 and d.random() < 0.4 else v for v in axes]
        if not axes:
            return Case(op, opset, given(x), {})
        return (Case(op, opset, given(x), {"axes": axes}) if opset < 13 else
                Case(op, opset, given(x) + known(numpy.int64(axes)), {}))
    if op == "Reshape":
        target = list(x.shape)
        d.shuffle(target)
        if d.random() < 0.4:
            target[d.randint(0, x.ndim - 1)] = -1
        elif target[0] == x.shape[0]:
            target[0] = 0
        opset = d.choice([5, 13, 14])
        return Case(op, opset, given(x) + known(numpy.int64(target)), {})
    if op == "Flatten":
        opset = d.choice([9, 11, 13])
        return Case(op, opset, given(x), d.maybe({}, "axis", d.randint(
            -x.ndim if opset >= 11 else 0, x.ndim), 1))
    if op == "Transpose":
        return Case(op, 13, given(x), d.maybe({}, "perm", d.sample(range(x.ndim), x.ndim), 0.8))
    if op == "Expand":
        small = d.floats(*d.broadcasting(x.shape))
        target = numpy.int64([v if d.random() < 0.7 else 1 for v in x.shape])
        return Case(op, d.choice([8, 13]), given(small) + known(target), {})
    if op == "Tile":
        return Case(op, d.choice([6, 13]), given(x) + known(d.ints(0, 3, x.ndim)), {})
    if op == "Shape":
        a = d.maybe({}, "start", d.randint(-5, 5))
        return Case(op, 15, given(x), d.maybe(a, "end", d.randint(-5, 5)))
    if op == "Size":
        return Case(op, 13, given(x), {})
    if op == "Dropout":
        if d.random() < 0.5:
            return Case(op, d.choice([7, 10]), given(x), d.maybe({}, "ratio", 0.3))
        inputs = given(x) + known(numpy.array(numpy.float32(0.4)))[:d.randint(0, 1)]
        return Case(op, d.choice([12, 13]), inputs, d.maybe({}, "seed", 3), d.randint(1, 2))
    value = d.choice([numpy.float32([2.5]), numpy.int64([7]), numpy.int32([-3])])
    return Case(op, 9, known(d.ints(0, 4, d.randint(1, 3))),
                d.maybe({}, "value", numpy_helper.from_array(value)))


@varies("Upsample")
def upsample(d, op):
    opset = d.choice([7, 9])
    scales = [1.0, 1.0, d.choice([1, 1.5, 2, 2.3, 3]), d.choice([1, 1.5, 2, 2.7, 4])]
    a = d.maybe({}, "mode", d.choice(["nearest", "linear"]))
    x = d.floats(1, 2, d.randint(1, 5), d.randint(1, 5))
    if opset < 9:
        return Case(op, opset, given(x), {**a, "scales": scales})
    return Case(op, opset, given(x) + known(numpy.float32(scales)), a)


@varies(*["Resize"] * 12)
def resize(d, op):
    opset = d.choice([10, 11, 13, 18, 19])
    mode = d.choice(["nearest", "nearest", "linear", "cubic"][:3 if opset == 10 else 4])
    x = d.floats(1, 2, d.randint(1, 13), d.randint(1, 13))
    picks = [0.3, 0.5, 0.6, 0.7, 0.75, 1, 1.3, 1.5, 1.7, 2, 2.5, 3, round(d.uniform(0.2, 3), 3)]
    scales = [1.0, 1.0, d.choice(picks), d.choice(picks)]
    scales = [s if s * n >= 1 and int(s * n) != n else 1.0 for s, n in zip(scales, x.shape)]
    a = d.maybe({}, "mode", mode, 1 if mode != "nearest" else 0.7)
    if opset == 10:
        return Case(op, opset, given(x) + known(numpy.float32(scales)), a)
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    modes += ["tf_crop_and_resize"] if mode != "cubic" else []
    modes += ["half_pixel_symmetric"] if opset >= 19 else []
    modes += ["tf_half_pixel_for_nn"] if opset < 13 and mode == "nearest" else []
    d.maybe(a, "coordinate_transformation_mode", d.choice(modes), 0.8)
    if mode == "nearest":
        d.maybe(a, "nearest_mode",
                d.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]), 0.7)
    if mode == "cubic":
        d.maybe(a, "cubic_coeff_a", d.choice([-0.5, -0.75]))
        d.maybe(a, "exclude_outside", d.choice([0, 1]))
    d.maybe(a, "extrapolation_value", d.uniform(-1, 1))
    if opset >= 18 and mode != "nearest":
        d.maybe(a, "antialias", d.choice([0, 1]), 0.6)
    axes = list(range(4))
    if opset >= 18 and d.random() < 0.4:
        axes = d.choice([[2, 3], [3, 2], [3]])  # negative ones crash ONNX Runtime 1.23
        a["axes"] = axes
    region = None
    if a.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        scales = scales[:2] + [s if s != 1 else 2 for s in scales[2:]]
        region = {2: sorted((d.uniform(-0.2, 1.2), d.uniform(0, 1.1))), 3: [0.1, 0.9]}
        region = [region.get(v % 4, [0, 1]) for v in axes]
        region = numpy.float32([r[0] for r in region] + [r[1] for r in region])
    if region is None and opset < 13:  # an input that may not be left out
        region = numpy.float32([])
    chosen = numpy.float32([scales[v] for v in axes])
    if d.random() < 0.5:
        return Case(op, opset, given(x) + known(region, chosen), a)
    sizes = [x.shape[v] if v % 4 < 2 else d.choice([n for n in range(1, 18) if n != x.shape[v]])
             for v in axes]
    if opset >= 18 and "axes" in a:
        # not_larger rounds a length to nothing where one axis shrinks far more than another.
        d.maybe(a, "keep_aspect_ratio_policy", d.choice(["stretch", "not_smaller"] + (
            ["not_larger"] if min(x.shape[2:]) > 2 else [])))
    empty = numpy.float32([]) if opset < 13 else None
    return Case(op, opset, given(x) + known(region, empty, numpy.int64(sizes)), a)


BAD = ("DISAGREES", "fault")

# ---- the judges ----------------------------------------------------------------------------------

def close(found, expected):
    return (found is not None and len(found) == len(expected) and
            all(numpy.shape(f) == numpy.shape(e) and numpy.allclose(f, e, 1e-3, 1e-4)
                for f, e in zip(found, expected)))


def judge(case, lathe, folder):
    """The verdict on one case and, if there is more to say, why."""
    expected = case.onnxruntime()
    reference = case.reference() if expected is None else None
    case.write(folder, expected or reference or [])
    if expected is None and reference is None:
        run = subprocess.run([lathe, "check", folder / "model.onnx"], capture_output=True, text=True)
        return "fault" if run.returncode not in (0, 3, 4, 6) else "no peer", run.stderr
    # What neither a sum's order nor a function's last bits explain.
    run = subprocess.run([lathe, "verify", folder, "--rtol", "1e-3", "--atol", "1e-5"],
                         capture_output=True, text=True)
    if run.returncode == 0:
        return "agrees", ""
    if run.returncode == 4:
        return "unsupported", run.stderr
    if expected is None:
        return "DISAGREES", f"{run.stderr.strip()[-400:]}\n    with ONNX's reference: ONNX Runtime refuses"
    reference = case.reference()
    peers = ("agrees with ONNX Runtime" if close(reference, expected) else
             "cannot" if reference is None else "differs from ONNX Runtime")
    if reference is not None:
        case.write(folder / "reference", reference)
        run2 = subprocess.run([lathe, "verify", folder / "reference", "--atol", "1e-5"],
                              capture_output=True)
        peers += ", agrees with Lathe" if run2.returncode == 0 else ", differs from Lathe"
    return "DISAGREES", f"{run.stderr.strip()[-400:]}\n    ONNX's reference {peers}"


def compare(lathe, each, seed=1, only=None, keep=None, verbose=False):
    """Judges `each` cases of every op, or of one; whether no verdict is bad."""
    cases = []
    for place, (op, generate) in enumerate(GENERATORS):
        if only in (None, op):
            cases += [generate(Draw(f"{seed} {place} {i}"), op) for i in range(each)]
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(2) as pool:
        folders = [pathlib.Path(work) / str(i) for i in range(len(cases))]
        verdicts = pool.map(lambda c, f: judge(c, lathe, f), cases, folders)
        for case, folder, (verdict, why) in zip(cases, folders, verdicts):
            counts[verdict] += 1
            if verdict in BAD or (verbose and verdict != "agrees"):
                print(f"{verdict}: {case}\n    {why}")
                if keep:
                    shutil.copytree(folder, pathlib.Path(keep) / folder.name)
            shutil.rmtree(folder)
    print(f"{len(cases)} variations of {len({case.op for case in cases})} ops: " +
          ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())))
    return counts["agrees"] > 0 and not any(counts[verdict] for verdict in BAD)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lathe", default="build/bin/lathe")
    parser.add_argument("--each", type=int, default=20, help="cases of each op (Resize: 12 times)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one op")
    parser.add_argument("--keep", help="a folder for what disagrees, in the layout of ONNX's tests")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    sys.exit(0 if compare(**vars(arguments)) else 1)


if __name__ == "__main__":
    main()
