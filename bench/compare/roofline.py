"""What a network would take at best: each layer at the measured peak, or its weights at the
measured bandwidth, whichever binds, with the best of the algorithms that Lathe can choose. All else
is free here: additions, results in caches, and weights that the last-level cache can keep from run
to run. So it is a bound from below, though peers with larger tiles (and errors) might pass it."""

import itertools
import math
from dataclasses import dataclass

import onnx

# Winograd's F(m, k) computes m outputs from m + k - 1 products: as many points as Lathe has sets of
# (ir/winograd.h). In two dimensions 8 would lose too many digits (passes/plan/choose.cpp).
OUTPUTS = (2, 4)
POINTS = {1: (4, 6, 8), 2: (4, 6)}


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product."""
    name: str
    multiplies: int  # of a run: of all pictures
    weight_bytes: int
    winograd: tuple = ()  # kernel size and output size per dimension, where it applies


@dataclass(frozen=True)
class Machine:
    """What the threads of a measurement have."""
    gflops: float
    gbytes: float  # per second, from memory
    cache: float = 0  # bytes of the last level


@dataclass(frozen=True)
class Bound:
    name: str
    algorithm: str
    milliseconds: float


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def constants(graph):
    """Shapes of the weights, wherever an exporter puts them."""
    found = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        value = attributes(node).get("value") if node.op_type == "Constant" else None
        if value is not None:
            found[node.output[0]] = list(value.dims)
    return found


def summed(node, factor):
    """How many products each element of the result sums, from the second factor's shape."""
    if node.op_type.endswith("Conv"):
        return math.prod(factor[1:])
    if node.op_type.endswith("Gemm"):
        return factor[1 if attributes(node).get("transB") else 0]
    return factor[-2] if len(factor) > 1 else factor[0]


def tiled(node, kernel, size):
    """The dimensions in which Winograd's algorithm may work."""
    about = attributes(node)
    plain = all(n == 1 for name in ("strides", "dilations") for n in about.get(name, []))
    return tuple(zip(kernel, size)) if node.op_type.endswith("Conv") and plain else ()


def layers(model):
    """The layers of an ONNX model, its own or as Lathe's passes leave it. One whose shapes nobody
    knows counts for nothing."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    weights = constants(model.graph)
    shapes = weights | {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
                        for v in [*inferred.input, *inferred.value_info, *inferred.output]}
    found = []
    for node in model.graph.node:
        if node.op_type.removeprefix("Fused") not in ("Conv", "Gemm", "MatMul"):
            continue
        factor, out = shapes.get(node.input[1]), shapes.get(node.output[0])
        if factor and out:
            size = math.prod(factor) if node.input[1] in weights else 0
            found.append(Layer(node.name or node.output[0], math.prod(out) * summed(node, factor),
                               4 * size, tiled(node, factor[2:], out[2:])))
    return found


def algorithms(layer):
    """Names, and what each makes of the multiplies and of the weights' size, as factors."""
    yield "direct", 1.0, 1.0
    wide = [k for k, _ in layer.winograd if k > 1]
    choices = [[m for m in OUTPUTS if m + k - 1 in POINTS.get(len(wide), ())] if k > 1 else [1]
               for k, _ in layer.winograd]
    for tiles in itertools.product(*choices) if wide else ():
        products = growth = 1.0
        for m, (k, n) in zip(tiles, layer.winograd):
            products *= -(-n // m) * (m + k - 1) / (n * k)
            growth *= (m + k - 1) / k
        sizes = ("x".join(map(str, size)) for size in (tiles, [k for k, _ in layer.winograd]))
        name = "winograd {} of {}".format(*sizes)
        yield name, products, growth
        if len(wide) == 2:  # filters are transformed while they are used
            yield name + " from taps", products, 1.0


def bounds(found, machine):
    """The best algorithm for each layer, and its time."""
    weights = sum(layer.weight_bytes for layer in found)
    streamed = 1 - min(1, machine.cache / weights) if weights else 0
    result = []
    for layer in found:
        times = [(max(2e-6 * layer.multiplies * products / machine.gflops,
                      1e-6 * layer.weight_bytes * growth * streamed / machine.gbytes), name)
                 for name, products, growth in algorithms(layer)]
        milliseconds, name = min(times)
        result.append(Bound(layer.name, name, milliseconds))
    return result


def mix(found):
    """Milliseconds by algorithm, the largest first."""
    sums = {}
    for bound in found:
        sums[bound.algorithm] = sums.get(bound.algorithm, 0) + bound.milliseconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
