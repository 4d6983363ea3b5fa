"""The installed wheel, as people use it: run with the Python that it is installed for."""

import copy
import pathlib
import pickle
import re
import subprocess
import sys
import tempfile
import threading
import unittest
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnx  # another protobuf in this process
from onnx import TensorProto, helper, numpy_helper

import lathe

ROOT = pathlib.Path(__file__).parents[2]


def small_onnx(scale: float = 1.0) -> bytes:
    """y = relu(conv(x)) with known weights: x: N,2,4,4."""
    w = scale * np.arange(3 * 2 * 3 * 3, dtype=np.float32).reshape(3, 2, 3, 3) / 50
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="r"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4, 4])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def convolve(x: np.ndarray, scale: float = 1.0) -> np.ndarray:
    w = scale * np.arange(3 * 2 * 3 * 3, dtype=np.float64).reshape(3, 2, 3, 3) / 50
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((x.shape[0], 3, 4, 4))
    for i in range(3):
        for j in range(3):
            y += np.einsum("nchw,mc->nmhw", padded[:, :, i : i + 4, j : j + 4], w[:, :, i, j])
    return np.maximum(y, 0)


class Installed(unittest.TestCase):
    def setUp(self):
        self.network = lathe.compile(lathe.Model.parse(small_onnx()))
        self.x = np.random.default_rng(1).standard_normal((1, 2, 4, 4)).astype(np.float32)

    def test_one_call(self):
        network = lathe.compile("lenet5")
        picture = lathe.read_picture(ROOT / "docs/examples/boot.png", "fashion-mnist", (1, 1, 32, 32))
        scores = network(picture)
        self.assertEqual(scores.shape, (1, 10))
        self.assertEqual(scores.dtype, np.float32)
        self.assertEqual(scores.argmax(), 9)  # an ankle boot
        self.assertAlmostEqual(float(scores.sum()), 1, places=5)

    def test_results_are_right_at_any_batch(self):
        for images in (1, 2, 7):
            x = np.random.default_rng(images).standard_normal((images, 2, 4, 4)).astype(np.float32)
            np.testing.assert_allclose(self.network(x), convolve(x), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(self.network(x=x), self.network(x))

    def test_strides_and_types(self):
        expected = self.network(self.x)
        nhwc = np.ascontiguousarray(self.x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        self.assertFalse(nhwc.flags.c_contiguous)
        np.testing.assert_array_equal(self.network(nhwc), expected)
        np.testing.assert_array_equal(self.network(self.x.astype(np.float64)), expected)
        np.testing.assert_array_equal(self.network(self.x.tolist()), expected)
        with self.assertRaises(TypeError):
            self.network(self.x.astype(np.complex64))

    def test_without_copies(self):
        y = np.full((1, 3, 4, 4), np.nan, np.float32)
        results = self.network.run([self.x], [y])
        self.assertIs(results[0], y)
        np.testing.assert_array_equal(y, self.network(self.x))

        class OnlyDlpack:  # as an array of another library
            def __init__(self, array):
                self.array = array

            def __dlpack__(self, **options):
                return self.array.__dlpack__(**options)

            def __dlpack_device__(self):
                return self.array.__dlpack_device__()

        np.testing.assert_array_equal(self.network(OnlyDlpack(self.x)), y)
        np.testing.assert_array_equal(np.from_dlpack(self.network(self.x)), y)

    def test_wrong_calls_say_what_was_expected(self):
        with self.assertRaisesRegex(ValueError, "'x' has the shape 1x2x4x4.*found 1x2x4x5"):
            self.network(np.zeros((1, 2, 4, 5), np.float32))
        with self.assertRaisesRegex(TypeError, "lacks the inputs x"):
            self.network()
        with self.assertRaisesRegex(TypeError, "found 'z'"):
            self.network(z=self.x)
        with self.assertRaisesRegex(TypeError, "takes 1 inputs"):
            self.network(self.x, self.x)
        read_only = np.zeros((1, 3, 4, 4), np.float32)
        read_only.flags.writeable = False
        with self.assertRaises((TypeError, ValueError)):
            self.network.run([self.x], [read_only])

    def test_errors_have_fields(self):
        with self.assertRaises(lathe.Error) as caught:
            lathe.Model.parse(b"network n {\n  input x 1x8x8\n  conv1: conv 4 9x9\n}\n", "net")
        error = caught.exception
        self.assertEqual((error.code, error.line, error.node), ("invalid", 3, "conv1"))
        self.assertIn("conv1", str(error))
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.code, again.line, str(again)), ("invalid", 3, str(error)))
        with self.assertRaises(lathe.Error) as caught:
            lathe.compile("no_such_file.onnx")
        self.assertEqual((caught.exception.code, caught.exception.file), ("io", "no_such_file.onnx"))
        with self.assertRaises(lathe.Error) as caught:
            lathe.compile("lenet5", memory_limit=1000)
        self.assertEqual(caught.exception.code, "limit")
        with self.assertRaises(lathe.Error):
            lathe.compile("lenet5", numerics="sloppy")

    def test_threads_share_a_network(self):
        inputs = [np.full((1, 2, 4, 4), i, np.float32) for i in range(8)]
        expected = [self.network(x) for x in inputs]
        wrong = []

        def work(i):
            for _ in range(200):
                if not np.array_equal(self.network(inputs[i]), expected[i]):
                    wrong.append(i)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        self.assertEqual(wrong, [])

    def test_the_gil_is_free_while_it_compiles(self):
        ticks = 0
        done = threading.Event()

        def work():
            lathe.compile("squeezenet1_1", seed=1)
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        while not done.wait(0.001):
            ticks += 1
        thread.join()
        self.assertGreater(ticks, 5)

    def test_predictor_in_other_processes(self):
        predictor = lathe.Predictor("lenet5", threads=1)
        rows = {"image": np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)}
        here = predictor(rows)
        (name,) = here
        self.assertEqual(here[name].shape, (3, 10))
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for there in pool.map(predictor, [rows, rows]):
                np.testing.assert_array_equal(there[name], here[name])
        np.testing.assert_array_equal(copy.deepcopy(predictor)(rows)[name], here[name])

    def test_features(self):
        model = lathe.Model.load("lenet5")
        features = lathe.compile(model.with_outputs(model.layers[1], model.layers[-1]))
        inner, scores = features(np.zeros((1, 1, 32, 32), np.float32))
        self.assertEqual(inner.shape[0], 1)
        self.assertEqual(scores.shape, (1, 10))
        with self.assertRaises(lathe.Error):
            model.with_outputs("nothing")

    def test_weights_from_arrays(self):
        model = lathe.Model.parse(b"network n {\n input x 2\n fc: dense 1\n}\n", "net")
        model.bind_weights({"fc.weight": np.array([[2, 3]], np.float32), "fc.bias": [10.0]} | {
            "fc.bias": np.array([10], np.float32)})
        self.assertEqual(lathe.compile(model)(np.array([[1, 100]], np.float32)), 312)

    def test_the_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            first = lathe.compile("lenet5", cache_dir=folder)
            second = lathe.compile("lenet5", cache_dir=folder)
            x = np.ones((1, 1, 32, 32), np.float32)
            np.testing.assert_array_equal(first(x), second(x))
            self.assertEqual((first.cached, second.cached), (False, True))

    def test_measurements_are_tables(self):
        bench = self.network.benchmark(seconds=0.05)
        self.assertGreater(bench.median_ms, 0)
        self.assertIn("<table>", bench._repr_html_())
        profile = self.network.profile(runs=3)
        self.assertEqual(len(profile.rows()), len(self.network.kernels))
        self.assertIn("conv", profile.kernels[0].name)
        self.assertIn("GFLOP/s", str(profile))

    def test_the_example(self):
        folder = ROOT / "docs/examples"
        command = [sys.executable, folder / "classify.py", folder / "boot.png"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        self.assertRegex(output, r"^class 9: 0\.9")

    def test_the_readme(self):
        """What the README shows of Python, in its folder of models."""
        text = (ROOT / "README.md").read_text()
        (block,) = re.findall(r"```python\n(import lathe.*?)```", text, re.DOTALL)
        command = [sys.executable, "-c", block]
        subprocess.run(command, check=True, cwd=ROOT / "models", stdout=subprocess.DEVNULL)

    def test_facts(self):
        self.assertIn("lenet5", lathe.bundled_models())
        self.assertEqual(self.network.inputs[0].shape, (1, 2, 4, 4))
        self.assertEqual(self.network.inputs[0].dtype, "float32")
        use = self.network.memory(2, 1)
        self.assertEqual(use.total, use.weights + use.arena + use.scratch + use.tensors)
        self.assertGreater(self.network.compile_ms, 0)
        self.assertRegex(lathe.__version__, r"^\d+\.\d+\.\d+$")
        self.assertTrue((pathlib.Path(lathe.__file__).parent / "py.typed").exists())
        stub = pathlib.Path(lathe.__file__).parent / "_lathe.pyi"
        self.assertIn("def compile(", stub.read_text())


if __name__ == "__main__":
    unittest.main()
