"""A core's Verilog as a fast Python callable.

:meth:`Model.build` compiles the Verilog with Verilator, together with a generic clock loop in C++
(``frame_loop.cpp``), into one shared library; :meth:`Model.run` then streams a batch of frames through it in
one call, all streams at once, and brings back pictures, gradients, results and exact cycle counts. Libraries
are cached by content, so only the first build of a core costs time.

    model = Model.build({"core.sv": text})
    model.load_parameters(words)              # width, height, ..., then the stages' parameters
    out = model.run(raw, target=target)       # out.picture, out.gradient, out.results, out.cycles

A core has the flat AXI ports ``clk``, ``rst``, ``s_axis_raw_*``, ``s_axil_*``, and any of ``m_axis_picture_*``,
``s_axis_target_*``, ``s_axis_cotangent_*``, ``m_axis_gradient_*``. Which of them exist is found in the Verilog.
"""

from __future__ import annotations

import ctypes
import json
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pullback.sim.beats import CONTAINER_BITS, Beats, pack_frames, unpack_frames
from pullback.sim.stalls import NONE, Stall
from pullback.sim.verilated import BuildFailed, Loop, Ports, Progress, shared_object

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "BeatRun",
    "BusError",
    "CoreError",
    "Cycles",
    "GeometryError",
    "Model",
    "ProtocolError",
    "Run",
    "StreamError",
    "StuckError",
]

INPUTS = ("raw", "target", "cotangent")
OUTPUTS = ("picture", "gradient")
ERROR_NAMES = (
    "raw line too long", "raw line too short", "raw frame out of step",
    "target line too long", "target line too short", "target frame out of step",
    "cotangent line too long", "cotangent line too short", "cotangent frame out of step",
    "bad geometry at commit", "results overrun",
)  # fmt: skip

_CONTROL, _STATUS, _ERRORS, _ACK = 0x008, 0x00C, 0x010, 0x02C
_MAX_SIZE, _BUILD, _RESULT_WORDS = 0x030, 0x034, 0x03C
_PARAMETER_BASE = 0x1000
_FRAME_WORDS = ("width", "height", "cfa", "depth", "frames")
_BAD_GEOMETRY = 1 << 9


class CoreError(RuntimeError):
    """A core did not do what was asked of it."""


class StuckError(CoreError):
    """No stream moved for ``patience`` cycles. The message says where each stands."""


class ProtocolError(CoreError):
    """An output dropped valid or changed its payload while it waited, or gave more beats than there are."""


class StreamError(CoreError):
    """The core flagged errors of its input streams, or an output's frames were malformed."""


class BusError(CoreError):
    """The register bus gave no answer, or SLVERR."""


class GeometryError(CoreError, ValueError):
    """A commit was refused: the frame words do not suit the core."""


class _StreamJob(ctypes.Structure):  # struct StreamJob in frame_loop.cpp
    _fields_ = [
        ("data", ctypes.c_void_p), ("flags", ctypes.c_void_p), ("cycles", ctypes.c_void_p),
        ("beats", ctypes.c_uint64), ("done", ctypes.c_uint64),
        ("on", ctypes.c_double), ("off", ctypes.c_double), ("random", ctypes.c_int32), ("waiting", ctypes.c_int32),
    ]  # fmt: skip


class _Job(ctypes.Structure):  # struct Job in frame_loop.cpp
    _fields_ = [
        ("inputs", _StreamJob * len(INPUTS)), ("outputs", _StreamJob * len(OUTPUTS)),
        ("seed", ctypes.c_uint64), ("patience", ctypes.c_uint64), ("quiet", ctypes.c_uint64),
        ("results", ctypes.c_void_p), ("result_cycles", ctypes.c_void_p),
        ("groups", ctypes.c_uint64), ("words", ctypes.c_uint64), ("groups_done", ctypes.c_uint64),
        ("raw_per_group", ctypes.c_uint64), ("raw_first", ctypes.c_uint64),
        ("out_per_group", ctypes.c_uint64), ("out_first", ctypes.c_uint64),
        ("watch", ctypes.c_int32), ("fault_stream", ctypes.c_int32), ("cycles", ctypes.c_uint64),
    ]  # fmt: skip


_DONE, _STUCK, _UNSTABLE, _OVERFLOW, _BUS_STUCK, _BUS_REFUSED, _PAUSED = range(7)


