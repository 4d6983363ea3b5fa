"""./dev compare: the same ONNX files, weights and inputs through Lathe and its peers (arguments.py
says what it promises)."""

import contextlib
import itertools
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import numpy

import agreement
import arguments
import engines
import networks
import page
import report
import roofline
import targets

HOPELESS = 10  # times as slow as Lathe in a first run that took a second: not timed
MOST = 1000  # runs in a round
FAULTS = (engines.EngineError, OSError, ValueError)  # which end an engine's part, and no more


def say(text):
    print(text, file=sys.stderr, flush=True)


def reason(error):
    """In one line; of a program that failed, what it said last."""
    said = getattr(error, "stderr", None)
    text = str(said or error).strip().splitlines()
    return text[-1] if text else type(error).__name__


@contextlib.contextmanager
def attempt(what, failures):
    """Notes what fails in it, whatever that is: what was measured before must not be lost."""
    try:
        yield
    except Exception as error:
        failures[what] = reason(error)
        say(f"{what} failed\n{traceback.format_exc()}")


def output(engine, folder):
    path = folder / f"{engine.name}.npy"
    engine.ask("output", output=path)
    return numpy.load(path)


def judge(found, case, batch):
    """Its errors; EngineError or ValueError if it proves nothing or is wrong."""
    errors = agreement.errors(found, case.expected(batch), case.softmax)
    if errors.largest > agreement.TOLERANCE:
        raise engines.EngineError(f"disagrees with the reference: error {errors.largest:.1e}")
    return errors


def join(engine, case, batch, folder):
    """Loads the network and looks at what comes out of a first run: an entry of the results."""
    entry = engine.ask("load", threads=engine.threads, **case.files(batch),
                       **({} if engine.name == "lathe" else {"folder": engine.folder}))
    start = time.monotonic()
    found = output(engine, folder)
    entry["first_run_ms"] = 1000 * (time.monotonic() - start)
    entry["peak_rss_bytes"] = engine.peak_memory()
    errors = judge(found, case, batch)
    return {**entry, "largest_error": errors.largest, "rms_error": errors.rms}


def measure(case, threads, batch, options, folder, hopeless):
    """One row of the results: all engines on one network, threads and batch. Those in `hopeless`
    (with a reason) only stand in it; who is too slow is put there."""
    layers = roofline.layers(case.simplified(batch))
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
            except FAULTS as error:
                entries[name] = {"reason": reason(error)}
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
        for name in list(samples):
            try:
                judge(output(running[name], folder), case, batch)
            except FAULTS as error:
                runs = len(samples.pop(name))
                entries[name]["reason"] = f"after {runs} runs: {reason(error)}"
    for name, ms in samples.items():
        entries[name].update(median_ms=statistics.median(ms), min_ms=min(ms), runs=len(ms))
    machine = roofline.Machine(*(max(peak[unit] for peak in peaks)
                                 for unit in ("gflops", "gbytes")), engines.cache_bytes(threads))
    mix = roofline.mix(roofline.bounds(layers, machine))
    return {"network": case.name, "threads": threads, "batch": batch,
            "peak_gflops": machine.gflops, "bandwidth_gbytes": machine.gbytes,
            "roofline_ms": sum(mix.values()), "roofline_mix_ms": mix,
            "engines": {name: entries[name] for name in options.engines}}


def take_turns(running, entries, options):
    """Milliseconds of all runs of each engine."""
    samples = {name: [] for name in running}
    for _ in range(options.rounds):
        for name in list(samples):
            try:
                samples[name] += running[name].ask("time", seconds=options.seconds,
                                                   least=options.least, most=MOST)["ms"]
            except FAULTS as error:
                entries[name]["reason"] = reason(error)
                del samples[name]
    return samples


def profile(case, options, folder):
    """Lathe's kernels on one thread, one picture: where its time goes."""
    path = folder / "profile.json"
    subprocess.run([options.lathe, "profile", case.files(1)["model"], "--threads", "1",
                    "--duration", str(options.seconds), "--json", path], check=True,
                   capture_output=True, text=True, preexec_fn=engines.settled(1))
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
    """All rows, Lathe's kernels, and what failed, network by network; each network's files are gone
    before the next one's come."""
    rows, kernels, failures = [], {}, {}
    for name in options.networks:
        with attempt(name, failures), tempfile.TemporaryDirectory(dir=folder) as place:
            measure_network(name, options, pathlib.Path(place), rows, kernels, failures)
    return rows, kernels, failures


def measure_network(name, options, place, rows, kernels, failures):
    say(f"{name}: making its files and the reference")
    case = networks.Case(name, options.lathe, place / "files")
    with engines.Engine("lathe", 1, options.worker, place / "evaluator") as evaluator:
        case.evaluate(evaluator)
    if "lathe" in options.engines:
        with attempt(f"{name}, its profile", failures):
            kernels[case.name] = profile(case, options, place)
    hopeless = {}
    batches = [b for b in options.batches if b == 1 or case.name in targets.BATCHED]
    for batch, threads in itertools.product(batches, options.threads):
        with (attempt(f"{name}, batch {batch}, {threads} threads", failures),
              tempfile.TemporaryDirectory(dir=place) as here):
            rows.append(measure(case, threads, batch, options, pathlib.Path(here), hopeless))
            show(rows[-1])


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def summary(rows, kernels, failures, options):
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
            "kernels": kernels, "failures": failures}


def complaints(result):
    """Why the exit code is 1."""
    yield from (f"{what}: {why}" for what, why in result["failures"].items())
    for row in result["rows"]:
        if why := row["engines"].get("lathe", {}).get("reason"):
            yield f"{row['network']}: Lathe was not timed: {why}"
    if not any(report.median(row, name) for row in result["rows"] for name in row["engines"]):
        yield "nothing was measured"


def main():
    options = arguments.parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=options.json.parent, prefix="compare-") as folder:
        result = summary(*compare(options, pathlib.Path(folder)), options)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report.text(result))
    options.html.write_text(page.page(result))
    print(f"\nAlso in {options.json} and {options.html}.")
    found = list(complaints(result))
    for complaint in found:
        say(f"dev compare: error: {complaint}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
