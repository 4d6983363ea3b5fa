"""Does ./dev compare do its work? Short runs of Lathe beside ONNX Runtime and peers that fail, by
this interpreter: who agrees, what is written, what is left when something fails, and what the pure
parts make of it. No time is asserted."""

import argparse
import html.parser
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest
import unittest.mock

import numpy
import onnx
from onnx import TensorProto, helper

COMPARE = pathlib.Path(__file__).parents[2] / "bench" / "compare"
sys.path.append(str(COMPARE))
import agreement  # noqa: E402
import compare  # noqa: E402
import engines  # noqa: E402
import page  # noqa: E402
import report  # noqa: E402
import roofline  # noqa: E402

# These modules stand before the true ones: a peer that throws, and one whose process dies.
FAILING = {"ncnn": "raise RuntimeError('it is broken')", "tvm": "import os; os._exit(3)"}
GOOD = ["lathe", "onnxruntime"]


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


def check_nesting(test, text):
    nesting = Nesting()
    nesting.feed(text)
    test.assertEqual(nesting.open, [])
    return nesting.seen


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weight(name, *shape):
    return onnx.numpy_helper.from_array(numpy.ones(shape, numpy.float32), name)


def model(nodes, inputs, output, weights=()):
    graph = helper.make_graph(nodes, "test", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


class Runs(unittest.TestCase):
    """Runs of the program, in a folder of their own."""
    programs = None

    @classmethod
    def setUpClass(cls):
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        cls.folder = pathlib.Path(place.name)
        for name, text in FAILING.items():
            (cls.folder / f"{name}.py").write_text(text)

    @classmethod
    def run_it(cls, **options):
        """What was done, and the two files' contents or None."""
        files = {kind: cls.folder / f"results.{kind}" for kind in ("json", "html")}
        settings = {"seconds": "0.02", "threads": "1", **cls.programs, **files, **options}
        done = subprocess.run(
            [sys.executable, COMPARE / "compare.py", "--quick",
             *(word for name, text in settings.items() for word in (f"--{name}", text))],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(cls.folder)})
        texts = [path.read_text() if path.exists() else None for path in files.values()]
        for path in files.values():
            path.unlink(missing_ok=True)
        return done, texts[0] and json.loads(texts[0]), texts[1]


