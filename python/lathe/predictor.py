"""A predictor that data-parallel frameworks can send to their workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .network import Network, compile


class Predictor:
    """Predictor(model, **options)(arrays by name) -> arrays by name; options as for compile.

    Pickles as the model's path and the options: each process compiles at first use, which a cache_dir
    makes quick. Rows of the arrays are images, as Ray Data, Spark and Dask hand them out; an array
    without the batch dimension's shape behind it is reshaped to the input's.
    """

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        self.model = os.fspath(model)
        self.options = options
        self._network: Network | None = None

    @property
    def network(self) -> Network:
        if self._network is None:
            self._network = compile(self.model, **self.options)
        return self._network

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        network = self.network
        names = [info.name for info in network.inputs]
        if len(names) == 1 and len(batch) == 1:
            arrays = list(batch.values())  # there is nothing to confuse
        else:
            missing = [name for name in names if name not in batch]
            if missing:
                raise KeyError(f"no {', '.join(missing)} among {', '.join(batch)}")
            arrays = [batch[name] for name in names]
        shaped = [
            np.asarray(array).reshape(-1, *info.shape[1:])
            for info, array in zip(network.inputs, arrays)
        ]
        results = network.run(shaped)
        return {info.name: array for info, array in zip(network.outputs, results)}

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "options": self.options, "_network": None}
