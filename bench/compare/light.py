"""Gives ONNX's light models, whose weights are all ones, calibrated random weights: those that Lathe
draws for them. Only the numbers come from Lathe; the graphs stay the files' own."""

import pathlib
import subprocess

import numpy
import onnx
import safetensors.numpy

BATCHES = (1, 4)


def name_of(item):
    """The name of an initialiser, or of what a node makes."""
    return item.name if isinstance(item, onnx.TensorProto) else item.output[0]


def with_weights(lathe, path):
    """The model with its weights, initialisers or results of ConstantOfShape, replaced."""
    drawn = safetensors.numpy.load(subprocess.run(
        [lathe, "dump", path, "--random-weights", "--seed", "1", "--emit", "weights"],
        check=True, capture_output=True).stdout)
    model = onnx.load(path)
    for holders in (model.graph.node, model.graph.initializer):
        kept = [item for item in holders if name_of(item) not in drawn]
        del holders[:]
        holders.extend(kept)
    for name, tensor in drawn.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(tensor, name))
    return model


def prepare(lathe, source, folder, only="*"):
    """Writes the models and inputs; returns what agree.py needs to know of each."""
    cases = []
    for path in sorted(pathlib.Path(source).glob(f"{only}.onnx")):
        model = with_weights(lathe, path)
        target = folder / path.name
        onnx.save(model, target)
        known = {tensor.name for tensor in model.graph.initializer}
        image = next(value for value in model.graph.input if value.name not in known)
        shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
        for batch in BATCHES:
            random = numpy.random.default_rng(batch)
            pixels = random.standard_normal([batch, *shape[1:]], dtype=numpy.float32)
            numpy.save(folder / f"{path.stem}-{batch}.npy", pixels)
            cases.append({"model": str(target), "network": path.stem, "opset": 9, "batch": batch,
                          "inputs": {image.name: str(folder / f"{path.stem}-{batch}.npy")},
                          "outputs": {}})
    return cases
