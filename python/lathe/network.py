"""Compiled networks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _lathe
from ._lathe import KernelInfo, MemoryUse, TensorInfo
from .model import Model
from .tables import Benchmark, Profile


def compile(
    model: str | os.PathLike[str] | Model,
    *,
    threads: int = 0,
    target: str = "native",
    numerics: str = "fast",
    weight_budget: float = 1.5,
    memory_limit: int = 0,
    max_batch: int = 1,
    compile_memory: int = 0,
    time_limit: float = 3600,
    tune: bool = False,
    cache_dir: str | os.PathLike[str] = "",
    cache_bytes: int = 4 << 30,
    disabled_passes: Sequence[str] = (),
    copy_weights: bool = False,
    **load: Any,
) -> Network:
    """Compiles a file, a bundled network's name, or a Model.

    threads: 0 for as many CPUs as this process may use.
    numerics: "strict" for direct sums only, IEEE 754's infinities, and NaN as NumPy has it.
    weight_budget: what transformed weights may add, as a multiple of the model's own, or of
        2 MiB if it has fewer.
    memory_limit: bytes that one run of `max_batch` images may take, weights included; 0: none.
    compile_memory: bytes that loading and compiling may work in; 0: as much as any real network
        needs, less under a memory_limit.
    time_limit: seconds to load and compile; 0: none.
    tune: measure algorithms on this machine instead of estimating them.
    cache_dir: where compiled networks are kept between processes.
    copy_weights: copy all weights to memory. Otherwise some are used where they lie in a mapped
        file, which must then neither be overwritten nor cut short (SIGBUS) while the network lives;
        replacing it by renaming another is fine.
    load: as for Model.load.
    """
    if not isinstance(model, Model):
        model = Model.load(model, compile_memory=compile_memory, time_limit=time_limit, **load)
    elif load:
        raise TypeError(f"a Model is loaded already: {', '.join(load)}")
    return Network(
        _lathe.compile(
            model._handle,
            threads,
            target,
            numerics,
            weight_budget,
            memory_limit,
            max_batch,
            compile_memory,
            time_limit,
            tune,
            os.fspath(cache_dir),
            cache_bytes,
            list(disabled_passes),
            copy_weights,
        ),
        model.name,
    )


class Network:
    """Immutable; may be called from any number of threads at once."""

    def __init__(self, handle: _lathe.Executable, name: str) -> None:
        self._handle = handle
        self._idle: list[tuple[int, _lathe.Request]] = []  # requests that nobody uses now
        self.name = name

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Runs it once. Inputs in order or by name, dimension 0 being the number of images.

        Returns the output, or a tuple of them, as new NumPy arrays.
        """
        outputs = self.run(self._bind(arrays, named))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any] | None = None) -> list[Any]:
        """The same for a list with every input; results go into `outputs`, if they are given.

        Outputs are writable arrays of the results' shapes and types; results are written where they
        lie, or, into those that have strides or overlap an input, copied afterwards.
        """
        arrays = [self._as_input(i, x) for i, x in enumerate(inputs)]
        if len(arrays) != len(self.inputs):
            raise TypeError(f"{self.name} takes {len(self.inputs)} inputs, not {len(arrays)}")
        images = self._images(arrays)
        shapes = [self._shape(info, images) for info in self.outputs]
        results: list[Any] = [None] * len(shapes) if outputs is None else list(outputs)
        views = self._views(results, shapes) if outputs is not None else results
        direct = [y is not None and _is_dense_and_apart(y, arrays) for y in views]
        for info, y, in_place in zip(self.outputs, results, direct):
            if not in_place and y is not None and not isinstance(y, np.ndarray):
                raise ValueError(
                    f"{self.name}: the memory for the output {info.name!r} must be dense and"
                    " apart from the inputs"
                )
        written = [
            y if in_place else np.empty(shape, info.dtype)
            for info, shape, y, in_place in zip(self.outputs, shapes, results, direct)
        ]
        request = self._take(images)
        for i, x in enumerate(arrays):
            request.bind_input(i, x)
        for j, y in enumerate(written):
            request.bind_output(j, y)
        request.run()
        self._idle.append((images, request))
        if outputs is None:
            return written
        for y, result in zip(results, written):
            if y is not result:
                np.copyto(y, result)
        return results

    @property
    def inputs(self) -> list[TensorInfo]:
        """With the shapes of one image."""
        return self._handle.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        return self._handle.outputs

    @property
    def kernels(self) -> list[KernelInfo]:
        return self._handle.kernels

    @property
    def target(self) -> str:
        return self._handle.target

    @property
    def compile_ms(self) -> float:
        return self._handle.compile_ms

    @property
    def cached(self) -> bool:
        """Whether code and weights came from the cache."""
        return self._handle.cached

    def memory(self, images: int = 1, threads: int = 0) -> MemoryUse:
        """Bytes that one run takes, exactly; threads: 0 for those it was compiled for."""
        return self._handle.memory(images, threads)

    def benchmark(self, images: int = 1, seconds: float = 1.0) -> Benchmark:
        """Latencies of runs on random input."""
        request, _inputs = self._prepared(images)
        milliseconds: list[float] = []
        end = time.perf_counter() + seconds
        while not milliseconds or time.perf_counter() < end:
            start = time.perf_counter()
            request.run()
            milliseconds.append(1e3 * (time.perf_counter() - start))
        return Benchmark(self.name, images, milliseconds)

    def profile(self, images: int = 1, runs: int = 20) -> Profile:
        """What every kernel takes: the median of several runs on random input."""
        request, _inputs = self._prepared(images)
        timed = [request.run_timed(len(self.kernels)) for _ in range(runs)]
        medians = np.median(np.asarray(timed), axis=0)
        return Profile(self.name, images, self.kernels, [float(ms) for ms in medians])

    def __repr__(self) -> str:
        return f"<lathe.Network {self.name!r} for {self.target}: {self.inputs} -> {self.outputs}>"

    def _prepared(self, images: int) -> tuple[_lathe.Request, list[np.ndarray]]:
        """A request, and the random inputs that it reads, which must live as long."""
        request = self._handle.request(images)
        random = np.random.default_rng(0)
        arrays = [
            random.standard_normal(self._shape(info, images)).astype(info.dtype)
            for info in self.inputs
        ]
        for i, x in enumerate(arrays):
            request.bind_input(i, x)
        for _ in range(3):
            request.run()
        return request, arrays

    def _bind(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        names = [info.name for info in self.inputs]
        if len(arrays) > len(names):
            raise TypeError(f"{self.name} takes {len(names)} inputs, not {len(arrays)}")
        given = dict(zip(names, arrays))
        for name, array in named.items():
            if name not in names or name in given:
                raise TypeError(f"{self.name} has the inputs {', '.join(names)}; found {name!r}")
            given[name] = array
        missing = [name for name in names if name not in given]
        if missing:
            raise TypeError(f"{self.name} lacks the inputs {', '.join(missing)}")
        return [given[name] for name in names]

    def _as_input(self, i: int, x: Any) -> np.ndarray:
        info = self.inputs[i]
        if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
            x = np.from_dlpack(x)
        array = np.asarray(x)
        if array.dtype != info.dtype:
            array = array.astype(info.dtype, casting="same_kind")
        return np.require(array, requirements=["C", "A"])

    def _views(
        self, outputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]
    ) -> list[np.ndarray]:
        """The given outputs as NumPy sees them, or an error that says why results cannot go there."""
        if len(outputs) != len(self.outputs):
            raise TypeError(f"{self.name} has {len(self.outputs)} outputs, not {len(outputs)}")
        views: list[np.ndarray] = []
        for info, shape, y in zip(self.outputs, shapes, outputs):
            foreign = not isinstance(y, np.ndarray)
            view = np.from_dlpack(y) if foreign and hasattr(y, "__dlpack__") else y
            what = f"{self.name}: the array for the output {info.name!r}"
            if not isinstance(view, np.ndarray):
                raise TypeError(f"{what} is no array: found {type(y).__name__}")
            if view.dtype != info.dtype:
                raise TypeError(f"{what} holds {info.dtype}; found {view.dtype}")
            if view.shape != shape:
                raise ValueError(f"{what} has the shape {shape}; found {view.shape}")
            if not foreign and not view.flags.writeable:  # views of foreign arrays never are
                raise ValueError(f"{what} is read-only")
            if any(stride == 0 and n > 1 for stride, n in zip(view.strides, view.shape)):
                raise ValueError(f"{what} has elements that share memory")
            if any(_overlap(view, other) for other in views):
                raise ValueError(f"{what} overlaps that for another output")
            views.append(view)
        return views

    def _images(self, arrays: Sequence[np.ndarray]) -> int:
        images = arrays[0].shape[0] if self._handle.batched and arrays[0].ndim else 1
        for info, array in zip(self.inputs, arrays):
            if array.shape != self._shape(info, images):
                shape = "x".join(str(n) for n in info.shape)
                free = ", with any number of images in front" if self._handle.batched else ""
                raise ValueError(
                    f"{self.name}: the input {info.name!r} has the shape {shape}{free};"
                    f" found {'x'.join(str(n) for n in array.shape) or 'a scalar'}"
                )
        return images

    def _shape(self, info: TensorInfo, images: int) -> tuple[int, ...]:
        return (images, *info.shape[1:]) if self._handle.batched else tuple(info.shape)

    def _take(self, images: int) -> _lathe.Request:
        """An idle request for so many images, or a new one; list operations are atomic."""
        try:
            idle_images, request = self._idle.pop()
        except IndexError:
            return self._handle.request(images)
        return request if idle_images == images else self._handle.request(images)


def _is_dense_and_apart(array: np.ndarray, inputs: Sequence[np.ndarray]) -> bool:
    dense = array.flags.c_contiguous and array.flags.aligned
    return dense and not any(_overlap(array, x) for x in inputs)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except RuntimeError:  # too hard to tell
        return True
