"""What was measured, as objects that a notebook shows as tables."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ._lathe import KernelInfo


class Table:
    """Something with a title, and rows under headings."""

    def title(self) -> str:
        raise NotImplementedError

    def headings(self) -> list[str]:
        raise NotImplementedError

    def rows(self) -> list[list[str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        lines = [self.headings(), *self.rows()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([self.title(), *text])

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(line(row, "td") for row in self.rows())
        caption = html.escape(self.title())
        head = line(self.headings(), "th")
        return f"<table><caption>{caption}</caption>{head}{body}</table>"


@dataclass
class Benchmark(Table):
    model: str
    images: int
    milliseconds: list[float]  # of every run, in order

    @property
    def median_ms(self) -> float:
        return statistics.median(self.milliseconds)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def images_per_second(self) -> float:
        return 1e3 * self.images / self.median_ms

    def title(self) -> str:
        return f"{self.model}: {len(self.milliseconds)} runs of {self.images}"

    def headings(self) -> list[str]:
        return ["min ms", "median ms", "p90 ms", "p99 ms", "images/s"]

    def rows(self) -> list[list[str]]:
        times = [min(self.milliseconds), self.median_ms, self.percentile(90), self.percentile(99)]
        return [[f"{t:.4g}" for t in times] + [f"{self.images_per_second:.4g}"]]


@dataclass
class Profile(Table):
    model: str
    images: int
    kernels: list[KernelInfo]
    milliseconds: list[float]  # of each kernel: the median of several runs

    @property
    def total_ms(self) -> float:
        return sum(self.milliseconds)

    def title(self) -> str:
        return f"{self.model}: {self.total_ms:.4g} ms in {len(self.kernels)} kernels"

    def headings(self) -> list[str]:
        return ["layers", "algorithm", "shapes", "ms", "share", "GFLOP/s"]

    def rows(self) -> list[list[str]]:
        return [
            [
                k.layers[0] + (f" +{len(k.layers) - 1}" if len(k.layers) > 1 else "")
                if k.layers
                else "",
                k.algorithm,
                k.shapes,
                f"{ms:.4g}",
                f"{100 * ms / self.total_ms:.1f} %",
                f"{1e-6 * k.flops * self.images / ms:.4g}" if k.flops and ms else "",
            ]
            for k, ms in zip(self.kernels, self.milliseconds)
        ]
