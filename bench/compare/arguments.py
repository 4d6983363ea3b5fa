"""The command line of ./dev compare: needs no engine and no package, and refuses what cannot work
before anything slow happens."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import targets
from engines import NAMES, usable_cpus

ABOUT = """Measures the same ONNX files, weights and inputs on Lathe and its peers. Outputs are
compared before and after anything is timed; rounds go from engine to engine; threads are pinned.
Exit codes: 0 ok, 1 Lathe is wrong or takes no network, something failed or nothing was measured
(what was measured is written all the same), 2 usage. Who is faster is for people to judge."""
QUICK = {"rounds": 3, "seconds": 0.1, "batches": [1]}


def listed(kind=str):
    def words(text):
        found = list(dict.fromkeys(kind(word) for word in text.split(",") if word))
        if not found:
            raise argparse.ArgumentTypeError("an empty list")
        return found
    return words


def positive(kind):
    def number(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value
    number.__name__ = kind.__name__  # argparse's word for what cannot be read
    return number


def program(text):
    if not shutil.which(text):
        raise argparse.ArgumentTypeError(f"{text} is no program")
    return str(pathlib.Path(shutil.which(text)).absolute())


def target_file(text):
    path = pathlib.Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path


def bundled(lathe):
    """The networks that Lathe brings: the first words of its list, below the heading."""
    lines = subprocess.run([lathe, "inspect"], check=True, capture_output=True,
                           text=True).stdout.splitlines()[1:]
    return {line.split()[0] for line in lines if line.strip()}


def absence(name, known):
    """Why there is no such network; None if there is."""
    if name.endswith(".onnx"):
        return None if pathlib.Path(name).is_file() else "no such file"
    if name.startswith("light_"):
        folder = targets.light_folder()
        if not folder:
            return "LATHE_TEST_DATA names no folder with ONNX's light models"
        return None if (folder / f"{name}.onnx").is_file() else "no such light model"
    return None if name in known else "no bundled network of this name, and no .onnx file"


def make_parser():
    parser = argparse.ArgumentParser(prog="dev compare", description=ABOUT)
    batched = ", ".join(targets.BATCHED)
    parser.add_argument("--networks", type=listed(), default=targets.default_names(),
                        help="bundled ones, light_... or .onnx files; default: those with a target")
    parser.add_argument("--engines", type=listed(), default=NAMES,
                        help=f"default: {','.join(NAMES)}")
    parser.add_argument("--threads", type=listed(positive(int)),
                        default=[t for t in (1, 2) if t <= usable_cpus()],
                        help="default: 1, and 2 if there are as many CPUs")
    parser.add_argument("--batch", dest="batches", type=listed(positive(int)), default=[1, 16],
                        help=f"default: 1,16; more than 1 only for {batched}")
    parser.add_argument("--rounds", type=positive(int), default=7)
    parser.add_argument("--seconds", type=positive(float), default=0.4,
                        help="of an engine in a round")
    parser.add_argument("--least", type=positive(int), default=3,
                        help="runs of an engine in a round")
    parser.add_argument("--quick", action="store_true", help="short rounds, batch 1")
    parser.add_argument("--json", type=target_file, default="build/compare.json")
    parser.add_argument("--html", type=target_file, default="build/compare.html")
    parser.add_argument("--lathe", type=program, default="build/bin/lathe")
    parser.add_argument("--worker", type=program, default="build/bin/lathe_bench_worker")
    return parser


def parse(arguments):
    parser = make_parser()
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    options.cpus = usable_cpus()
    if unknown := set(options.engines) - set(NAMES):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    if max(options.threads) > options.cpus:
        parser.error(f"this process may use {options.cpus} CPUs")
    known = bundled(options.lathe)
    for name in options.networks:
        if reason := absence(name, known):
            parser.error(f"{name}: {reason}")
    return options


if __name__ == "__main__":  # for --help where no package is installed
    parse(sys.argv[1:])
