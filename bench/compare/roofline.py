"""What a network would take at best: each layer at the measured peak or bandwidth, whichever binds,
with the algorithm that is best for it. Everything but multiplies and weights is free here."""

import itertools
from dataclasses import dataclass

import onnx

# Winograd's F(m, k) computes m outputs from m + k - 1 products; larger tiles cost accuracy.
LARGEST_TILE = 6
OUTPUTS = (1, 2, 4)


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product, for one picture."""
    name: str
    multiplies: int
    weight_bytes: int
    winograd: tuple = ()  # kernel size and output size per dimension, where it applies


@dataclass(frozen=True)
class Bound:
    name: str
    algorithm: str
    milliseconds: float


def attribute(node, name, default):
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name),
                default)


def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def layers(model):
    """The layers of an ONNX model whose shapes are known, batch 1."""
    inferred = onnx.shape_inference.infer_shapes(model)
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*inferred.graph.value_info, *inferred.graph.output]}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in weights:
            continue
        shape, out = weights[node.input[1]], shapes[node.output[0]]
        size, pixels = product(shape), product(out[2:])
        kernel = shape[2:]
        plain = all(n == 1 for name in ("strides", "dilations") for n in attribute(node, name, []))
        winograd = tuple(zip(kernel, out[2:])) if node.op_type == "Conv" and plain else ()
        found.append(Layer(node.name or node.output[0], size * pixels, 4 * size, winograd))
    return found


def name_of(tiles, kernel):
    if all(m == 1 for m in tiles):
        return "direct"
    return f"winograd {'x'.join(map(str, tiles))} of {'x'.join(map(str, kernel))}"


def algorithms(layer):
    """Names, and what each makes of the multiplies and of the weights' size, as factors."""
    sizes = [[m for m in OUTPUTS if m == 1 or m + k - 1 <= LARGEST_TILE and k > 1]
             for k, _ in layer.winograd]
    for tiles in itertools.product(*sizes):
        products = growth = 1.0
        for m, (k, n) in zip(tiles, layer.winograd):
            products *= -(-n // m) * (m + k - 1) / (n * k)
            growth *= (m + k - 1) / k
        yield name_of(tiles, [k for k, _ in layer.winograd]), products, growth


def bounds(found, gflops, gbytes, batch=1):
    """The best algorithm for each layer and its time, at so many GFLOP/s and GB/s."""
    result = []
    for layer in found:
        times = [(max(2e-6 * layer.multiplies * batch * products / gflops,
                      1e-6 * layer.weight_bytes * growth / gbytes), name)
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
