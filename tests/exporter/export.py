"""Exports modules and torchvision's networks to ONNX in every way that torch has, with torch's own
outputs, in the layout of ONNX's tests. Runs where `./dev exports` puts torch."""

import argparse
import fnmatch
import os
import pathlib
import shutil
import traceback
import warnings

import modules
import networks
import numpy
import onnx
import onnxruntime
import torch
import verify
from onnx import numpy_helper

OPSET = 18
# A folder is NAME.WAY; where a way ends in .open, dimension 0 stays open, and there are data of two
# batches. Torch's exporter writes the first two, its older one torchscript.
WAYS = ["unoptimised", "optimised", "torchscript",
        "unoptimised.open", "optimised.open", "torchscript.open"]
OTHER_BATCH = 3
# What the tests keep, of what Lathe supports: ways by kind, all but a few large cases; and some in
# other ways.
STORED = {"modules": ["unoptimised"], "narrow": ["unoptimised.open"]}
NOT_STORED = ["window_mask", "transformer_decoder_layer", "narrow_swin_padded", "narrow_regnet_x",
              "narrow_mnasnet", "narrow_lraspp"]
STORED_TOO = ["narrow_lraspp.torchscript.open", "narrow_inception.optimised", "narrow_vgg.optimised.open",
              "narrow_mobilenet_v2.torchscript", "narrow_deeplabv3.optimised.open", "narrow_fcn.unoptimised",
              "narrow_convnext.optimised.open", "conv2d_same.optimised.open", "sdpa_causal.torchscript.open",
              "interpolate_as.torchscript.open", "set_borders.optimised.open", "chunk.torchscript.open"]


def flat(outputs):
    """The tensors of an output in the order in which they are exported."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in flat(part)]


class Case:
    """A module and its inputs, the same in every run."""

    def __init__(self, name, module, inputs):
        self.name, self.module, self.inputs = name, module, inputs
        self.can_open = any(i.open_batch for i in inputs)

    def tensors(self, batch=None):
        torch.manual_seed(sum(self.name.encode()) + (batch or 0))
        return tuple(i.tensor(batch) for i in self.inputs)

    def write_torchscript(self, paths, is_open, external):
        """Its weights are in the model at any rate."""
        names = [f"input_{i}" for i in range(len(self.inputs))]
        axes = {n: {0: "batch"} for n, i in zip(names, self.inputs) if i.open_batch}
        for path in paths.values():
            torch.onnx.export(self.module, self.tensors(), path, dynamo=False, opset_version=OPSET,
                              input_names=names, dynamic_axes=axes if is_open else None)

    def write_dynamo(self, paths, is_open, external):
        """With optimize=True, torch optimises what it writes with optimize=False; so does this."""
        batch = torch.export.Dim("batch", max=1024)  # without it, x[:, 0] fixes the batch
        shapes = tuple({0: batch} if i.open_batch else None for i in self.inputs)
        program = torch.onnx.export(self.module, self.tensors(), dynamo=True, optimize=False,
                                    opset_version=OPSET, verbose=False,
                                    dynamic_shapes=shapes if is_open else None)
        for way in ("unoptimised", "optimised"):
            if way == "optimised":
                program.optimize()
            if way in paths:
                program.save(paths[way], external_data=external)

    def write_data(self, model, folder, batch=None):
        """Inputs and torch's outputs; whether ONNX Runtime agrees with them, as `check` says."""
        folder.mkdir()
        graph = onnx.load(model, load_external_data=False).graph
        inputs = self.tensors(batch)
        with torch.no_grad():
            outputs = flat(self.module(*(i.clone() for i in inputs)))
        for stem, values, tensors in ("input", graph.input, inputs), ("output", graph.output, outputs):
            if len(values) != len(tensors):
                raise ValueError(f"{len(tensors)} {stem}s, of which the model has {len(values)}")
            for i, (value, tensor) in enumerate(zip(values, tensors)):
                proto = numpy_helper.from_array(tensor.numpy(), value.name)
                (folder / f"{stem}_{i}.pb").write_bytes(proto.SerializeToString())
        if not any(o.isfinite().any() for o in outputs):
            raise ValueError("no output is finite")
        return check(model, inputs, outputs)

    def write_data_sets(self, model, is_open):
        return all([self.write_data(model, model.parent / f"test_data_set_{i}", batch)
                    for i, batch in enumerate([None, OTHER_BATCH] if is_open else [None])])


