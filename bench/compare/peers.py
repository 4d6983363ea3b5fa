"""The other engines' side of ./dev compare: `peers.py ENGINE` reads commands on stdin and answers
on stdout, a line of JSON each, as worker.cpp does for Lathe. One small class per engine: its
constructor loads a model with one input bound, `run` is the bare call that is timed."""

import ctypes
import glob
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy

import engines


def check(failed, what):
    if failed:
        raise RuntimeError(f"{what} failed with status {failed}")


class OnnxRuntime:
    """Through its C interface: its Python calls cost as much as a layer of LeNet-5."""

    # Places in the table of functions, which never change (onnxruntime_c_api.h).
    TABLE = {"error_message": 2, "env": 3, "session": 7, "run": 9, "options": 10, "threads": 24,
             "tensor": 49, "memory": 69}
    FLOAT = 1

    def __init__(self, model, threads, pixels, folder):
        import onnxruntime
        self.version = onnxruntime.__version__
        self.settings = "C interface, spinning, all optimisations"
        names = self.names(model)
        library = glob.glob(f"{pathlib.Path(onnxruntime.__file__).parent}/capi/libonnxruntime.so*")
        base = ctypes.CDLL(library[0]).OrtGetApiBase
        base.restype = ctypes.POINTER(ctypes.c_void_p)
        table = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)(base()[0])(1)
        self.functions = {name: table[place] for name, place in self.TABLE.items()}
        environment = self.make("env", ctypes.c_int(3), ctypes.c_char_p(b"compare"))
        options = self.make("options")
        self.call("threads", options, ctypes.c_int(threads))
        session = self.make("session", environment, ctypes.c_char_p(os.fsencode(model)), options)
        self.memory = self.make("memory", ctypes.c_int(0), ctypes.c_int(0))
        self.pixels, self.scores = pixels, numpy.zeros(names[1][1], numpy.float32)
        texts = [(ctypes.c_char_p * 1)(name.encode()) for name, _ in names]
        tensors = [(ctypes.c_void_p * 1)(self.tensor(a).value) for a in (pixels, self.scores)]
        one = ctypes.c_size_t(1)
        self.arguments = (session, ctypes.c_void_p(), texts[0], tensors[0], one, texts[1], one,
                          tensors[1])
        self.runner = self.function("run", self.arguments)

    @staticmethod
    def names(model):
        """Of the input and the output: names and shapes."""
        import onnx
        graph = onnx.load(model, load_external_data=False).graph
        return [(value.name, [d.dim_value for d in value.type.tensor_type.shape.dim])
                for value in (graph.input[0], graph.output[0])]

    def function(self, name, arguments):
        kinds = [ctypes.c_void_p if isinstance(a, ctypes.Array) else type(a) for a in arguments]
        return ctypes.CFUNCTYPE(ctypes.c_void_p, *kinds)(self.functions[name])

    def call(self, name, *arguments):
        status = self.function(name, arguments)(*arguments)
        if status:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
            raise RuntimeError(message(self.functions["error_message"])(status).decode())

    def make(self, name, *arguments):
        made = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.c_void_p(ctypes.addressof(made)))
        return made

    def tensor(self, array):
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        return self.make("tensor", self.memory, ctypes.c_void_p(array.ctypes.data),
                         ctypes.c_size_t(array.nbytes), shape, ctypes.c_size_t(array.ndim),
                         ctypes.c_int(self.FLOAT))

    def run(self):
        self.runner(*self.arguments)

    def output(self):
        self.call("run", *self.arguments)  # says what went wrong
        return self.scores


class OpenVino:
    """Through its C interface; in float32, where its default may be less. Its Python module is not
    imported, and openvino-telemetry not installed: to import them reports home, unasked."""

    def __init__(self, model, threads, pixels, folder):
        self.version = importlib.metadata.version("openvino")
        self.settings = "C interface, INFERENCE_PRECISION_HINT=f32, PERFORMANCE_HINT=LATENCY"
        folder = pathlib.Path(importlib.util.find_spec("openvino").origin).parent
        self.library = ctypes.CDLL(glob.glob(f"{folder}/libs/libopenvino_c.so*")[0])
        properties = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                      "INFERENCE_NUM_THREADS": str(threads)}
        words = [ctypes.c_char_p(w.encode()) for pair in properties.items() for w in pair]
        core, compiled = self.make("ov_core_create"), ctypes.c_void_p()
        check(self.library.ov_core_compile_model_from_file(
            core, os.fsencode(model), b"CPU", ctypes.c_size_t(len(words)), ctypes.byref(compiled),
            *words), "compiling")
        self.request = self.make("ov_compiled_model_create_infer_request", compiled)
        self.array("input")[...] = pixels
        self.infer = self.library.ov_infer_request_infer

    def make(self, function, *arguments):
        made = ctypes.c_void_p()
        check(getattr(self.library, function)(*arguments, ctypes.byref(made)), function)
        return made

    def array(self, side):
        """The request's own input or output."""
        tensor = self.make(f"ov_infer_request_get_{side}_tensor", self.request)
        shape = (ctypes.c_int64 * 2)()  # ov_shape_t: rank, then a pointer to the dimensions
        check(self.library.ov_tensor_get_shape(tensor, shape), "asking for a shape")
        dimensions = ctypes.cast(shape[1], ctypes.POINTER(ctypes.c_int64))[:shape[0]]
        data = ctypes.cast(self.make("ov_tensor_data", tensor), ctypes.POINTER(ctypes.c_float))
        return numpy.ctypeslib.as_array(data, dimensions)

    def run(self):
        self.infer(self.request)

    def output(self):
        check(self.infer(self.request), "a run")
        return self.array("output")