@dataclass(frozen=True)
class Cycles:
    """When frames passed, in clock cycles from the start of the run.

    Attributes
    ----------
    first_in, last_in : [N] int64
        First and last beat of each raw frame.
    first_out, last_out : [N] int64
        First and last beat of each frame of the gradient, or of the picture if the core has no gradient.
    results : [groups] int64
        When the last word of a group's results had been read.
    """

    first_in: np.ndarray
    last_in: np.ndarray
    first_out: np.ndarray
    last_out: np.ndarray
    results: np.ndarray

    @property
    def total(self) -> int:
        """From the first input beat to the last output beat, both counted."""
        return int(self.last_out[-1] - self.first_in[0]) + 1

    @property
    def per_frame(self) -> float:
        """Mean distance of frames at the output but for the last, which waits for its flush. Needs three frames."""
        if len(self.last_out) < 3:
            raise ValueError(f"{len(self.last_out)} frames have no steady state: run at least three")
        return float(self.last_out[-2] - self.last_out[0]) / (len(self.last_out) - 2)


@dataclass(frozen=True)
class Run:
    """What :meth:`Model.run` brings back.

    Attributes
    ----------
    picture : [N,C,H,W] uint16 or None
        Codes; of a signed channel, two's complement. int32 with sign if its container has 24 bits.
    gradient : [N,C,H,W] int32 or None
    results : [groups, words] int64
        Result words of every group that ended within this run.
    cycles : Cycles
    seconds : float
        Wall time of the simulation.
    """

    picture: np.ndarray | None
    gradient: np.ndarray | None
    results: np.ndarray
    cycles: Cycles
    seconds: float


@dataclass(frozen=True)
class BeatRun:
    """What :meth:`Model.run_beats` brings back.

    Attributes
    ----------
    outputs : dict
        Name of the output -> :class:`~pullback.sim.beats.Beats` that came.
    taken : dict
        Name of the input -> number of beats that the core took.
    errors : int
        The sticky ERRORS register after the run.
    cycles : int
    """

    outputs: dict[str, Beats]
    taken: dict[str, int]
    errors: int
    cycles: int


def _check_ports(found: dict[str, tuple[str, int]]) -> None:
    needed = ["clk", "rst", "s_axis_raw_tdata", "s_axil_awvalid", "s_axil_rdata"]
    if missing := [name for name in needed if name not in found]:
        raise BuildFailed(
            f"the top module has no port {', '.join(missing)}; it has {', '.join(sorted(found))}"
        )
    if not any(f"m_axis_{name}_tdata" in found for name in OUTPUTS):
        raise BuildFailed("the top module has neither m_axis_picture_tdata nor m_axis_gradient_tdata")


def _ports_header(ports: dict[str, tuple[str, int]]) -> str:
    lists = []
    for macro, side, names in (("INPUT", "s", INPUTS), ("OUTPUT", "m", OUTPUTS)):
        items = []
        for index, name in enumerate(names):
            if (port := ports.get(f"{side}_axis_{name}_tdata")) is not None:
                if port[1] % 8 or port[1] > 1024:
                    raise BuildFailed(
                        f"tdata of {name} has {port[1]} bits; whole bytes up to 1024 bits are supported"
                    )
                items.append(f"{macro}({index}, {name}, {port[1] // 8})")
        lists.append(f"#define {macro}S {' '.join(items)}\n")
    return "".join(lists)


_LOOP = Loop(Path(__file__).with_name("frame_loop.cpp"), _check_ports, _ports_header)


