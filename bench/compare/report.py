"""What the measurements of ./dev compare say: ratios, verdicts, and the tables in which they are
printed. Works on the plain data that also becomes the JSON file."""

import statistics

import targets
from engines import PEERS


def median(row, engine):
    """Milliseconds, or None where the engine took no part."""
    return row["engines"].get(engine, {}).get("median_ms")


def best_peer(row):
    timed = [name for name in PEERS if median(row, name)]
    return min(timed, key=lambda name: median(row, name), default=None)


def ratio(row, peer):
    """The peer's median latency over Lathe's, or None."""
    if not peer or not median(row, peer) or not median(row, "lathe"):
        return None
    return median(row, peer) / median(row, "lathe")


def verdict(row, against, found, target):
    return {"network": row["network"], "threads": row["threads"], "batch": row["batch"],
            "against": against, "ratio": found, "target": target,
            "reached": None if found is None or target is None else found >= target}


def verdicts(rows):
    """One per network and claim: ONNX Runtime with one thread, and the best peer."""
    found = []
    for row in rows:
        target, single = targets.target_of(row["network"]), row["batch"] == 1
        best = best_peer(row)
        if single and row["threads"] == 1:
            found.append(verdict(row, "onnxruntime", ratio(row, "onnxruntime"),
                                 target and target.onnxruntime))
        goal = target and (target.best if single else targets.BATCH_TARGET)
        found.append({**verdict(row, "best", ratio(row, best), goal), "peer": best})
    return found


def means(found):
    """Geometric means over the networks that have a target of their own, batch 1."""
    groups = {}
    for v in found:
        if v["ratio"] and v["network"] in targets.TARGETS and v["batch"] == 1:
            groups.setdefault((v["against"], v["threads"]), []).append(v["ratio"])
    result = []
    for (against, threads), ratios in groups.items():
        mean, target = statistics.geometric_mean(ratios), getattr(targets.MEAN, against)
        result.append({"against": against, "threads": threads, "networks": len(ratios),
                       "ratio": mean, "target": target, "reached": mean >= target})
    return result


# ---- tables: a heading and lines of text ---------------------------------------------------------


def show_ms(milliseconds):
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.4g}" if milliseconds < 1000 else f"{milliseconds:.0f}"


def show_ratio(v):
    """A ratio, its target, and whether it is reached."""
    if v is None or v["ratio"] is None:
        return "-"
    peer = f" ({v['peer']})" if "peer" in v else ""
    if v["target"] is None:
        return f"{v['ratio']:.2f}{peer}"
    return f"{v['ratio']:.2f}{peer}, {v['target']:g} {'ok' if v['reached'] else 'MISSED'}"


def latency_table(rows, engines):
    head = ["network", "batch", "threads", *engines, "roofline", "roofline / Lathe"]
    lines = []
    for row in rows:
        ours = median(row, "lathe")
        share = f"{100 * row['roofline_ms'] / ours:.0f} %" if ours else "-"
        lines.append([row["network"], str(row["batch"]), str(row["threads"]),
                      *(show_ms(median(row, e)) for e in engines), show_ms(row["roofline_ms"]),
                      share])
    return head, lines


def verdict_table(found):
    """What must be reached: network by network, then the means."""
    threads = sorted({v["threads"] for v in found})

    def line(title, claims):
        known = {(v["against"], v["threads"]): v for v in claims}
        return [title, show_ratio(known.get(("onnxruntime", 1))),
                *(show_ratio(known.get(("best", t))) for t in threads)]

    head = ["network", "ONNX Runtime / Lathe, 1 thread",
            *(f"best peer / Lathe, {t} thread{'s' * (t > 1)}" for t in threads)]
    lines = []
    for network, batch in dict.fromkeys((v["network"], v["batch"]) for v in found):
        claims = [v for v in found if (v["network"], v["batch"]) == (network, batch)]
        lines.append(line(network + f", batch {batch}" * (batch > 1), claims))
    lines.append(line("geometric mean, batch 1, of the networks that have a target", means(found)))
    return head, lines


