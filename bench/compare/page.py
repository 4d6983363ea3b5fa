"""The results of ./dev compare as one HTML page that needs nothing else: plots as inline SVG, and
the tables that are printed."""

import html
import itertools
import math

import report
from engines import PEERS

COLOURS = {"lathe": "#d62728", **{name: peer.colour for name, peer in PEERS.items()}}
STRANGER = "#17becf"  # who is not among these, in results of another version
WIDTH, LEFT, RIGHT, ROW, TOP = 960, 240, 30, 26, 30
FARTHEST = 8  # times as slow as Lathe: the edge of a plot

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 3px 10px; border-bottom: 1px solid #ddd; text-align: left; }
th { vertical-align: top; }
td.missed { color: #b00020; } td.ok { color: #18794e; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #222; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin: 0 .3em 0 1em; }
"""


def escape(text):
    return html.escape(str(text))


def colour_of(engine):
    return COLOURS.get(engine, STRANGER)


class Plot:
    """Rows of marks over a common axis."""

    def __init__(self, names, low, high, logarithmic):
        self.low, self.high, self.logarithmic = low, high, logarithmic
        self.height = TOP + ROW * len(names) + 10
        self.parts = []
        for tick in self.ticks():
            self.line(self.x(tick), TOP - 6, self.height - 10, "#ddd")
            self.label(self.x(tick), TOP - 12, f"{tick:g}", "middle")
        for i, name in enumerate(names):
            self.label(LEFT - 10, self.y(i) + 4, name, "end")

    def ticks(self):
        if not self.logarithmic:
            step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
                        if self.high <= 8 * step)
            return [i * step for i in range(int(self.high / step) + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks = [m * 10.0 ** p for p in powers for m in (1, 1.5, 2, 3, 5, 7)]
        return [mark for mark in marks if self.low <= mark <= self.high]

    def x(self, value):
        scale = math.log if self.logarithmic else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    @staticmethod
    def y(row):
        return TOP + ROW * (row + 0.5)

    def line(self, x, top, bottom, colour, width=1):
        self.parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" '
                          f'stroke="{colour}" stroke-width="{width}"/>')

    def label(self, x, y, text, anchor):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
                          f'{escape(text)}</text>')

    def tick(self, row, value, colour):
        self.line(self.x(value), self.y(row) - 9, self.y(row) + 9, colour, 2)

    def dot(self, row, value, colour, title):
        self.parts.append(f'<circle cx="{self.x(value):.1f}" cy="{self.y(row):.1f}" r="5.5" '
                          f'fill="{colour}" fill-opacity=".85"><title>{escape(title)}</title>'
                          '</circle>')

    def bar(self, row, value, colour, title):
        start = self.x(self.low)
        self.parts.append(f'<rect x="{start:.1f}" y="{self.y(row) - 8:.1f}" height="16" '
                          f'width="{self.x(value) - start:.1f}" fill="{colour}">'
                          f'<title>{escape(title)}</title></rect>')

    def svg(self):
        return (f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img">'
                f'{"".join(self.parts)}</svg>')


def latency_plot(rows):
    """Milliseconds in terms of Lathe's: a dot per engine, a tick for the roofline."""
    rows = [row for row in rows if report.median(row, "lathe")]
    if not rows:
        return ""
    names, marks = [], []
    for row in rows:
        ours = report.median(row, "lathe")
        names.append(f"{row['network']}, {report.show_ms(ours)} ms")
        times = {"roofline": row["roofline_ms"]}
        times |= {e: report.median(row, e) for e in row["engines"]}
        marks.append({who: (ms / ours, f"{who}: {report.show_ms(ms)} ms")
                      for who, ms in times.items() if ms})
    values = [share for row in marks for share, _ in row.values()]
    plot = Plot(names, min(values) / 1.1, min(max(values), FARTHEST) * 1.1, True)
    for i, row in enumerate(marks):
        if roof := row.pop("roofline", None):  # nothing, where nothing multiplies
            plot.tick(i, roof[0], "#222")
        for engine, (share, title) in sorted(row.items(), key=lambda item: item[0] == "lathe"):
            plot.dot(i, min(share, FARTHEST), colour_of(engine), title)
    return plot.svg()


def ratio_plot(found):
    """A bar per network, a tick for its target."""
    found = [v for v in found if v["ratio"]]
    if not found:
        return ""
    high = max(max(v["ratio"], v["target"] or 1) for v in found) * 1.05
    plot = Plot([v["network"] for v in found], 0, max(high, 1.5), False)
    for i, v in enumerate(found):
        colour = "#e0a3a3" if v["reached"] is False else "#9fcfb4"
        plot.bar(i, v["ratio"], colour, report.show_ratio(v))
        if v["target"]:
            plot.tick(i, v["target"], "#222")
    plot.line(plot.x(1), TOP - 6, plot.height - 10, "#888")
    return plot.svg()


def kernel_plot(kernels):
    """A bar per kernel: its share of the peak, counting the multiplies of a direct convolution."""
    high = max([100, *(kernel["percent_of_peak"] for kernel in kernels)]) * 1.05
    names = [f"{(kernel['layers'] or [kernel['algorithm']])[0]}, {kernel['median_ms']:.3g} ms"
             for kernel in kernels]
    plot = Plot([name if len(name) < 34 else "…" + name[-33:] for name in names], 0, high, False)
    for i, kernel in enumerate(kernels):
        plot.bar(i, kernel["percent_of_peak"], "#9fc0e0",
                 f"{', '.join(kernel['layers'])}: {kernel['algorithm']}, "
                 f"{kernel['percent_of_peak']:.0f} % of the peak, "
                 f"{kernel['times_roofline']:.2f} times its roofline")
    plot.line(plot.x(100), TOP - 6, plot.height - 10, "#888")
    return plot.svg()


def table(head, lines):
    def cell(text):
        kind = "missed" if text.endswith("MISSED") else "ok" if text.endswith(" ok") else ""
        return f'<td class="{kind}">{escape(text)}</td>'
    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in lines)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def plots(result):
    key = "".join(f'<span class="key" style="background:{colour_of(e)}"></span>{escape(e)}'
                  for e in result["engines"])

    def setting(row):
        return row["batch"], row["threads"]

    for (batch, threads), rows in itertools.groupby(sorted(result["rows"], key=setting), setting):
        found = [v for v in result["verdicts"] if setting(v) == (batch, threads)
                 and v["against"] == "best"]
        where = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
        yield (f"<h2>Latency in terms of Lathe's, {where}</h2>"
               f"<p>{key}; the tick is the roofline. Less is better.</p>{latency_plot(list(rows))}"
               f"<h2>Best peer over Lathe, {where}</h2>"
               f"<p>The tick is the target. More is better.</p>{ratio_plot(found)}")


def kernels(result):
    yield ("<h2>Lathe's kernels, one thread, batch 1</h2><p>Percent of the peak, counting a direct "
           "convolution's multiplies, so that Winograd's algorithm may pass 100.</p>")
    for network, measured in result["kernels"].items():
        yield f"<details><summary>{escape(network)}</summary>{kernel_plot(measured)}</details>"


def page(result):
    tables = "".join(f"<h2>{escape(title)}</h2>{table(*content)}"
                     for title, content in report.sections(result))
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
            f"<title>Lathe and its peers</title><style>{STYLE}</style></head><body>"
            f"<h1>Lathe and its peers</h1><p>{escape(report.machine(result))}</p>"
            f"{''.join(plots(result))}{tables}"
            f"{''.join(kernels(result))}</body></html>\n")
