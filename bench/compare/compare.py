"""./dev compare: the same ONNX files, weights and inputs through Lathe and its peers. Outputs are
compared before anything is timed; rounds go from engine to engine; threads are pinned. Fails if
Lathe itself is wrong or takes no network; who is faster is for people to judge."""

import argparse
import contextlib
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

import agreement
import engines
import networks
import page
import report
import roofline

QUICK = {"rounds": 3, "seconds": 0.1, "batches": [1]}
HOPELESS = 10  # times as slow as Lathe in a first run that took a second: not timed
MOST = 1000  # runs in a round


def say(text):
    print(text, file=sys.stderr, flush=True)


def join(engine, case, batch, folder):
    """Loads the network and looks at what comes out of a first run: an entry of the results.
    EngineError or ValueError if it proves nothing or is wrong."""
    entry = engine.ask("load", threads=engine.threads, **case.files(batch),
                       **({} if engine.name == "lathe" else {"folder": engine.folder}))
    output = folder / f"{engine.name}.npy"
    start = time.monotonic()
    engine.ask("output", output=output)
    entry["first_run_ms"] = 1000 * (time.monotonic() - start)
    errors = agreement.errors(numpy.load(output), case.expected(batch), case.softmax)
    if errors.largest > agreement.TOLERANCE:
        raise engines.EngineError(f"disagrees with the reference: error {errors.largest:.1e}")
    return {**entry, "largest_error": errors.largest, "rms_error": errors.rms}


def measure(case, threads, batch, options, folder, hopeless):
    """One row of the results: all engines on one network, threads and batch. Those in `hopeless`
    (with a reason) only stand in it; who is too slow is put there."""
    entries = {name: {"reason": hopeless[name]} for name in options.engines if name in hopeless}
    running = {}
    with contextlib.ExitStack() as stack:
        def start(name, place):
            return stack.enter_context(engines.Engine(name, threads, options.worker, place))
        for name in options.engines:
            if name in hopeless:
                continue
            engine = start(name, folder / name)
            try:
                entries[name] = join(engine, case, batch, folder)
                running[name] = engine
            except (engines.EngineError, ValueError) as error:
                entries[name] = {"reason": str(error)}
                engine.close()
        for name in too_slow(entries):
            seconds = entries[name]["first_run_ms"] / 1000
            hopeless[name] = entries[name]["reason"] = (
                f"its first run took {seconds:.1f} s, more than {HOPELESS} times Lathe's")
            running.pop(name).close()
        yardstick = start("lathe", folder / "yardstick")
        peaks = [yardstick.ask("machine", threads=threads)]
        samples = take_turns(running, entries, options)
        peaks.append(yardstick.ask("machine", threads=threads))
    for name, ms in samples.items():
        entries[name].update(median_ms=statistics.median(ms), min_ms=min(ms), runs=len(ms))
    gflops, gbytes = (max(peak[unit] for peak in peaks) for unit in ("gflops", "gbytes"))
    mix = roofline.mix(roofline.bounds(roofline.layers(case.model), gflops, gbytes, batch))
    return {"network": case.name, "threads": threads, "batch": batch, "peak_gflops": gflops,
            "bandwidth_gbytes": gbytes, "roofline_ms": sum(mix.values()), "roofline_mix_ms": mix,
            "engines": {name: entries[name] for name in options.engines}}


def take_turns(running, entries, options):
    """Milliseconds of all runs of each engine."""
    samples = {name: [] for name in running}
    for _ in range(options.rounds):
        for name in list(samples):
            try:
                samples[name] += running[name].ask("time", seconds=options.seconds,
                                                   least=options.least, most=MOST)["ms"]
            except engines.EngineError as error:
                entries[name]["reason"] = str(error)
                del samples[name]
    return samples


def profile(case, options, folder):
    """Lathe's kernels on one thread, one picture: where its time goes."""
    path = folder / "profile.json"
    subprocess.run([options.lathe, "profile", case.files(1)["model"], "--threads", "1",
                    "--duration", str(options.seconds), "--json", path], check=True,
                   capture_output=True)
    kept = ("layers", "algorithm", "median_ms", "percent_of_peak", "times_roofline")
    return [{key: kernel[key] for key in kept}
            for kernel in json.loads(path.read_text())["kernels"]]


def too_slow(entries):
    first = {name: entry["first_run_ms"] for name, entry in entries.items()
             if "first_run_ms" in entry}
    return [name for name, ms in first.items()
            if ms > max(1000, HOPELESS * first.get("lathe", ms))]


def show(row):
    cells = [f"{name} {report.show_ms(entry.get('median_ms'))}"
             for name, entry in row["engines"].items()]
    say(f"{row['network']}, batch {row['batch']}, {row['threads']} threads: "
        f"roofline {report.show_ms(row['roofline_ms'])}, {', '.join(cells)} ms "
        f"({row['peak_gflops']:.0f} GFLOP/s, {row['bandwidth_gbytes']:.0f} GB/s)")


def compare(options, folder):
    """All rows, and Lathe's kernels, network by network; each network's files are gone before the
    next one's come."""
    rows, kernels = [], {}
    for name in options.networks:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            place = pathlib.Path(place)
            say(f"{name}: making its files and the reference")
            case = networks.Case(name, options.lathe, place / "files")
            with engines.Engine("lathe", 1, options.worker, place / "evaluator") as evaluator:
                case.evaluate(evaluator)
            if "lathe" in options.engines:
                kernels[case.name] = profile(case, options, place)
            hopeless = {}
            for batch in options.batches:
                if batch > 1 and case.name not in networks.BATCHED:
                    continue
                for threads in options.threads:
                    with tempfile.TemporaryDirectory(dir=place) as here:
                        rows.append(measure(case, threads, batch, options, pathlib.Path(here),
                                            hopeless))
                    show(rows[-1])
    return rows, kernels


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def summary(rows, kernels, options):
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
            "engines": described, "rows": rows, "verdicts": found, "means": report.means(found),
            "kernels": kernels}


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
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    if unknown := set(options.engines) - set(engines.NAMES):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    if max(options.threads) > cpus:
        parser.error(f"this process may use {cpus} CPUs")
    options.cpus = cpus
    return options


def main():
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=options.json.parent, prefix="compare-") as folder:
        try:
            result = summary(*compare(options, pathlib.Path(folder)), options)
        except engines.EngineError as error:  # outside of a measurement: no reference, say
            sys.exit(f"dev compare: {error}")
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    options.html.write_text(page.page(result))
    print(f"{report.text(result)}\n\nAlso in {options.json} and {options.html}.")
    sys.exit(any("reason" in row["engines"].get("lathe", {}) for row in result["rows"]))


if __name__ == "__main__":
    main()
