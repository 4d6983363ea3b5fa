"""Models before they are compiled, and the pictures that go into them."""

from __future__ import annotations

import os
import warnings as _warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _lathe
from ._lathe import BindReport, TensorInfo

Path = "str | os.PathLike[str]"


class Model:
    """A network with its weights. `Model.load` reads one, `Model.parse` takes its bytes."""

    def __init__(self, handle: _lathe.Model) -> None:
        self._handle = handle

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        partial_weights: bool = False,
        ignore_unused_weights: bool = False,
        seed: int | None = None,
        batch: int = 1,
        shapes: Mapping[str, Sequence[int]] | None = None,
        values: Mapping[str, Any] | None = None,
        parameters: Mapping[str, float] | None = None,
        compile_memory: int = 0,
        time_limit: float = 3600,
    ) -> Model:
        """A file (.net, .onnx), or the name of a bundled network.

        weights: a safetensors file, or arrays by name, instead of the model's own; the two options
            beside it are those of bind_weights.
        seed: random weights for layers that have none.
        batch, shapes, values: ONNX: images where the file leaves dimension 0 open; shapes of
            inputs; values of inputs that decide shapes.
        parameters: .net: "classes" for one.
        compile_memory, time_limit: as for compile; for reading, and for random weights.
        """
        options = _load_options(batch, shapes, values, parameters)
        made = cls(_lathe.Model.load(os.fspath(model), *options, compile_memory, time_limit))
        made._warn()
        if weights is not None:
            made.bind_weights(
                weights, partial=partial_weights, ignore_unused=ignore_unused_weights
            )
        if seed is not None:
            made.randomise_weights(seed)
        return made

    @classmethod
    def parse(
        cls,
        data: bytes,
        format: str = "onnx",
        *,
        batch: int = 1,
        shapes: Mapping[str, Sequence[int]] | None = None,
        values: Mapping[str, Any] | None = None,
        parameters: Mapping[str, float] | None = None,
        compile_memory: int = 0,
        time_limit: float = 3600,
    ) -> Model:
        """The bytes of an ONNX file, or the text of a .net file; no other file is read."""
        options = _load_options(batch, shapes, values, parameters)
        made = cls(_lathe.Model.parse(data, format, *options, compile_memory, time_limit))
        made._warn()
        return made

    def bind_weights(
        self,
        weights: str | os.PathLike[str] | Mapping[str, Any],
        *,
        partial: bool = False,
        ignore_unused: bool = False,
    ) -> BindReport:
        """Weights from a safetensors file, or arrays by name, in place of those that there are.

        partial: weights that are not given stay as they are; otherwise all must be given.
        ignore_unused: arrays that no weight is named after are no errors. What checkpoints carry
            along (num_batches_tracked, auxiliary heads) is ignored in any case.
        Returns the names that were not used (unused), and those of weights that were not given:
        kept as they were (kept), or without numbers still (missing).
        """
        if isinstance(weights, Mapping):
            arrays = {name: _as_weight(value) for name, value in weights.items()}
            return self._handle.bind_weights(arrays, partial, ignore_unused)
        return self._handle.bind_weights_file(os.fspath(weights), partial, ignore_unused)

    def randomise_weights(self, seed: int = 0) -> None:
        """Weights under which signals neither fade nor explode; those that there are stay."""
        self._handle.randomise_weights(seed)

    def with_outputs(self, *names: str) -> Model:
        """The same network, whose outputs are the results of these layers."""
        made = Model(self._handle.copy())
        made._handle.set_outputs(list(names))
        return made

    @property
    def name(self) -> str:
        return self._handle.name

    @property
    def inputs(self) -> list[TensorInfo]:
        return self._handle.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        return self._handle.outputs

    @property
    def layers(self) -> list[str]:
        return self._handle.layers

    def _warn(self) -> None:
        for warning in self._handle.warnings:
            _warnings.warn(warning, stacklevel=3)

    def __repr__(self) -> str:
        return f"<lathe.Model {self.name!r}: {self.inputs} -> {self.outputs}>"


def _as_weight(value: Any) -> np.ndarray:
    """As a file's tensor would be read: all floats become float32."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    return np.require(array, requirements=["C", "A"])


def _load_options(batch, shapes, values, parameters):
    return (
        batch,
        {name: list(shape) for name, shape in (shapes or {}).items()},
        {name: np.ascontiguousarray(value) for name, value in (values or {}).items()},
        {name: float(value) for name, value in (parameters or {}).items()},
    )


def read_picture(
    file: str | os.PathLike[str], preset: str, shape: Sequence[int]
) -> np.ndarray:
    """A picture as an input of shape 1,C,H,W, as the preset's training prepared its own.

    preset: "torchvision", "torchvision-v2", "caffe-bgr", "fashion-mnist" or "raw".
    """
    picture = np.empty(tuple(shape), np.float32)
    _lathe.read_picture(os.fspath(file), preset, picture)
    return picture