def start_table(rows, engines):
    """From the model's file, in the page cache, to the first answer."""
    lines = []
    for row in rows:
        cells = [row["engines"].get(e, {}) for e in engines]
        lines.append([row["network"], str(row["batch"]), str(row["threads"]),
                      *(show_ms(c["load_ms"] + c["first_run_ms"]) if "first_run_ms" in c else "-"
                        for c in cells)])
    return ["network", "batch", "threads", *engines], lines


def memory_table(rows, engines):
    """What a process had in memory at most, until its first answer."""
    return ["network", "batch", "threads", *engines], [
        [row["network"], str(row["batch"]), str(row["threads"]),
         *(f"{row['engines'][e]['peak_rss_bytes'] / 1e6:.0f}"
           if row["engines"].get(e, {}).get("peak_rss_bytes") else "-" for e in engines)]
        for row in rows]


def error_table(rows, engines):
    """Largest and RMS error against the float64 reference, in terms of its largest value."""
    lines = []
    for row in rows:
        cells = [row["engines"].get(e, {}) for e in engines]
        lines.append([row["network"], str(row["batch"]), str(row["threads"]),
                      *(f"{c['largest_error']:.0e}, {c['rms_error']:.0e}"
                        if "largest_error" in c else "-" for c in cells)])
    return ["network", "batch", "threads", *engines], lines


def roofline_table(rows):
    return (["network", "batch", "threads", "GFLOP/s", "GB/s", "ms", "of it"],
            [[row["network"], str(row["batch"]), str(row["threads"]), f"{row['peak_gflops']:.0f}",
              f"{row['bandwidth_gbytes']:.0f}", show_ms(row["roofline_ms"]),
              ", ".join(f"{100 * ms / row['roofline_ms']:.0f} % {name}"
                        for name, ms in row["roofline_mix_ms"].items() if ms)] for row in rows])


def engine_table(result):
    return (["engine", "version", "settings"],
            [[name, about.get("version", "-"), about.get("settings", "-")]
             for name, about in result["engines"].items()])


def absence_table(rows):
    """Who was not timed on what, and why."""
    places = {}
    for row in rows:
        for name, entry in row["engines"].items():
            if "reason" in entry:
                place = f"{row['network']} (batch {row['batch']}, {row['threads']} threads)"
                places.setdefault((name, entry["reason"]), []).append(place)
    return (["engine", "networks", "reason"],
            [[name, ", ".join(where), reason] for (name, reason), where in places.items()])


def sections(result):
    """Titles and tables of a whole report."""
    rows, engines = result["rows"], list(result["engines"])
    yield "Engines, in turns, each pinned to as many CPUs as it has threads", engine_table(result)
    yield "Median milliseconds per run", latency_table(rows, engines)
    yield ("Roofline: every layer at the peak or the bandwidth that were measured in the same run, "
           "with the algorithm that is best for it", roofline_table(rows))
    yield ("A peer's median over Lathe's, and its target", verdict_table(result["verdicts"]))
    yield ("Milliseconds from the model's file to the first answer", start_table(rows, engines))
    yield ("Megabytes in memory at most until the first answer, with Python (some 40) for all but "
           "Lathe",
           memory_table(rows, engines))
    yield ("Largest and RMS error against float64, in terms of the largest score",
           error_table(rows, engines))
    if any("reason" in entry for row in rows for entry in row["engines"].values()):
        yield "Not timed", absence_table(rows)
    if result["failures"]:
        yield "Failed", (["what", "reason"], [list(item) for item in result["failures"].items()])


def machine(result):
    about, settings = result["machine"], result["settings"]
    return (f"{about['processor']}, {about['cpus']} CPUs, {about['system']}; {settings['rounds']} "
            f"rounds of {settings['seconds']} s per engine")


def markdown(head, lines):
    """Legible as it stands, too."""
    cells = [head, *lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]

    def row(line):
        return f"| {' | '.join(text.ljust(w) for text, w in zip(line, widths))} |".rstrip()

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([row(head), rule, *map(row, lines)])


def text(result):
    return "\n".join([machine(result)] + [f"\n{title}:\n\n{markdown(*table)}"
                                         for title, table in sections(result)])
