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

    def test_outputs_are_filled_or_refused(self):
        expected = self.network(self.x)
        strided = np.full((1, 6, 4, 4), np.nan, np.float32)
        for y in (
            strided[:, ::2],
            np.full((1, 4, 4, 3), np.nan, np.float32).transpose(0, 3, 1, 2),
            np.frombuffer(bytearray(1 + expected.nbytes), np.uint8)[1:].view(np.float32).reshape(1, 3, 4, 4),
        ):
            self.assertIs(self.network.run([self.x], [y])[0], y)
            np.testing.assert_array_equal(y, expected)
        self.assertTrue(np.isnan(strided[:, 1::2]).all())
        # Results over the input: the input is read first.
        memory = np.zeros(3 * 16, np.float32)
        x, y = memory[: 2 * 16].reshape(1, 2, 4, 4), memory.reshape(1, 3, 4, 4)
        x[:] = self.x
        self.network.run([x], [y])
        np.testing.assert_array_equal(y, expected)

        def refused(error, text, y):
            with self.assertRaisesRegex(error, text):
                self.network.run([self.x], [y])

        refused(TypeError, "holds float32; found float64", np.zeros((1, 3, 4, 4)))
        refused(TypeError, "holds float32; found >f4", np.zeros((1, 3, 4, 4), ">f4"))
        refused(TypeError, "no array: found list", [0.0] * 48)
        refused(TypeError, "no array: found NoneType", None)
        refused(ValueError, r"shape \(1, 3, 4, 4\); found \(1, 48\)", np.zeros((1, 48), np.float32))
        refused(ValueError, "found", np.zeros((2, 3, 4, 4), np.float32))
        refused(ValueError, "read-only", np.broadcast_to(np.float32(0), (1, 3, 4, 4)))
        shared = np.lib.stride_tricks.as_strided(np.zeros(16, np.float32), (1, 3, 4, 4), (64, 0, 16, 4))
        refused(ValueError, "share memory", shared)
        with self.assertRaisesRegex(TypeError, "has 1 outputs, not 2"):
            self.network.run([self.x], [strided[:, ::2], strided[:, 1::2]])

        model = lathe.Model.load("lenet5")
        both = lathe.compile(model.with_outputs(*model.layers[-2:]))
        digits = np.ones((1, 1, 32, 32), np.float32)
        wanted = both(digits)
        columns = np.zeros((1, 20), np.float32)
        both.run([digits], [columns[:, ::2], columns[:, 1::2]])  # side by side is not over each other
        np.testing.assert_array_equal(columns[:, ::2], wanted[0])
        np.testing.assert_array_equal(columns[:, 1::2], wanted[1])
        with self.assertRaisesRegex(ValueError, "overlaps"):
            both.run([digits], [columns[:, :10], columns[:, 5:15]])

    def test_outputs_of_other_libraries(self):
        class Foreign:
            def __init__(self, array):
                self.array = array

            def __dlpack__(self, **options):
                return self.array.__dlpack__(**options)

            def __dlpack_device__(self):
                return self.array.__dlpack_device__()

        y = Foreign(np.zeros((1, 3, 4, 4), np.float32))
        self.assertIs(self.network.run([self.x], [y])[0], y)
        np.testing.assert_array_equal(y.array, self.network(self.x))
        with self.assertRaisesRegex(ValueError, "must be dense"):
            self.network.run([self.x], [Foreign(np.zeros((1, 6, 4, 4), np.float32)[:, ::2])])

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
        for limit in ({"compile_memory": 1000}, {"time_limit": 1e-9}):
            with self.assertRaises(lathe.Error) as caught:
                lathe.compile("lenet5", **limit)
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

    def test_children_of_a_fork(self):
        """What Linux's multiprocessing does by default: networks are inherited, threads are not."""
        network = lathe.compile("lenet5", threads=4)
        x = np.random.default_rng(5).standard_normal((16, 1, 32, 32)).astype(np.float32)
        here = network(x)  # its request stays for the next call

        def child(pipe):
            again = [network(x) for _ in range(20)]
            fresh = lathe.compile("lenet5", threads=2)(x)
            made = lathe.compile(lathe.Model.parse(small_onnx(2.0)))
            pipe.send((all(np.array_equal(a, here) for a in again), fresh, made(self.x)))
            pipe.close()

        fork = get_context("fork")
        busy = threading.Event()

        def compile_again_and_again():
            while not busy.is_set():
                lathe.compile(lathe.Model.parse(small_onnx(3.0)))

        thread = threading.Thread(target=compile_again_and_again)
        thread.start()
        try:
            for _ in range(8):
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=child, args=(theirs,))
                process.start()
                theirs.close()
                self.assertTrue(ours.poll(60), "a child hangs")
                same, fresh, made = ours.recv()
                process.join(60)
                self.assertEqual(process.exitcode, 0)
                self.assertTrue(same)
                np.testing.assert_array_equal(fresh, here)
                np.testing.assert_allclose(made, convolve(self.x, 2.0), rtol=1e-5, atol=1e-5)
        finally:
            busy.set()
            thread.join()
        np.testing.assert_array_equal(network(x), here)

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
        model.bind_weights({"fc.weight": np.array([[2, 3]], np.float32), "fc.bias": [10.0]})
        self.assertEqual(lathe.compile(model)(np.array([[1, 100]], np.float32)), 312)

    def test_given_weights_are_used(self):
        x = np.random.default_rng(3).standard_normal((1, 1, 32, 32)).astype(np.float32)
        own = lathe.compile("lenet5")(x)
        file = ROOT / "models/lenet5.safetensors"
        np.testing.assert_array_equal(lathe.compile("lenet5", weights=file)(x), own)
        bias = {"fc3.bias": np.arange(10.0)}  # float64 becomes float32
        with self.assertRaisesRegex(lathe.Error, "fc1.weight"):
            lathe.compile("lenet5", weights=bias)
        changed = lathe.compile("lenet5", weights=bias, partial_weights=True)(x)
        self.assertGreater(np.abs(changed - own).max(), 1e-3)
        model = lathe.Model.load("lenet5")
        report = model.bind_weights(bias, partial=True)
        self.assertEqual((len(report.kept), report.missing, report.unused), (9, [], []))
        np.testing.assert_array_equal(lathe.compile(model)(x), changed)
        with self.assertRaisesRegex(lathe.Error, "fc9.bias"):
            model.bind_weights({"fc9.bias": np.zeros(10, np.float32)}, partial=True)
        report = model.bind_weights(
            {"fc9.bias": np.zeros(10, np.float32)}, partial=True, ignore_unused=True
        )
        self.assertEqual(report.unused, ["fc9.bias"])
        with self.assertRaisesRegex(lathe.Error, "elements of i64"):
            model.bind_weights({"fc3.bias": np.arange(10)}, partial=True)

        onnx_model = lathe.Model.parse(small_onnx())  # initialisers by name
        onnx_model.bind_weights({"w": -np.arange(54, dtype=np.float32).reshape(3, 2, 3, 3) / 50})
        np.testing.assert_allclose(
            lathe.compile(onnx_model)(self.x), convolve(self.x, -1.0), rtol=1e-5, atol=1e-5
        )
        with self.assertRaisesRegex(lathe.Error, "has no weights yet.*seed"):
            lathe.compile("resnet18")

    def test_warnings(self):
        with self.assertWarnsRegex(UserWarning, "perhaps 3x8x8 is meant"):
            lathe.Model.parse(b"network n {\n input x 8x8x3\n conv 4 3x3\n}\n", "net")

    def test_the_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            first = lathe.compile("lenet5", cache_dir=folder)
            second = lathe.compile("lenet5", cache_dir=folder, copy_weights=True)
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
