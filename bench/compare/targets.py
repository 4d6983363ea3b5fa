"""The networks of ./dev compare that have a target, and what Lathe shall reach on them."""

import os
import pathlib
from dataclasses import dataclass


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
# ONNX's own files of some of them: the same targets, but no part in the means.
LIGHT = {"light_bvlc_alexnet": "alexnet", "light_resnet50": "resnet50",
         "light_inception_v1": "googlenet", "light_densenet121": "densenet121"}
MEAN = Target(1.75, 1.4)
BATCHED = ["vgg16", "resnet50", "googlenet"]
BATCH_TARGET = 1.2  # of the best peer's throughput


def target_of(name):
    """None for a network that nobody set a target for."""
    return TARGETS.get(LIGHT.get(name, name))


def light_folder():
    """Where ONNX's light models are, if this machine has them."""
    data = os.environ.get("LATHE_TEST_DATA")
    folder = pathlib.Path(data) / "onnx-light" if data else None
    return folder if folder and folder.is_dir() else None


def default_names():
    return list(TARGETS) + (list(LIGHT) if light_folder() else [])