class Ncnn:
    """Converted by pnnx. It has no batches: it runs image by image."""

    def __init__(self, model, threads, pixels, folder):
        import ncnn
        import onnx
        import networks
        self.version = ncnn.__version__
        self.settings = "fp16 and bf16 off, converted by pnnx, image by image"
        # Its program only: to import the module around it takes torch.
        converter = pathlib.Path(importlib.util.find_spec("pnnx").origin).parent / "pnnx"
        single = onnx.load(model)
        networks.set_batch(single, 1)
        onnx.save(single, folder / "model.onnx")
        shape = ",".join(map(str, [1, *pixels.shape[1:]]))
        check(subprocess.run([converter, "model.onnx", f"inputshape=[{shape}]", "fp16=0"],
                             cwd=folder, stdout=2).returncode, "pnnx")
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = threads
        for name in dir(options):
            if name.startswith(("use_fp16", "use_bf16", "use_vulkan")):
                setattr(options, name, False)
        for load, file in ((self.net.load_param, "param"), (self.net.load_model, "bin")):
            check(load(str(folder / f"model.ncnn.{file}")), f"reading the converted {file}")
        self.pixels, self.scores = pixels, None
        self.images = [ncnn.Mat(image) for image in pixels]  # which use the array's memory

    def run(self):
        self.scores = []
        for image in self.images:
            with self.net.create_extractor() as extractor:
                extractor.input("in0", image)
                self.scores.append(extractor.extract("out0"))

    def output(self):
        self.run()
        check(max(status for status, _ in self.scores), "a run")
        return numpy.stack([numpy.array(scores) for _, scores in self.scores])


class Mnn:
    """Its largest Winograd tiles, which it takes by default, are off by up to 8e-4 on ResNet-50;
    the next smaller ones are about as fast, and exact enough to be compared."""

    WINOGRAD_MEMORY_LEVEL = 3  # of Interpreter::HintMode

    def __init__(self, model, threads, pixels, folder):
        import _tools  # MNN's converter as a function: its program sends statistics home
        import MNN
        self.version = MNN.version()
        self.settings = "precision high, WINOGRAD_MEMORY_LEVEL=2"
        converted = str(folder / "model.mnn")
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(model), "--MNNModel",
                           converted, "--bizCode", "compare"])
        self.engine = MNN
        self.interpreter = MNN.Interpreter(converted)
        self.interpreter.setSessionHint(self.WINOGRAD_MEMORY_LEVEL, 2)
        self.session = self.interpreter.createSession(
            {"backend": "CPU", "numThread": threads, "precision": "high"})
        self.input = self.interpreter.getSessionInput(self.session)
        self.pixels = self.tensor(pixels)

    def tensor(self, array):
        return self.engine.Tensor(array.shape, self.engine.Halide_Type_Float, array,
                                  self.engine.Tensor_DimensionType_Caffe)

    def run(self):
        self.input.copyFrom(self.pixels)  # every time: a run leaves other results in its place
        self.interpreter.runSession(self.session)

    def output(self):
        self.run()
        device = self.interpreter.getSessionOutput(self.session)
        host = self.tensor(numpy.zeros(device.getShape(), numpy.float32))
        device.copyToHostTensor(host)
        return numpy.array(host.getNumpyData())


class Tvm:
    """As it compiles without tuning: the tuner of this release ends in a segmentation fault."""

    def __init__(self, model, threads, pixels, folder):
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx
        self.version = tvm.__version__
        self.settings = "zero pipeline, not tuned"
        cpu = tvm.target.codegen.llvm_get_system_cpu()
        target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": threads})
        with target:
            module = relax.get_pipeline("zero")(from_onnx(onnx.load(model)))
            executable = tvm.compile(module, target)
        self.machine = relax.VirtualMachine(executable, tvm.cpu())
        self.machine.set_input("main", tvm.runtime.tensor(pixels))

    def run(self):
        self.machine.invoke_stateful("main")

    def output(self):
        self.run()
        return self.machine.get_outputs("main").numpy()


def measure(run, seconds, least, most):
    """Milliseconds of single runs, after one that wakes threads and caches."""
    run()
    nanoseconds = []
    end = time.perf_counter_ns() + seconds * 1e9
    while len(nanoseconds) < least or (len(nanoseconds) < most and time.perf_counter_ns() < end):
        start = time.perf_counter_ns()
        run()
        nanoseconds.append(time.perf_counter_ns() - start)
    return [n / 1e6 for n in nanoseconds]


class Worker:
    def __init__(self, engine):
        self.kind, self.engine = globals()[engines.PEERS[engine].kind], None

    def load(self, model, threads, input, folder):
        start = time.perf_counter()
        pixels = numpy.load(input)
        self.engine = self.kind(model, threads, pixels, pathlib.Path(folder))
        return {"load_ms": 1000 * (time.perf_counter() - start), "version": self.engine.version,
                "settings": self.engine.settings}

    def output(self, output):
        numpy.save(output, self.engine.output())
        return {}

    def time(self, seconds, least, most):
        return {"ms": measure(self.engine.run, seconds, least, most)}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some engines talk
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # whatever an engine throws is its answer
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
