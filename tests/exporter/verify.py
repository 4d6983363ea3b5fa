"""Runs `lathe verify` on every folder below one in the layout of ONNX's tests, where an error may be
1e-4 of the largest value that torch has, and says which are refused or wrong, and why. All must be ok,
but for those in unsupported.txt, which must be refused."""

import argparse
import collections
import fnmatch
import pathlib
import re
import subprocess
import sys

import numpy
import onnx
from onnx import numpy_helper

TOLERANCE = 1e-4  # of an output's largest value
OK, WRONG, UNSUPPORTED = 0, 1, 4  # exit codes
# Doubted is a wrong answer to an export from which ONNX Runtime, too, computes something else than torch.
VERDICTS = ["ok", "unsupported", "doubted", "refused", "WRONG"]


def largest_error(case):
    """What `--atol` allows: of the case's output whose largest value is the smallest."""
    largest = []
    for file in case.glob("test_data_set_*/output_*.pb"):
        value = numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
        if value.dtype.kind == "f":
            largest.append(abs(value[numpy.isfinite(value)]).max(initial=0))
    return TOLERANCE * min(filter(None, largest), default=1e-3)


def verify(lathe, case):
    """The exit code and what was said; a signal is a negative code."""
    done = subprocess.run([lathe, "verify", case, "--rtol", "0", "--atol", str(largest_error(case))],
                          capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def reasons(said):
    """The errors without the names and numbers that differ from case to case."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if lines and "things are in the way" not in lines[0]:
        lines = lines[:1]
    found = set()
    for line in lines:
        message = re.sub(r"^.*?(error|times): ", "", line).split(" (")[0]
        op = re.search(r"op (\w+) \(opset", line)
        if "things are in the way" not in line:
            found.add(message + (f": {op[1]}" if op else ""))
    return found or {"nothing was said"}


class Lists:
    """What need not be ok: unsupported.txt here, and what export.py wrote beside its exports."""

    def __init__(self, folder):
        lines = (pathlib.Path(__file__).parent / "unsupported.txt").read_text().splitlines()
        rows = [line.split() for line in lines if line and not line.startswith("#")]
        self.unsupported = [(row[0], int(row[1]) if row[1:] else UNSUPPORTED) for row in rows]
        doubted = folder / "doubted.txt"
        self.doubted = doubted.read_text().split() if doubted.exists() else []

    def refusal(self, name):
        """The exit code with which an export is refused; None if it must be ok."""
        return next((code for pattern, code in self.unsupported if fnmatch.fnmatch(name, pattern)), None)

    def verdict(self, code, name):
        if expected := self.refusal(name):
            return {OK: "WRONG", WRONG: "WRONG", expected: "unsupported"}.get(code, "refused")
        if code == WRONG:
            return "doubted" if name in self.doubted else "WRONG"
        return "ok" if code == OK else "refused"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--lathe", default="build/bin/lathe")
    parser.add_argument("--only", default="*", help="folders, with * and ?")
    parser.add_argument("--outcomes", type=pathlib.Path, help="a file for all that was said, by folder")
    arguments = parser.parse_args()
    lists = Lists(arguments.folder)
    found, groups, report = collections.Counter(), collections.defaultdict(list), []
    for model in sorted(arguments.folder.glob(f"{arguments.only}/model.onnx")):
        case = model.parent
        code, said = verify(arguments.lathe, case)
        verdict = lists.verdict(code, case.name)
        found[verdict] += 1
        report.append(f"{verdict} {case.name} ({code})" + ("" if code == OK else f"\n{said}"))
        for reason in reasons(said) if verdict != "ok" else []:
            groups[f"{verdict} ({code}): {reason}"].append(case.name)
    for what, names in sorted(groups.items(), key=lambda row: -len(row[1])):
        print(f"{len(names):>5}  {what}\n       {' '.join(names)}")
    total = found.total()
    print(f"{total} exports: " + ", ".join(f"{found[v]} {v}" for v in VERDICTS if found[v]))
    if arguments.outcomes:
        arguments.outcomes.write_text("\n".join(report) + "\n")
    sys.exit(1 if not total or found["refused"] or found["WRONG"] else 0)


if __name__ == "__main__":
    main()
