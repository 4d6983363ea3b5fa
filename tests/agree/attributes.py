"""Which attributes ONNX's ops have, from the schemas of the `onnx` package: tests/data/onnx_attributes.txt.
With --check, says whether that file is right, as far as the package knows."""

import argparse
import pathlib
import sys

import onnx.defs

FILE = pathlib.Path(__file__).parents[1] / "data" / "onnx_attributes.txt"
NEWEST = 28


def lines(newest):
    """Op, opset since which it is so, attributes: a line where they change."""
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= newest:
            history.setdefault(schema.name, {})[schema.since_version] = sorted(schema.attributes)
    for op, versions in sorted(history.items()):
        before = None
        for since, names in sorted(versions.items()):
            if names != before:
                yield " ".join([op, str(since), *names])
            before = names


def check():
    """Whether the file says what the schemas say; prints lines that only one of them has."""
    newest = min(NEWEST, onnx.defs.onnx_opset_version())
    known = [line for line in FILE.read_text().splitlines()[1:] if int(line.split()[1]) <= newest]
    wrong = sorted(set(lines(newest)) ^ set(known))
    print("\n".join(wrong) or f"the attributes of opsets 1 to {newest} are as the schemas say")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(0 if check() else 1)
    if onnx.defs.onnx_opset_version() < NEWEST:
        sys.exit(f"this needs a package of onnx that knows opset {NEWEST}")
    FILE.write_text(f"# The attributes of ONNX's ops up to opset {NEWEST}: op, since when, names "
                    "(tests/agree/attributes.py writes it).\n" + "\n".join(lines(NEWEST)) + "\n")


if __name__ == "__main__":
    main()