def check(model, inputs, outputs):
    """Whether ONNX Runtime computes from the model what torch did, or cannot load it. ValueError for
    what torch exported wrongly, such as an open batch that is not open."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception:  # an op or type that it has not
        return True
    feeds = {i.name: tensor.numpy() for i, tensor in zip(session.get_inputs(), inputs)}
    agrees = True
    for found, tensor in zip(session.run(None, feeds), outputs):
        expected = tensor.numpy()
        largest = abs(expected[numpy.isfinite(expected)]).max(initial=0)
        if found.shape != expected.shape:
            raise ValueError(f"ONNX Runtime's output has shape {found.shape}, torch's {expected.shape}")
        agrees &= numpy.allclose(found, expected, 0, 1e-4 * largest, equal_nan=True)
    return agrees


def attempt(work):
    """What it returns and None, or None and the error that began it."""
    try:
        return work(), None
    except Exception as error:  # whatever torch says about what it cannot export
        while error.__cause__:
            error = error.__cause__
        lines = [line for line in str(error).splitlines() if line.strip()]
        return None, f"{type(error).__name__}: {lines[0].strip() if lines else ''}"


def without_remarks(path):
    """Drops what is of no use to a runtime, and most of a small file: stack traces and the like."""
    model = onnx.load(path)
    functions = list(model.functions)
    for thing in [model, model.graph, *functions]:
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for graph in [model.graph, *functions]:
        without_remarks_in(graph)
    onnx.save(model, path)


def without_remarks_in(graph):
    """Of a graph or function, and the graphs in it."""
    values = [] if isinstance(graph, onnx.FunctionProto) else [*graph.input, *graph.output, *graph.initializer]
    for thing in [*graph.node, *graph.value_info, *values]:
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                without_remarks_in(attribute.g)


def export(case, folder, paths, is_open, store):
    """One case in the ways of `paths`, with a fixed or an open batch. Failures go to refused.txt, what
    ONNX Runtime doubts to doubted.txt."""
    dynamo = {way: path for way, path in paths.items() if way != "torchscript"}
    script = {way: path for way, path in paths.items() if way == "torchscript"}
    for mine, write in (dynamo, case.write_dynamo), (script, case.write_torchscript):
        failure = attempt(lambda: write(mine, is_open, external=not store))[1] if mine else None
        for path in mine.values():
            agrees, error = None, failure
            if path.exists():
                agrees, error = attempt(lambda: case.write_data_sets(path, is_open))
            if error or (store and not agrees):
                note(folder, "refused.txt", f"{path.parent.name}: {error or 'doubted'}")
                shutil.rmtree(path.parent)
            elif store:
                without_remarks(path)
            elif not agrees:
                note(folder, "doubted.txt", path.parent.name)


def export_apart(case, folder, ways, is_open, store):
    """The same in a process of its own, since torch crashes on some."""
    paths = {}
    for way in ways:
        here = folder / f"{case.name}.{way}"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        paths[way.removesuffix(".open")] = here / "model.onnx"
    child = os.fork()
    if not child:
        try:
            export(case, folder, paths, is_open, store)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for path in paths.values() if status else []:
        shutil.rmtree(path.parent, ignore_errors=True)
        note(folder, "refused.txt", f"{path.parent.name}: the exporter ends with {status}")


def note(folder, file, line):
    with open(folder / file, "a") as notes:
        notes.write(line + "\n")


def cases(kind, patterns):
    """Of a kind, those with a name that matches, one after the other."""
    table = {"modules": modules.cases, "narrow": networks.narrow, "networks": networks.networks}[kind]()
    for name, row in table.items():
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        torch.manual_seed(sum(name.encode()))
        if kind == "modules":
            module, *inputs = row
            yield Case(name, modules.randomise(module), inputs)
        else:
            module, (height, width) = row()
            yield Case(name, module, [modules.floats(2, 3, height, width)])


def stored(kind, name, lists):
    """The ways in which the tests keep a case."""
    usual = [] if name in NOT_STORED else STORED[kind]
    return [way for way in WAYS if (way in usual or f"{name}.{way}" in STORED_TOO)
            and lists.refusal(f"{name}.{way}") is None]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="*", help="names, with * and ?, separated by commas")
    parser.add_argument("--kinds", default="modules,narrow,networks")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--store", action="store_true", help="only the selection for the tests")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    # What the first export loads, children need not load again.
    torch.onnx.export(torch.nn.Identity(), (torch.zeros(1),), dynamo=True, verbose=False)
    lists = verify.Lists(arguments.folder)
    for kind in STORED if arguments.store else arguments.kinds.split(","):
        for case in cases(kind, arguments.only.split(",")):
            print(case.name, flush=True)
            ways = stored(kind, case.name, lists) if arguments.store else arguments.ways.split(",")
            for is_open in [False, True] if case.can_open else [False]:
                mine = [way for way in ways if way.endswith(".open") == is_open]
                if mine:
                    export_apart(case, arguments.folder, mine, is_open, arguments.store)


if __name__ == "__main__":
    main()