def _load(path: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    void, u64, i32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32
    for name, result, arguments in (
        ("new", void, []),
        ("delete", None, [void]),
        ("reset", None, [void]),
        ("clock", None, [void, u64]),
        ("job_size", u64, []),
        ("read", i32, [void, ctypes.c_uint16, ctypes.POINTER(ctypes.c_uint32)]),
        ("write", i32, [void, void, void, u64, ctypes.POINTER(u64)]),
        ("run", i32, [void, ctypes.POINTER(_Job), i32]),
    ):
        function = getattr(lib, f"pullback_{name}")
        function.restype, function.argtypes = result, arguments
    if lib.pullback_job_size() != ctypes.sizeof(_Job):
        raise CoreError(f"{path} was compiled from another frame_loop.cpp: delete it")
    return lib


@dataclass
class _Stream:
    """Buffers of one stream of a run; kept while the C++ loop points into them."""

    data: np.ndarray
    flags: np.ndarray
    cycles: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.cycles = np.zeros(len(self.data), np.uint32)


class Model:
    """One core, verilated. Starts in reset state; the first thing it needs is :meth:`load_parameters`.

    Instances are independent of each other: as many as wanted per shared object, thread and process. One instance
    belongs to one thread at a time. Calls into the simulation release the interpreter lock, and Ctrl-C ends
    them within a fraction of a second. After a :class:`CoreError` out of a run or of the bus, :meth:`reset`.

    Parameters
    ----------
    shared_object : Path
        What ``Model.build(...).shared_object`` was, in this process or another.
    containers : dict, optional
        Bits per channel, 16 or 24, of streams where they differ from ``CONTAINER_BITS``: a core whose input or
        output format is wider than 16 bits has 24 there.

    Attributes
    ----------
    shared_object : Path
    ports : dict
        Name -> (direction, width).
    lanes : int
        Pixels per beat, from the core's BUILD register.
    inputs, outputs : tuple of str
        Streams that this core has, out of ``INPUTS`` and ``OUTPUTS``.
    result_words : int
        64-bit words per group.
    max_size : (int, int)
        Largest width and height.
    """

    def __init__(self, shared_object: Path, *, containers: Mapping[str, int] | None = None) -> None:
        self.shared_object = Path(shared_object)
        self.containers = {**CONTAINER_BITS, **(containers or {})}
        described = json.loads(self.shared_object.with_name("ports.json").read_text())
        self.ports: Mapping[str, tuple[str, int]] = MappingProxyType(
            {k: tuple(v) for k, v in described.items()}
        )
        self.inputs = tuple(name for name in INPUTS if f"s_axis_{name}_tdata" in self.ports)
        self.outputs = tuple(name for name in OUTPUTS if f"m_axis_{name}_tdata" in self.ports)
        self._lib = _load(self.shared_object)
        self._core = ctypes.c_void_p(self._lib.pullback_new())
        self._finalizer = weakref.finalize(self, self._lib.pullback_delete, self._core)
        self._words: dict[int, int] = {}
        self._in_group = 0
        self._broken: str | None = None
        self.reset()
        self.lanes = self.read(_BUILD) & 0xFF
        self.result_words = self.read(_RESULT_WORDS)
        size = self.read(_MAX_SIZE)
        self.max_size = (size & 0xFFFF, size >> 16)
        for name in self.inputs + self.outputs:
            if self.containers[name] not in (16, 24):
                raise ValueError(f"containers[{name!r}] is {self.containers[name]}; it is 16 or 24")
            if not self.lanes or self._bytes(name) * 8 % (self.lanes * self.containers[name]):
                raise CoreError(
                    f"{name} has {self._bytes(name) * 8} bits, which is not {self.lanes} lanes of channels of "
                    f"{self.containers[name]} bits: give containers={{{name!r}: ...}} if they are others"
                )

    @classmethod
    def build(
        cls,
        sources: Mapping[str, str],
        *,
        top: str = "core",
        ports: Ports | None = None,
        optimise: str = "fast",
        containers: Mapping[str, int] | None = None,
        progress: Progress | None = None,
        jobs: int | None = None,
    ) -> Model:
        """Compiles a core, or finds it in the cache, and gives a fresh instance of it.

        Parameters
        ----------
        sources : dict
            File name -> Verilog or SystemVerilog text.
        top : str
            Name of the top module.
        ports : dict, optional
            Name -> (direction, width, ...), as ``pullback.gen.verilog.ports`` gives it: checked against the Verilog.
        optimise : str
            ``"quick"`` for tests that run few frames, ``"fast"`` for everything that iterates. A five-stage ISP with
            its pullback: 22 and 31 processor-seconds to build, 60 and 171 thousand pixels a second.
        containers : dict, optional
            See :class:`Model`.
        progress : callable, optional
            Gets (fraction, message).
        jobs : int, optional
            Compilers at a time; default: one per processor.

        Raises
        ------
        ToolMissing
            If Verilator or the C++ compiler is not there.
        BuildFailed
            If one of them refuses the sources, or the ports are not those of a core.
        """
        made = shared_object(
            _LOOP, sources, top=top, ports=ports, optimise=optimise, progress=progress, jobs=jobs
        )
        return cls(made, containers=containers)

    # ---- registers

    def reset(self, *, wait: bool = True) -> None:
        """Resets the core and waits until the defaults are its parameters. Counters are zero.

        Without ``wait`` the next call's streams or register access begin in the first clock after reset.
        """
        self._lib.pullback_reset(self._core)
        self._words.clear()
        self._in_group = 0
        self._broken = None
        if wait:
            self._wait_committed()

    def read(self, address: int) -> int:
        """Reads a register."""
        self._check_usable()
        value = ctypes.c_uint32(0)
        self._check_bus(self._lib.pullback_read(self._core, address, ctypes.byref(value)), "read of", address)
        return value.value

    def write(self, address: int, value: int) -> None:
        """Writes a register. A negative value goes as two's complement."""
        self._write([address], [value])
        if address >= _PARAMETER_BASE:  # behind the back of load_parameters
            self._words.pop((address - _PARAMETER_BASE) // 4, None)

    def _write(self, addresses: Sequence[int], values: Sequence[int]) -> None:
        self._check_usable()
        at = np.array(addresses, np.uint16)
        data = np.array([value & 0xFFFFFFFF for value in values], np.uint32)
        done = ctypes.c_uint64(0)
        status = self._lib.pullback_write(
            self._core, at.ctypes.data, data.ctypes.data, len(at), ctypes.byref(done)
        )
        self._check_bus(status, "write to", int(at[min(done.value, len(at) - 1)]))

    def _check_bus(self, status: int, what: str, address: int) -> None:
        if status == _BUS_STUCK:
            self._broken = f"the register bus gave no answer to a {what} {address:#06x}"
            raise BusError(self._broken)
        if status == _BUS_REFUSED:
            raise BusError(
                f"the core answered a {what} {address:#06x} with an error: there is no such register"
            )

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise CoreError(f"the model stopped earlier ({self._broken}): call reset() first")

    @property
    def errors(self) -> int:
        """The sticky ERRORS register."""
        return self.read(_ERRORS)

    def clear_errors(self) -> None:
        """Clears the sticky errors."""
        self.write(_ERRORS, 0xFFFFFFFF)

    def load_parameters(self, words: Sequence[int] | np.ndarray) -> None:
        """Writes the parameter memory from word 0 on, as far as it changed, and commits.

        Raises
        ------
        GeometryError
            If the core refuses the frame words; what was active stays so.
        """
        wanted = [int(word) for word in words]
        changed = [k for k, word in enumerate(wanted) if self._words.get(k) != word]
        self._write([_PARAMETER_BASE + 4 * k for k in changed], [wanted[k] for k in changed])
        self._words.update((k, wanted[k]) for k in changed)
        self.write(_CONTROL, 1)
        self._wait_committed()
        if self.errors & _BAD_GEOMETRY:
            self.write(_ERRORS, _BAD_GEOMETRY)
            given = ", ".join(f"{name} {wanted[k]}" for k, name in enumerate(_FRAME_WORDS) if k < len(wanted))
            raise GeometryError(
                f"the core refuses {given}: width is 1 to {self.max_size[0]}, height 1 to {self.max_size[1]}, "
                "cfa 0 to 3, depth 8 to 16, frames at least 1"
            )
        self._geometry = (wanted[0], wanted[1])
        self._frames = wanted[4]

    def _wait_committed(self) -> None:
        for _ in range(10000):
            if not self.read(_STATUS) & 1:
                return
            self._lib.pullback_clock(self._core, 16)
        self._broken = "a commit stays pending: a frame was begun and not finished"
        raise StuckError(self._broken)

    # ---- streams

    def _bytes(self, name: str) -> int:
        side = "s" if name in INPUTS else "m"
        return self.ports[f"{side}_axis_{name}_tdata"][1] // 8

    def channels(self, name: str) -> int:
        """Channels of a stream."""
        return self._bytes(name) * 8 // self.containers[name] // self.lanes

    def run(
        self,
        raw: np.ndarray,
        *,
        target: np.ndarray | None = None,
        cotangent: np.ndarray | None = None,
        stalls: Mapping[str, Stall] | Stall = NONE,
        seed: int = 0,
        patience: int = 100_000,
    ) -> Run:
        """Streams frames through the core, back to back.

        All streams run at once, results are fetched and acknowledged while the next group runs. Lanes beyond
        the width carry garbage. Frames that do not complete a group (``frames`` of the parameters) count on in
        the next run.

        Parameters
        ----------
        raw : [N,C,H,W] uint16
        target : [N,C,H,W] uint16, optional
        cotangent : [N,C,H,W] int32, optional
            24-bit codes.
        stalls : Stall or dict
            For all streams, or name of the stream -> pattern.
        seed : int
            Of the stalls and of the garbage.
        patience : int
            Cycles without a transfer after which the watchdog ends the run.

        Raises
        ------
        ValueError
            If shapes do not fit each other, the core, or the committed size.
        StuckError, ProtocolError, StreamError
            If the core misbehaves.
        """
        self._check_usable()
        if 0 not in self._words:
            raise CoreError("the core has no geometry yet: call load_parameters() first")
        given = {"raw": raw, "target": target, "cotangent": cotangent}
        arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
        count = self._check_arrays(arrays)
        width, height = self._geometry
        rng = np.random.default_rng(seed)
        inputs = {
            n: pack_frames(a, lanes=self.lanes, bits=self.containers[n], rng=rng) for n, a in arrays.items()
        }
        beats = height * -(-width // self.lanes)

        job = _Job()
        frames = self._frames
        first = max(frames - self._in_group, 1)
        groups = 1 + (count - first) // frames if count >= first and self.result_words else 0
        results = np.zeros((groups, self.result_words), np.int64)
        result_cycles = np.zeros(groups, np.uint32)
        job.results, job.result_cycles = results.ctypes.data, result_cycles.ctypes.data
        job.groups, job.words = groups, self.result_words
        job.raw_first = job.out_first = first * beats
        job.raw_per_group = job.out_per_group = frames * beats
        started = time.perf_counter()
        buffers = self._execute(
            job, inputs, dict.fromkeys(self.outputs, count * beats), stalls, seed, patience
        )
        seconds = time.perf_counter() - started
        self._in_group = self._in_group + count if count < first else (count - first) % frames

        if errors := self.errors:
            self.clear_errors()
            names = [name for bit, name in enumerate(ERROR_NAMES) if errors >> bit & 1]
            raise StreamError(f"the core flags {', '.join(names) or hex(errors)}")
        frames_out = {}
        for name in self.outputs:
            received = Beats(buffers[name].data, buffers[name].flags & 1, buffers[name].flags >> 1)
            try:
                frames_out[name] = unpack_frames(
                    received, width=width, height=height, lanes=self.lanes, bits=self.containers[name],
                )  # fmt: skip
            except ValueError as error:
                raise StreamError(f"{name}: {error}") from error
        times = {
            n: buffers[n].cycles.astype(np.int64).reshape(count, beats) for n in ("raw", self.outputs[-1])
        }
        into, out = times["raw"], times[self.outputs[-1]]
        cycles = Cycles(into[:, 0], into[:, -1], out[:, 0], out[:, -1], result_cycles.astype(np.int64))
        return Run(frames_out.get("picture"), frames_out.get("gradient"), results, cycles, seconds)

    def run_beats(
        self,
        inputs: Mapping[str, Beats],
        *,
        stalls: Mapping[str, Stall] | Stall = NONE,
        seed: int = 0,
        quiet: int = 5000,
        room: int | None = None,
    ) -> BeatRun:
        """Streams beats as they are, well-formed or not, until nothing moves for ``quiet`` cycles.

        Results are not fetched: groups that end are acknowledged together at the end of the run, and more than one
        shows in ``errors`` as an overrun. Errors stay until :meth:`clear_errors`. Where a spoilt frame leaves the
        count of frames in a group is the core's affair: :meth:`reset` before :meth:`run`, if groups matter.

        Parameters
        ----------
        inputs : dict
            Name of the stream -> beats; :func:`~pullback.sim.beats.pack_frames` makes good ones to be spoilt.
        room : int, optional
            Most beats of an output; default: four times those of the longest input, and 4096.

        Raises
        ------
        ProtocolError
            If an output breaks the handshake or exceeds ``room``.
        """
        self._check_usable()
        if quiet < 1:
            raise ValueError(f"quiet is {quiet}: it must be at least one cycle")
        for name, beats in inputs.items():
            if name not in self.inputs:
                raise ValueError(f"this core has no input {name!r}; it has {', '.join(self.inputs)}")
            if beats.data.shape[1] != self._bytes(name):
                raise ValueError(
                    f"{name} takes {self._bytes(name)} bytes per beat, not {beats.data.shape[1]}"
                )
        if room is None:
            room = 4 * max(map(len, inputs.values()), default=0) + 4096
        job = _Job(quiet=quiet)
        buffers = self._execute(job, inputs, dict.fromkeys(self.outputs, room), stalls, seed, quiet)
        outputs = {}
        for name in self.outputs:
            done, stream = job.outputs[OUTPUTS.index(name)].done, buffers[name]
            outputs[name] = Beats(stream.data[:done], stream.flags[:done] & 1, stream.flags[:done] >> 1)
        taken = {name: job.inputs[INPUTS.index(name)].done for name in inputs}
        self.write(_ACK, 1)
        return BeatRun(outputs, taken, self.errors, job.cycles)

    def _check_arrays(self, arrays: dict[str, np.ndarray]) -> int:
        width, height = self._geometry
        count = len(arrays["raw"]) if arrays["raw"].ndim else 0
        for name, array in arrays.items():
            if name not in self.inputs:
                raise ValueError(f"this core has no input {name!r}; it has {', '.join(self.inputs)}")
            shape = (count, self.channels(name), height, width)
            if array.shape != shape:
                raise ValueError(
                    f"{name} has shape {array.shape}; raw and the committed size ask for {shape}"
                )
        if not count:
            raise ValueError("raw has no frame: give at least one")
        return count

    def _execute(
        self,
        job: _Job,
        inputs: Mapping[str, Beats],
        outputs: Mapping[str, int],
        stalls: Mapping[str, Stall] | Stall,
        seed: int,
        patience: int,
    ) -> dict[str, _Stream]:
        if isinstance(stalls, Stall):
            stalls = dict.fromkeys((*self.inputs, *self.outputs), stalls)
        if unknown := [name for name in stalls if name not in self.inputs + self.outputs]:
            raise ValueError(
                f"stalls names {unknown[0]!r}; this core has {', '.join(self.inputs + self.outputs)}"
            )
        buffers: dict[str, _Stream] = {}
        for name, beats in inputs.items():
            flags = np.asarray(beats.user, np.uint8) | np.asarray(beats.last, np.uint8) << 1
            buffers[name] = _Stream(np.ascontiguousarray(beats.data, np.uint8), np.ascontiguousarray(flags))
        for name, room in outputs.items():
            buffers[name] = _Stream(np.zeros((room, self._bytes(name)), np.uint8), np.zeros(room, np.uint8))
        for name, buffer in buffers.items():
            stream = job.inputs[INPUTS.index(name)] if name in INPUTS else job.outputs[OUTPUTS.index(name)]
            stream.data, stream.flags = buffer.data.ctypes.data, buffer.flags.ctypes.data
            stream.cycles, stream.beats = buffer.cycles.ctypes.data, len(buffer.data)
            pattern = stalls.get(name, NONE)
            stream.on, stream.off, stream.random = pattern.on, pattern.off, pattern.random
        job.seed, job.patience, job.watch = seed, patience, OUTPUTS.index(self.outputs[-1])

        status, fresh = _PAUSED, 1
        self._broken = "a run was interrupted"
        while status == _PAUSED:
            status = self._lib.pullback_run(self._core, ctypes.byref(job), fresh)
            fresh = 0
        self._broken = None
        if status != _DONE:
            self._raise(status, job)
        return buffers

    def _raise(self, status: int, job: _Job) -> None:
        name = OUTPUTS[job.fault_stream]
        if status == _UNSTABLE:
            self._broken = f"{name} dropped valid or changed its payload while it waited for ready"
            raise ProtocolError(self._broken)
        if status == _OVERFLOW:
            self._broken = f"{name} gave more than {job.outputs[job.fault_stream].beats} beats"
            raise ProtocolError(self._broken)
        if status == _BUS_REFUSED:
            self._broken = "the core answered an error while its results were fetched"
            raise BusError(self._broken)
        lines = []
        for names, streams, verbs in (
            (self.inputs, job.inputs, "taken"),
            (self.outputs, job.outputs, "given"),
        ):
            for name in names:
                s = streams[(INPUTS if verbs == "taken" else OUTPUTS).index(name)]
                if s.data is None:
                    lines.append(f"{name}: nothing offered")
                    continue
                valid, ready = s.waiting & 1, s.waiting >> 1 & 1
                mark = " <- stuck" if s.done < s.beats else ""
                lines.append(
                    f"{name}: {s.done} of {s.beats} beats {verbs}, valid {valid}, ready {ready}{mark}"
                )
        if job.groups:
            mark = " <- stuck" if job.groups_done < job.groups else ""
            lines.append(f"results: {job.groups_done} of {job.groups} groups ready{mark}")
        self._broken = f"nothing moved for {job.patience} cycles; " + "; ".join(lines)
        raise StuckError(self._broken)
