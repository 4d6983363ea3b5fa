"""The networks of ./dev compare, what Lathe shall reach on each, and how their ONNX files and
pictures are made: the same ones for every engine."""

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import numpy
import onnx

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tests" / "agree"))
import light  # noqa: E402: how ONNX's light models get weights


@dataclass(frozen=True)
class Target:
    """Floors of a peer's latency over Lathe's: of ONNX Runtime's with one thread, of the best."""
    onnxruntime: float
    best: float


TARGETS = {
    "lenet5": Target(2.5, 1.5),
    "alexnet": Target(1.7, 1.1),
    "vgg16": Target(2.1, 1.15),
    "resnet18": Target(1.6, 1.35),
    "resnet50": Target(1.3, 1.25),
    "resnet152": Target(1.35, 1.3),
    "nin": Target(1.4, 1.25),
    "googlenet": Target(3.0, 1.7),
    "inception_v3": Target(1.3, 1.25),
    "squeezenet1_1": Target(1.3, 1.25),
    "densenet121": Target(1.3, 1.25),
}
# ONNX's own files of some of them.
LIGHT = {"light_bvlc_alexnet": "alexnet", "light_resnet50": "resnet50",
         "light_inception_v1": "googlenet", "light_densenet121": "densenet121"}
MEAN = Target(1.75, 1.4)
BATCHED = ["vgg16", "resnet50", "googlenet"]
BATCH_TARGET = 1.2  # of the best peer's throughput
PICTURES = 2  # that differ; a batch alternates between them


def light_folder():
    """Where ONNX's light models are, if this machine has them."""
    data = os.environ.get("LATHE_TEST_DATA")
    return pathlib.Path(data) / "onnx-light" if data else None


def default_names():
    return list(TARGETS) + (list(LIGHT) if light_folder() else [])


def target_of(name):
    """None for a network that nobody set a target for."""
    return TARGETS.get(LIGHT.get(name, name))


def read_model(lathe, name, folder):
    """A bundled network or a light model with calibrated random weights; a file as it is."""
    if name.endswith(".onnx"):
        return onnx.load(name)
    if name.startswith("light_"):
        if not light_folder():
            raise SystemExit(f"{name}: LATHE_TEST_DATA is not set")
        return light.with_weights(lathe, light_folder() / f"{name}.onnx")
    path = folder / "written.onnx"
    with open(path, "wb") as file:
        subprocess.run([lathe, "inspect", name, "--format", "onnx", "--seed", "1"], check=True,
                       stdout=file, stderr=subprocess.DEVNULL)
    model = onnx.load(path)
    path.unlink()
    return model


def make_plain(model):
    """Leaves as inputs only what is none of the weights (which old files list too, and which would
    then be no constants to an engine), and as operator sets those in use."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # since which weights need not be inputs
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)


def set_batch(model, batch):
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]


class Case:
    """One network: its files, and what its outputs should be."""

    def __init__(self, name, lathe, folder):
        self.name = pathlib.Path(name).stem
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.model = read_model(lathe, name, self.folder)
        make_plain(self.model)
        if len(self.model.graph.input) != 1 or len(self.model.graph.output) != 1:
            raise SystemExit(f"{name}: only networks with one input and one output are compared")
        shape = [d.dim_value for d in self.model.graph.input[0].type.tensor_type.shape.dim]
        self.pictures = numpy.random.default_rng(1).standard_normal([PICTURES, *shape[1:]],
                                                                    dtype=numpy.float32)
        maker = {name: node.op_type for node in self.model.graph.node for name in node.output}
        self.softmax = maker[self.model.graph.output[0].name] == "Softmax"
        self.reference = None

    def files(self, batch):
        """The model and the input for so many pictures."""
        model, pixels = (self.folder / f"{self.name}-{batch}{end}" for end in (".onnx", ".npy"))
        if not model.exists():
            set_batch(self.model, batch)
            onnx.save(self.model, model)
            numpy.save(pixels, self.alternate(self.pictures, batch))
        return {"model": model, "input": pixels}

    def evaluate(self, engine):
        """Lets Lathe's evaluator compute the reference, picture by picture."""
        model, outputs = self.files(1)["model"], []
        for i, picture in enumerate(self.pictures):
            source, target = (self.folder / f"{what}-{i}.npy" for what in ("picture", "reference"))
            numpy.save(source, picture[None])
            engine.ask("reference", model=model, input=source, output=target, patience=3600)
            outputs.append(numpy.load(target)[0])
        self.reference = numpy.stack(outputs)

    def expected(self, batch):
        return self.alternate(self.reference, batch)

    @staticmethod
    def alternate(rows, batch):
        return rows[numpy.arange(batch) % len(rows)]