class GoodRun(Runs):
    """One run on LeNet-5, with peers that fail, whose results all tests look at."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done, cls.result, cls.page = cls.run_it(networks="lenet5",
                                                engines=",".join([*GOOD, *FAILING]))
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.printed = done.stdout

    def test_both_engines_agree_and_are_timed(self):
        row, = self.result["rows"]
        self.assertEqual(list(row["engines"]), [*GOOD, *FAILING])
        for name in GOOD:
            entry = row["engines"][name]
            with self.subTest(name):
                self.assertNotIn("reason", entry)
                self.assertLess(entry["largest_error"], agreement.TOLERANCE)
                self.assertLessEqual(entry["min_ms"], entry["median_ms"])
                self.assertGreater(entry["min_ms"], 0)
                self.assertGreater(entry["peak_rss_bytes"], 1e6)
        self.assertGreater(row["roofline_ms"], 0)

    def test_who_fails_is_listed_with_the_reason(self):
        entries = self.result["rows"][0]["engines"]
        self.assertIn("it is broken", entries["ncnn"]["reason"])
        self.assertIn("status 3", entries["tvm"]["reason"])
        self.assertFalse({"median_ms"} & {*entries["ncnn"], *entries["tvm"]})
        self.assertIn("it is broken", self.printed)

    def test_the_tables_have_a_verdict(self):
        found, = [v for v in self.result["verdicts"] if v["against"] == "best"]
        self.assertEqual((found["network"], found["peer"]), ("lenet5", "onnxruntime"))
        self.assertIn("geometric mean", self.printed)
        self.assertIn("Megabytes in memory", self.printed)

    def test_the_page_is_whole_and_needs_nothing_else(self):
        seen = check_nesting(self, self.page)
        self.assertLessEqual({"svg", "circle", "table"}, seen)
        self.assertFalse({"script", "link", "img"} & seen)
        self.assertNotIn("http", self.page)


class BadRun(Runs):
    def refused(self, **options):
        done, result, _ = self.run_it(**{"networks": "lenet5", "engines": "lathe", **options})
        with self.subTest(options):
            self.assertEqual((done.returncode, result), (2, None), done.stderr)
            self.assertIn("dev compare: error: ", done.stderr.splitlines()[-1])

    def test_refuses_what_cannot_work(self):
        for bad in ({"networks": "lenet"}, {"networks": "missing.onnx"}, {"networks": ","},
                    {"networks": "light_missing"}, {"engines": "lathe,fastest"},
                    {"rounds": "0"}, {"seconds": "-1"}, {"seconds": "nan"}, {"threads": "0"},
                    {"threads": "1000000"}, {"batch": "0"}, {"least": "0"}, {"lathe": "missing"},
                    {"json": "missing/results.json"}, {"json": self.folder}):
            self.refused(**bad)

    def test_what_fails_takes_nothing_else_along(self):
        two, relu = self.folder / "two.onnx", self.folder / "relu.onnx"
        a, b, y = (value(name, 1, 2, 4, 4) for name in "aby")
        onnx.save(model([helper.make_node("Add", ["a", "b"], ["y"])], [a, b], y), two)
        onnx.save(model([helper.make_node("Relu", ["a"], ["y"])], [a], y), relu)
        done, result, text = self.run_it(networks=f"{two},{relu}", engines=",".join(GOOD))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("only networks with one input", done.stderr.splitlines()[-1])
        self.assertEqual(list(result["failures"]), [str(two)])
        row, = result["rows"]
        self.assertEqual(row["roofline_ms"], 0)  # which divides nothing
        for name in GOOD:
            self.assertGreater(row["engines"][name]["median_ms"], 0)
        check_nesting(self, text)

    def test_says_that_nothing_was_measured(self):
        done, _, text = self.run_it(networks="lenet5", engines=",".join(FAILING))
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing was measured", done.stderr.splitlines()[-1])
        check_nesting(self, text)


class FakeEngine:
    """Right at first; what its name says while it is timed."""
    scores = numpy.random.default_rng(1).standard_normal([1, 10])

    def __init__(self, name, *_):
        self.name, self.threads, self.folder, self.timed = name, 1, None, False

    def ask(self, verb, **arguments):
        if verb == "machine":
            return {"gflops": 1, "gbytes": 1}
        if verb == "output":
            wrong = self.timed and self.name == "wears out"
            numpy.save(arguments["output"], self.scores + 0.1 * wrong * numpy.arange(10))
        if verb == "time":
            self.timed = True
            if self.name == "gives up":
                raise engines.EngineError("no more")
            return {"ms": [1.0, 2.0]}
        return {}

    def peak_memory(self):
        return 1 << 20

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Measurement(unittest.TestCase):
    def test_outputs_count_after_the_timing_too(self):
        names = ["lathe", "wears out", "gives up"]
        case = types.SimpleNamespace(
            name="case", softmax=False, files=lambda batch: {},
            expected=lambda batch: FakeEngine.scores,
            simplified=lambda batch: model([helper.make_node("Relu", ["a"], ["y"])],
                                           [value("a", 1)], value("y", 1)))
        options = types.SimpleNamespace(engines=names, worker=None, rounds=2, seconds=1, least=1)
        with (unittest.mock.patch("engines.Engine", FakeEngine),
              tempfile.TemporaryDirectory() as folder):
            row = compare.measure(case, 1, 1, options, pathlib.Path(folder), {})
        self.assertEqual(row["engines"]["lathe"]["runs"], 4)
        self.assertIn("after 4 runs: disagrees", row["engines"]["wears out"]["reason"])
        self.assertIn("no more", row["engines"]["gives up"]["reason"])
        self.assertEqual([name for name in names if report.median(row, name)], ["lathe"])


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
    machine = roofline.Machine(gflops=100, gbytes=20)

    def bound(self, kernel, size, channels=64):
        """Of a convolution whose weights the cache keeps, and what its multiplies would take."""
        multiplies = channels ** 2 * numpy.prod(kernel) * numpy.prod(size)
        layer = roofline.Layer("layer", multiplies, 0, tuple(zip(kernel, size)))
        found, = roofline.bounds([layer], self.machine)
        return found, 2e-6 * multiplies / 100

    def test_counts_what_can_be_counted_by_hand(self):
        nodes = [
            helper.make_node("Constant", [], ["w"], value=weight("w", 8, 2, 3, 3)),
            helper.make_node("Conv", ["x", "w"], ["c"], group=2, pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["c", "v"], ["d"], strides=[2, 2]),
            helper.make_node("Reshape", ["d", "rows"], ["r"]),
            helper.make_node("MatMul", ["r", "m"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
        ]
        rows = onnx.numpy_helper.from_array(numpy.array([2, 3, 48]), "rows")
        weights = [weight("v", 16, 8, 3, 3), rows, weight("m", 48, 5), weight("g", 7, 15)]
        found = roofline.layers(model(nodes, [value("x", 2, 4, 8, 8)], value("y", 2, 7), weights))
        self.assertEqual([layer.multiplies for layer in found], [
            2 * 8 * 8 * 8 * 2 * 9, 2 * 16 * 3 * 3 * 8 * 9, 2 * 3 * 48 * 5, 2 * 15 * 7])
        self.assertEqual([layer.weight_bytes // 4 for layer in found],
                         [8 * 2 * 9, 16 * 8 * 9, 48 * 5, 7 * 15])
        self.assertEqual([layer.winograd for layer in found], [((3, 8), (3, 8)), (), (), ()])
        bounds = roofline.bounds(found[1:], roofline.Machine(gflops=1, gbytes=1000))
        self.assertAlmostEqual(sum(roofline.mix(bounds).values()),
                               2e-6 * (2 * 16 * 9 * 72 + 2 * 720 + 2 * 105))

    def test_takes_the_algorithm_that_is_best_for_a_layer(self):
        for kernel, size, name, less in (
                ((3, 3), (56, 56), "winograd 4x4 of 3x3", 4),
                ((5, 5), (56, 56), "winograd 2x2 of 5x5", 25 / 9),
                ((7, 7), (56, 56), "direct", 1),
                ((1, 3), (56, 56), "winograd 1x4 of 1x3", 2),
                ((1, 5), (56, 56), "winograd 1x4 of 1x5", 2.5),
                ((7, 1), (56, 56), "winograd 2x1 of 7x1", 7 / 4),
                ((3,), (56,), "winograd 4 of 3", 2),
                ((3, 3), (1, 1), "direct", 1)):
            with self.subTest(kernel=kernel, size=size):
                found, direct = self.bound(kernel, size)
                self.assertEqual(found.algorithm, name)
                self.assertAlmostEqual(found.milliseconds, direct / less)

    def test_weights_cost_what_the_cache_cannot_keep(self):
        dense = roofline.Layer("dense", 4096 * 4096, 4 * 4096 * 4096)
        for kept, streamed in ((0, 1), (4 * 1024 * 4096, 0.75)):
            found, = roofline.bounds([dense], roofline.Machine(100, 20, kept))
            self.assertAlmostEqual(found.milliseconds, 1e-6 * dense.weight_bytes * streamed / 20)
        found, = roofline.bounds([dense], roofline.Machine(100, 20, 1 << 30))
        self.assertAlmostEqual(found.milliseconds, 2e-6 * dense.multiplies / 100)

    def test_larger_weights_cost_what_they_weigh(self):
        small = roofline.Layer("small", 512 * 512 * 9 * 4 * 4, 4 * 512 * 512 * 9, ((3, 4), (3, 4)))
        bound, = roofline.bounds([small], roofline.Machine(gflops=100, gbytes=5))
        self.assertEqual(bound.algorithm, "direct")
        bound, = roofline.bounds([small], roofline.Machine(gflops=100, gbytes=20))
        self.assertTrue(bound.algorithm.endswith(" from taps"))  # weighs what the taps weigh
        self.assertAlmostEqual(bound.milliseconds, 1e-6 * small.weight_bytes / 20)


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

    def test_a_target_is_reached_where_it_is_met(self):
        for ort, ncnn, reached in ((21, 11.5, [True, True]), (20.9, 11.5, [False, True]),
                                   (21, 11.4, [True, False])):
            found = report.verdicts([self.row("vgg16", lathe=10, onnxruntime=ort, ncnn=ncnn)])
            self.assertEqual([v["reached"] for v in found], reached)

    def test_who_has_no_target_or_no_time_has_no_verdict(self):
        rows = [self.row("mine", lathe=1, ncnn=2), self.row("vgg16", ncnn=2)]
        self.assertEqual({v["reached"] for v in report.verdicts(rows)}, {None})

    def test_means_are_of_the_networks_that_have_a_target(self):
        rows = [self.row("vgg16", lathe=1, ncnn=2), self.row("nin", lathe=1, ncnn=8),
                self.row("light_resnet50", lathe=1, ncnn=9), self.row("mine", lathe=1, ncnn=9)]
        mean, = report.means(report.verdicts(rows))
        self.assertEqual((mean["against"], mean["networks"], mean["reached"]), ("best", 2, True))
        self.assertAlmostEqual(mean["ratio"], 4)


class Page(unittest.TestCase):
    def test_shows_what_has_no_roofline_and_whom_it_does_not_know(self):
        row = Verdicts.row("mine", lathe=1, stranger=2)
        row |= {"roofline_ms": 0, "roofline_mix_ms": {"direct": 0}, "peak_gflops": 1,
                "bandwidth_gbytes": 1}
        result = {"machine": {"processor": "", "cpus": 1, "system": ""},
                  "settings": {"rounds": 1, "seconds": 1}, "rows": [row], "kernels": {},
                  "engines": {"lathe": {}, "stranger": {}}, "failures": {"yours": "a <reason>"},
                  "verdicts": report.verdicts([row]), "means": []}
        text = page.page(result)
        check_nesting(self, text)
        self.assertIn(page.STRANGER, text)
        self.assertIn("a &lt;reason&gt;", text)

    def test_every_peer_has_a_colour_of_its_own(self):
        self.assertEqual(len({*page.COLOURS.values(), page.STRANGER}), len(engines.NAMES) + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lathe", required=True)
    parser.add_argument("--worker", required=True)
    options = parser.parse_args()
    Runs.programs = {"lathe": options.lathe, "worker": options.worker}
    unittest.main(argv=sys.argv[:1], verbosity=2)
