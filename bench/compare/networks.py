"""How the ONNX files and pictures of ./dev compare's networks are made: the same ones for every
engine."""

import pathlib
import subprocess

import numpy
import onnx

import light
import targets

PICTURES = 2  # that differ; a batch alternates between them
LAST_PASS = "convolutions_to_dense"


def lathe_model(lathe, arguments, path):
    """What `lathe inspect` writes as ONNX."""
    with open(path, "wb") as file:
        subprocess.run([lathe, "inspect", *arguments, "--format", "onnx"], check=True, stdout=file,
                       stderr=subprocess.PIPE, text=True)
    model = onnx.load(path)
    path.unlink()
    return model


def read_model(lathe, name, folder):
    """A bundled network or a light model with calibrated random weights; a file as it is."""
    if name.endswith(".onnx"):
        return onnx.load(name)
    if name.startswith("light_"):
        return light.with_weights(lathe, targets.light_folder() / f"{name}.onnx")
    return lathe_model(lathe, [name, "--seed", "1"], folder / "written.onnx")


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
        self.name = pathlib.Path(name).name
        self.lathe = lathe
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.model = read_model(lathe, name, self.folder)
        make_plain(self.model)
        if len(self.model.graph.input) != 1 or len(self.model.graph.output) != 1:
            raise ValueError("only networks with one input and one output are compared")
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

    def simplified(self, batch):
        """The model as Lathe's passes leave it, for so many pictures."""
        return lathe_model(self.lathe, [self.files(batch)["model"], "--after", LAST_PASS],
                           self.folder / "simplified.onnx")

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
