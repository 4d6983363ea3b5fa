"""Does Lathe agree with ONNX Runtime, and with torch where a model came from there? Runs models of
both kinds through both, compares before the softmax, and says how far apart they are; then random
variations of single ops (variations.py), and whether the tests' list of attributes is ONNX's."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime

sys.path.append(str(pathlib.Path(__file__).parents[2] / "bench" / "compare"))
import agreement  # noqa: E402
import attributes  # noqa: E402
import light  # noqa: E402
import targets  # noqa: E402
import variations  # noqa: E402

SMALL = {"networks": "squeezenet1_1,shufflenet_v2_x1_0,mobilenet_v2", "opsets": "9,16"}


def before_softmax(path):
    """Ends a model in front of its softmax, in place; returns the output's name."""
    model = onnx.load(path)
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    if last.op_type == "Softmax":
        model.graph.output[0].name = last.input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        model.graph.node.remove(last)
        onnx.save(model, path)
    return model.graph.output[0].name


def run_onnxruntime(case):
    """ONNX Runtime's output; image by image where the file fixes the batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(case["model"], options, ["CPUExecutionProvider"])
    (name, file), = case["inputs"].items()
    pixels = numpy.load(file)
    fixed = session.get_inputs()[0].shape[0]
    step = fixed if isinstance(fixed, int) else len(pixels)
    parts = [session.run(None, {name: pixels[i:i + step]})[0] for i in range(0, len(pixels), step)]
    return numpy.concatenate(parts)


def run_lathe(lathe, case, folder):
    (name, file), = case["inputs"].items()
    target = folder / "lathe.npy"
    subprocess.run([lathe, "run", case["model"], "-i", f"{name}={file}", "-o", target,
                    "--batch", str(case["batch"])], check=True, capture_output=True, text=True)
    return numpy.load(target)


def apart(found, reference):
    """The largest error in terms of the largest value; infinite for what proves nothing."""
    try:
        return agreement.errors(found, reference, softmax=False).largest
    except ValueError:
        return numpy.inf


def judge(case, lathe, folder):
    """Prints a line about one case; whether it is good."""
    before_softmax(case["model"])
    title = f"{case['network']:<26}{case['opset']:>6}{case['batch']:>6}"
    try:
        found = run_lathe(lathe, case, folder)
    except subprocess.CalledProcessError as error:
        print(f"{title}  FAILED: {error.stderr.strip()}")
        return False
    reference = run_onnxruntime(case)
    errors = [apart(found, reference)]
    errors += [apart(found, numpy.load(file)) for file in case["outputs"].values()]
    flat = [part.reshape(case["batch"], -1).argmax(1) for part in (found, reference)]
    same_class = (flat[0] == flat[1]).all()
    good = max(errors) <= agreement.TOLERANCE
    shown = "".join(f"{error:>12.1e}" for error in errors) + " " * 12 * (2 - len(errors))
    print(f"{title}{shown}  {'same' if same_class else 'OTHER'}  {'ok' if good else 'MISMATCH'}")
    return bool(good)


def plan(lathe, model):
    """Kernels, their operands' places and parameters, and the arena; without names and softmax."""
    text = subprocess.run([lathe, "inspect", model, "--memory-plan"], check=True,
                          capture_output=True, text=True).stdout
    lines = [re.sub(r'"[^"]*"|computes [^;]*;', "", line) for line in text.splitlines()]
    end = next((i for i, line in enumerate(lines) if re.search("kernel .* softmax", line)), None)
    return [line for line in lines[:end] if not line.startswith("  out output")
            and "softmax" not in line and not re.search(r"out arena .*1x1000\]", line)]


def judge_plan(case, lathe):
    """Torchvision's ResNet-50 must become the plan of our own description of it."""
    same = plan(lathe, case["model"]) == plan(lathe, "resnet50")
    print(f"{'the plan of resnet50.net':<26}{case['opset']:>6}{'ok' if same else 'MISMATCH':>40}")
    return same


def exported(arguments, folder):
    """Exports one network and opset after the other: the large ones would fill a disk."""
    for network in filter(None, arguments.networks.split(",")):
        for opset in arguments.opsets.split(","):
            with tempfile.TemporaryDirectory(dir=folder) as here:
                script = pathlib.Path(__file__).parent / "export.py"
                export = subprocess.run(
                    [arguments.python_torch, "-W", "ignore", script, here, "--networks", network,
                     "--opsets", opset, "--batches", arguments.batches],
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                if export.returncode:
                    sys.exit(f"the export of {network} at opset {opset} failed:\n{export.stdout}")
                yield from json.loads((pathlib.Path(here) / "index.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lathe", default="build/bin/lathe")
    parser.add_argument("--light", default=targets.light_folder(),
                        help="the folder of ONNX's light models; default: under LATHE_TEST_DATA")
    parser.add_argument("--small", action="store_true", help="a short form for the tests")
    parser.add_argument("--networks", default="alexnet,vgg16,resnet18,resnet50,googlenet,"
                        "inception_v3,squeezenet1_1,densenet121,mobilenet_v2,shufflenet_v2_x1_0")
    parser.add_argument("--opsets", default="9,11,13,16")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--python-torch", default="/usr/bin/python3")
    arguments = parser.parse_args()
    if arguments.small:
        vars(arguments).update(SMALL)
    print(f"{'network':<26}{'opset':>6}{'batch':>6}{'ORT':>12}{'torch':>12}  class")
    verdicts = []
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        if arguments.light:
            only = "*u*enet" if arguments.small else "*"
            for case in light.prepare(arguments.lathe, arguments.light, folder, only):
                verdicts.append(judge(case, arguments.lathe, folder))
        for case in exported(arguments, folder):
            verdicts.append(judge(case, arguments.lathe, folder))
            if case["network"] == "resnet50" and case["batch"] == 1:
                verdicts.append(judge_plan(case, arguments.lathe))
    print(f"{sum(verdicts)} of {len(verdicts)} agree, errors at most {agreement.TOLERANCE} of the "
          "largest value")
    good = [all(verdicts) and bool(verdicts), attributes.check(),
            variations.compare(arguments.lathe, 2 if arguments.small else 50)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
