"""Convolutional networks, compiled for the CPU.

    import lathe
    network = lathe.compile("resnet50.onnx")
    scores = network(picture)            # NumPy or anything with __dlpack__; N,C,H,W

Arrays that are contiguous are read where they lie, results are written where they stay, and the GIL
is free while a network runs or is compiled.
"""

from ._lathe import BindReport, KernelInfo, MemoryUse, TensorInfo, bundled_models, usable_cpus
from ._lathe import version as _version
from .error import Error
from .model import Model, read_picture
from .network import Network, compile
from .predictor import Predictor
from .tables import Benchmark, Profile

__version__ = _version()
__all__ = [
    "Benchmark",
    "BindReport",
    "Error",
    "KernelInfo",
    "MemoryUse",
    "Model",
    "Network",
    "Predictor",
    "Profile",
    "TensorInfo",
    "bundled_models",
    "compile",
    "read_picture",
    "usable_cpus",
]
