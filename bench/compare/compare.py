"""./dev compare: the same ONNX files, weights and inputs through Lathe and its peers. Outputs are
compared before anything is timed; rounds go from engine to engine; threads are pinned."""

import argparse
import contextlib
import json
import pathlib
import platform
import statistics
import sys
import tempfile

import numpy

import agreement
import engines
import networks
import page
import report
import roofline

QUICK = {"rounds": 3, "seconds": 0.1, "batches": [1]}
HOPELESS = 10  # times as slow as the fastest: not measured again after the first round
MOST = 1000  # runs in a round


def say(text):
    print(text, file=sys.stderr, flush=True)


def join(engine, case, batch, folder):
    """Loads the network and looks at what comes out: an entry of the results. EngineError or
    ValueError if it proves nothing or is wrong."""
    entry = engine.ask("load", threads=engine.threads, **case.files(batch),
                       **({} if engine.name == "lathe" else {"folder": engine.folder}))
    output = folder / f"{engine.name}.npy"
    engine.ask("output", output=output)
    errors = agreement.errors(numpy.load(output), case.expected(batch), case.softmax)
    if errors.largest > agreement.TOLERANCE:
        raise engines.EngineError(f"disagrees with the reference: error {errors.largest:.1e}")
    return {**entry, "largest_error": errors.largest, "rms_error": errors.rms}


def measure(case, threads, batch, options, folder):
    """One row of the results: all engines on one network, threads and batch."""
    layers = roofline.layers(case.model)
    entries, running, samples, peaks = {}, {}, {}, []
    with contextlib.ExitStack() as stack:
        def start(name, place):
            return stack.enter_context(engines.Engine(name, threads, options.worker, place))
        for name in options.engines:
            try:
                running[name] = start(name, folder / name)
                entries[name] = join(running[name], case, batch, folder)
            except (engines.EngineError, ValueError) as error:
                entries[name] = {"reason": str(error)}
                running.pop(name).close()
        yardstick = start("lathe", folder / "yardstick")
        weights = sum(layer.weight_bytes for layer in layers)
        for _ in range(options.rounds):
            peaks.append(yardstick.ask("machine", threads=threads, bytes=max(weights, 1 << 16)))
            for name, engine in running.items():
                samples.setdefault(name, []).extend(engine.ask(
                    "time", seconds=options.seconds, least=options.least, most=MOST)["ms"])
            fastest = min((statistics.median(s) for s in samples.values()), default=0)
            running = {name: engine for name, engine in running.items()
                       if statistics.median(samples[name]) <= HOPELESS * fastest}
    for name, ms in samples.items():
        entries[name].update(median_ms=statistics.median(ms), min_ms=min(ms), runs=len(ms))
    gflops, gbytes = (max(p[unit] for p in peaks) for unit in ("gflops", "gbytes"))
    return {"network": case.name, "threads": threads, "batch": batch, "peak_gflops": gflops,
            "bandwidth_gbytes": gbytes,
            "roofline_ms": roofline.roofline(layers, gflops, gbytes, batch), "engines": entries}


def show(row):
    cells = [f"{name} {report.show_ms(entry.get('median_ms'))}"
             for name, entry in row["engines"].items()]
    say(f"{row['network']}, batch {row['batch']}, {row['threads']} threads: "
        f"roofline {report.show_ms(row['roofline_ms'])}, {', '.join(cells)} ms "
        f"({row['peak_gflops']:.0f} GFLOP/s, {row['bandwidth_gbytes']:.0f} GB/s)")


def compare(options, folder):
    """All rows, network by network; each network's files are gone before the next one's come."""
    rows = []
    for name in options.networks:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            place = pathlib.Path(place)
            say(f"{name}: making its files and the reference")
            case = networks.Case(name, options.lathe, place / "files")
            with engines.Engine("lathe", 1, options.worker, place / "evaluator") as evaluator:
                case.evaluate(evaluator)
            for batch in options.batches:
                if batch > 1 and case.name not in networks.BATCHED:
                    continue
                for threads in options.threads:
                    with tempfile.TemporaryDirectory(dir=place) as here:
                        rows.append(measure(case, threads, batch, options, pathlib.Path(here)))
                    show(rows[-1])
    return rows


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def summary(rows, options):
    """What becomes the JSON file."""
    described = {}
    for row in rows:
        for name, entry in row["engines"].items():
            known = {key: entry.pop(key) for key in ("version", "settings") if key in entry}
            described.setdefault(name, {}).update(known)
    found = report.verdicts(rows)
    return {"machine": {"processor": processor(), "system": platform.platform(),
                        "cpus": options.cpus},
            "settings": {"rounds": options.rounds, "seconds": options.seconds},
            "engines": described, "rows": rows, "verdicts": found, "means": report.means(found)}


def listed(kind=str):
    return lambda text: [kind(word) for word in text.split(",") if word]


def parse(arguments):
    parser = argparse.ArgumentParser(prog="dev compare", description=__doc__)
    cpus = engines.usable_cpus()
    parser.add_argument("--networks", type=listed(), default=networks.default_names(),
                        help="bundled ones, light_... or .onnx files; default: those with a target")
    parser.add_argument("--engines", type=listed(), default=engines.NAMES,
                        help=f"default: {','.join(engines.NAMES)}")
    parser.add_argument("--threads", type=listed(int), default=[t for t in (1, 2) if t <= cpus])
    parser.add_argument("--batch", dest="batches", type=listed(int), default=[1, 16],
                        help=f"default: 1,16; more than 1 only for {', '.join(networks.BATCHED)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of an engine in a round")
    parser.add_argument("--least", type=int, default=3, help="runs of an engine in a round")
    parser.add_argument("--quick", action="store_true", help="short rounds, batch 1")
    parser.add_argument("--json", type=pathlib.Path, default="build/compare.json")
    parser.add_argument("--html", type=pathlib.Path, default="build/compare.html")
    parser.add_argument("--lathe", default="build/bin/lathe")
    parser.add_argument("--worker", default="build/bin/lathe_bench_worker")
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
    if unknown := set(options.engines) - set(engines.NAMES):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    if max(options.threads) > cpus:
        parser.error(f"this process may use {cpus} CPUs")
    options.cpus = cpus
    return options


def main():
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=options.json.parent, prefix="compare-") as folder:
        result = summary(compare(options, pathlib.Path(folder)), options)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    options.html.write_text(page.page(result))
    print(f"{report.text(result)}\n\nAlso in {options.json} and {options.html}.")


if __name__ == "__main__":
    main()
