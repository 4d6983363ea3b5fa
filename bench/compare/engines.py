"""An engine as ./dev compare sees it: a process of its own, pinned to as many CPUs as it has
threads, that answers commands (a line of JSON each) and is stopped while others are measured."""

import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    kind: str  # its class in peers.py
    colour: str  # in plots


# All of them: whoever else needs names, takes these.
PEERS = {
    "onnxruntime": Peer("OnnxRuntime", "#1f77b4"),
    "openvino": Peer("OpenVino", "#9467bd"),
    "ncnn": Peer("Ncnn", "#2ca02c"),
    "mnn": Peer("Mnn", "#ff7f0e"),
    "tvm": Peer("Tvm", "#7f7f7f"),
}
NAMES = ["lathe", *PEERS]

# Python has no prctl. Loaded here, since between fork and exec is no place to load anything.
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1

PRIVATE = {"ORT_DISABLE_TELEMETRY": "1"}  # as its Privacy.md says: nothing is collected or sent


def usable_cpus():
    return len(os.sched_getaffinity(0))


def chosen_cpus(threads):
    """Always the first ones."""
    return sorted(os.sched_getaffinity(0))[:threads]


def cache_bytes(threads):
    """Of the last-level caches that so many threads use; infinite where Linux does not say. (What
    sysconf says may be all that a large processor has.)"""
    found = {}
    for cpu in chosen_cpus(threads):
        levels = sorted(pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"))
        try:
            sharers = (levels[-1] / "shared_cpu_list").read_text()
            found[sharers] = 1024 * int((levels[-1] / "size").read_text().strip().removesuffix("K"))
        except (IndexError, OSError, ValueError):
            return float("inf")
    return sum(found.values())


def settled(threads):
    """For Popen, between fork and exec: pins the process to as many CPUs as it has threads, and
    lets it end with this one (or it would stay stopped for good)."""
    cpus = chosen_cpus(threads)

    def settle():
        os.sched_setaffinity(0, cpus)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return settle


class EngineError(Exception):
    """Why an engine has no part in a measurement."""


class Engine:
    def __init__(self, name, threads, worker, folder):
        self.name, self.threads = name, threads
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log.txt"
        here = pathlib.Path(__file__).parent
        command = [worker] if name == "lathe" else [sys.executable, here / "peers.py", name]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0,
                env={**os.environ, **PRIVATE, "OMP_NUM_THREADS": str(threads),
                     "TVM_NUM_THREADS": str(threads)},
                preexec_fn=settled(threads))

    def ask(self, verb, patience=600, **arguments):
        """The answer to one command; between commands the process stands still, so that no thread
        of its own spins beside another engine."""
        text = json.dumps({"do": verb, **arguments}, default=str) + "\n"
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(text.encode())
            line = self.read_line(patience)
            self.process.send_signal(signal.SIGSTOP)
        except BrokenPipeError:
            line = b""
        if not line:
            raise self.error(f"its process ended with status {self.process.wait()}")
        try:
            answer = json.loads(line)
        except ValueError:
            raise self.error(f"no JSON: {line[:80]!r}") from None
        if "error" in answer:
            raise self.error(answer["error"])
        return answer

    def peak_memory(self):
        """Bytes that the process had in memory at most."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            name, value = line.split(":", 1)
            if name == "VmHWM":
                return 1024 * int(value.split()[0])
        return None

    def error(self, reason):
        """With what the engine said last, which often is the true reason."""
        said = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        return EngineError(f"{reason} ({last})" if last else reason)

    def read_line(self, patience):
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], patience)[0]:
                self.close()
                raise self.error(f"no answer within {patience} s")
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return b""
            line += part
        return line

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
