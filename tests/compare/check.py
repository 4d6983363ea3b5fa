"""Does ./dev compare do its work? A short run of Lathe beside ONNX Runtime, by this interpreter:
who agrees, what is written, and what the pure parts make of it. No time is asserted."""

import argparse
import html.parser
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy

COMPARE = pathlib.Path(__file__).parents[2] / "bench" / "compare"
sys.path.append(str(COMPARE))
import agreement  # noqa: E402
import report  # noqa: E402
import roofline  # noqa: E402

ENGINES = ["lathe", "onnxruntime"]


class Nesting(html.parser.HTMLParser):
    """Fails where tags do not close as they opened."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another"


class Run(unittest.TestCase):
    """One run on LeNet-5, whose results all tests look at."""
    programs = None

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder) / name for name in ("results.json", "results.html")]
            done = subprocess.run(
                [sys.executable, COMPARE / "compare.py", "--quick", "--seconds", "0.02",
                 "--networks", "lenet5", "--threads", "1", "--engines", ",".join(ENGINES),
                 "--json", files[0], "--html", files[1], *cls.programs],
                capture_output=True, text=True)
            if done.returncode:
                raise AssertionError(done.stderr)
            cls.printed = done.stdout
            cls.result, cls.page = json.loads(files[0].read_text()), files[1].read_text()

    def test_both_engines_agree_and_are_timed(self):
        row, = self.result["rows"]
        self.assertEqual(list(row["engines"]), ENGINES)
        for name, entry in row["engines"].items():
            with self.subTest(name):
                self.assertNotIn("reason", entry)
                self.assertLess(entry["largest_error"], agreement.TOLERANCE)
                self.assertLessEqual(entry["min_ms"], entry["median_ms"])
                self.assertGreater(entry["min_ms"], 0)
        self.assertGreater(row["roofline_ms"], 0)

    def test_the_tables_have_a_verdict(self):
        found, = [v for v in self.result["verdicts"] if v["against"] == "best"]
        self.assertEqual((found["network"], found["peer"]), ("lenet5", "onnxruntime"))
        self.assertIn("geometric mean", self.printed)

    def test_the_page_is_whole_and_needs_nothing_else(self):
        nesting = Nesting()
        nesting.feed(self.page)
        self.assertEqual(nesting.open, [])
        self.assertLessEqual({"svg", "circle", "table"}, nesting.seen)
        self.assertFalse({"script", "link", "img"} & nesting.seen)
        self.assertNotIn("http", self.page)


class Agreement(unittest.TestCase):
    scores = numpy.random.default_rng(1).standard_normal([2, 10]).astype(numpy.float32)

    def softmax(self, scores):
        powers = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(numpy.float32)

    def test_sees_scores_through_a_softmax(self):
        wrong = self.scores.copy()
        wrong[1, 3] += 0.01
        right = agreement.errors(self.softmax(self.scores), self.softmax(self.scores), True)
        self.assertEqual(right.largest, 0)
        seen = agreement.errors(self.softmax(wrong), self.softmax(self.scores), True)
        self.assertGreater(seen.largest, agreement.TOLERANCE)

    def test_refuses_outputs_that_prove_nothing(self):
        saturated, constant = self.softmax(1000 * self.scores), numpy.ones([2, 10])
        alike, broken = numpy.stack([self.scores[0]] * 2), self.scores * numpy.nan
        for scores, softmax in ((saturated, True), (constant, False), (alike, False),
                                (broken, False), (self.scores[:1], False)):
            with self.assertRaises(ValueError):
                agreement.errors(scores, self.scores, softmax)


class Roofline(unittest.TestCase):
    def test_takes_the_algorithm_that_is_best_for_a_layer(self):
        wide = roofline.Layer("wide", 64 * 64 * 9 * 56 * 56, 4 * 64 * 64 * 9, ((3, 56), (3, 56)))
        dense = roofline.Layer("dense", 4096 * 4096, 4 * 4096 * 4096)
        winograd, direct = roofline.bounds([wide, dense], gflops=100, gbytes=20)
        self.assertEqual((winograd.algorithm, direct.algorithm),
                         ("winograd 4x4 of 3x3", "direct"))
        self.assertAlmostEqual(winograd.milliseconds, 2e-6 * wide.multiplies / 4 / 100)
        self.assertAlmostEqual(direct.milliseconds, 1e-6 * dense.weight_bytes / 20)

    def test_larger_weights_cost_what_they_weigh(self):
        small = roofline.Layer("small", 512 * 512 * 9 * 4 * 4, 4 * 512 * 512 * 9, ((3, 4), (3, 4)))
        bound, = roofline.bounds([small], gflops=100, gbytes=5)
        self.assertEqual(bound.algorithm, "direct")


class Verdicts(unittest.TestCase):
    @staticmethod
    def row(network, **median):
        return {"network": network, "threads": 1, "batch": 1,
                "engines": {name: {"median_ms": ms} for name, ms in median.items()}}

    def test_the_fastest_peer_counts(self):
        row = self.row("vgg16", lathe=10, onnxruntime=22, ncnn=11)
        against_ort, against_best = report.verdicts([row])
        self.assertTrue(against_ort["reached"])
        self.assertEqual((against_best["peer"], against_best["reached"]), ("ncnn", False))

    def test_who_has_no_target_or_no_time_has_no_verdict(self):
        rows = [self.row("mine", lathe=1, ncnn=2), self.row("vgg16", ncnn=2)]
        self.assertEqual({v["reached"] for v in report.verdicts(rows)}, {None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lathe", required=True)
    parser.add_argument("--worker", required=True)
    options = parser.parse_args()
    Run.programs = ["--lathe", options.lathe, "--worker", options.worker]
    unittest.main(argv=sys.argv[:1], verbosity=2)
