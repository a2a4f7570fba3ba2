"""Edges between AXI4-Stream Video and the internal pixel streams.

A transfer carries P pixels: one container per channel per lane, lane 0 lowest, channels in order, each
code right-aligned in its container. ``tuser`` marks the first transfer of a frame, ``tlast`` the last of a
line.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.numeric.format import Format
from pullback.rtl.stream.pixel import Pixel, beat_layout, check_lanes
from pullback.rtl.stream.skid import SkidBuffer

__all__ = ["Align", "Pack", "Unpack", "axi4stream_members", "saturated", "unpacked_layout"]


def axi4stream_members(width: int, *, sink: bool, prefix: str = "") -> dict[str, wiring.Member]:
    """The flat ports of an AXI4-Stream Video sink or source, ``width`` bits of ``tdata``."""
    forth, back = (In, Out) if sink else (Out, In)
    return {
        f"{prefix}tdata": forth(width),
        f"{prefix}tvalid": forth(1),
        f"{prefix}tready": back(1),
        f"{prefix}tuser": forth(1),
        f"{prefix}tlast": forth(1),
    }


def unpacked_layout(pixel: Pixel, lanes: int) -> data.StructLayout:
    """What :class:`Unpack` gives: ``lane`` (``lanes`` pixels), ``user`` and ``eol`` as they came."""
    check_lanes(lanes)
    return data.StructLayout({"lane": data.ArrayLayout(pixel.layout(), lanes), "user": 1, "eol": 1})


def _check_containers(pixel: Pixel, container: int) -> None:
    for name, form in pixel.channels:
        if form.width > container:
            raise ValueError(f"channel {name} of {form} does not fit a container of {container} bits")


class Unpack(wiring.Component):
    """AXI4-Stream Video -> pixels: ``code = saturate(container)``.

    A container is signed where its channel is. A code outside the channel's format saturates. No frame is
    checked here: ``user`` and ``eol`` travel on with their pixels.

    Latency 1, throughput one transfer per clock. ``tready``, ``o.valid``, ``user`` and ``eol`` are registers;
    codes pass the saturation behind theirs.

    Parameters
    ----------
    pixel : Pixel
        Channels in the order of their containers.
    lanes : int
        Pixels per transfer.
    container : int
        Bits per channel.

    Members
    -------
    ``tdata`` : ``In(lanes * channels * container)``
    ``tvalid``, ``tuser``, ``tlast`` : ``In(1)``
    ``tready`` : ``Out(1)``
    ``o`` : ``Out(stream.Signature(unpacked_layout(pixel, lanes)))``

    Raises
    ------
    ValueError
        If a channel does not fit its container.
    """

    def __init__(self, pixel: Pixel, *, lanes: int, container: int = 16) -> None:
        _check_containers(pixel, container)
        self.pixel = pixel
        self.lanes = lanes
        self.container = container
        members = axi4stream_members(lanes * len(pixel.channels) * container, sink=True)
        super().__init__({**members, "o": Out(stream.Signature(unpacked_layout(pixel, lanes)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = SkidBuffer(
            data.StructLayout({"data": len(self.tdata), "user": 1, "eol": 1})
        )
        m.d.comb += [
            skid.i.valid.eq(self.tvalid),
            self.tready.eq(skid.i.ready),
            skid.i.payload.data.eq(self.tdata),
            skid.i.payload.user.eq(self.tuser),
            skid.i.payload.eol.eq(self.tlast),
            self.o.valid.eq(skid.o.valid),
            skid.o.ready.eq(self.o.ready),
            self.o.payload.user.eq(skid.o.payload.user),
            self.o.payload.eol.eq(skid.o.payload.eol),
        ]
        position = 0
        for lane in range(self.lanes):
            for name, form in self.pixel.channels:
                code = skid.o.payload.data[position : position + self.container]
                position += self.container
                m.d.comb += self.o.payload.lane[lane][name].eq(saturated(code, form))
        return m


class Align(wiring.Component):
    """Codes of ``depth`` bits, moved to the top of their format: ``o = min(i, 2**depth - 1) << (16 - depth)``.

    Latency 1, throughput one beat per clock; ``i.ready`` and ``o.valid`` are registers. It stands behind the
    `Framer`, which holds a frame back while ``depth`` may change.

    Parameters
    ----------
    pixel : Pixel
        Its one channel is unsigned and 16 bits wide.
    lanes : int
        Pixels per beat.

    Members
    -------
    ``i``, ``o`` : stream of ``beat_layout(pixel, lanes)``
    ``depth`` : ``In(5)``
        8 to 16; acts one clock later.

    Raises
    ------
    ValueError
        If the pixel is another.
    """

    def __init__(self, pixel: Pixel, *, lanes: int) -> None:
        check_lanes(lanes)
        if not Align.takes(pixel):
            formats = ", ".join(f"{name} {form}" for name, form in pixel.channels)
            raise ValueError(f"pixels of {formats} cannot be aligned; one channel of UQ(0, 16) can")
        self.pixel = pixel
        self.lanes = lanes
        layout = beat_layout(pixel, lanes)
        super().__init__(
            {"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout)), "depth": In(5)}
        )

    @staticmethod
    def takes(pixel: Pixel) -> bool:
        """Whether a pixel can be aligned."""
        return [(form.width, form.signed) for _, form in pixel.channels] == [(16, False)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        (name,) = self.pixel.names
        shifted = data.StructLayout({"code": 16, "above": 1})  # by up to 3
        flags = ("first", "eol", "last")
        m.submodules.skid = skid = SkidBuffer(
            data.StructLayout({"lane": data.ArrayLayout(shifted, self.lanes)} | dict.fromkeys(flags, 1))
        )
        above = Signal(16)
        filled = Signal(16)
        shift = Signal(4)
        m.d.sync += [
            above.eq(Cat(self.depth <= k for k in range(16))),
            filled.eq(Cat(self.depth >= 16 - k for k in range(16))),
            shift.eq(16 - self.depth),
        ]
        m.d.comb += [
            skid.i.valid.eq(self.i.valid),
            self.i.ready.eq(skid.i.ready),
            self.o.valid.eq(skid.o.valid),
            skid.o.ready.eq(self.o.ready),
            *(skid.i.payload[flag].eq(self.i.payload[flag]) for flag in flags),
            *(self.o.payload[flag].eq(skid.o.payload[flag]) for flag in flags),
        ]
        for lane in range(self.lanes):
            code, moved = self.i.payload.lane[lane][name], skid.i.payload.lane[lane]
            m.d.comb += moved.above.eq((code & above).any())
            m.d.comb += moved.code.eq(code << shift[:2])
            moved = skid.o.payload.lane[lane]
            # What is too large saturates: every bit that the depth fills is 1.
            coarse = Mux(shift[3], moved.code << 8, Mux(shift[2], moved.code << 4, moved.code))
            m.d.comb += self.o.payload.lane[lane][name].eq(coarse | Mux(moved.above, filled, 0))
        return m


class Pack(wiring.Component):
    """Pixels -> AXI4-Stream Video: ``container = code``, extended with zeros or the sign.

    ``tuser`` is ``first``, ``tlast`` is ``eol``. Lanes beyond the picture, in the last transfer of a line
    whose ``width`` the lanes do not divide, are 0.

    Latency 1, throughput one transfer per clock; every output is a register.

    Parameters
    ----------
    pixel : Pixel
        Channels in the order of their containers.
    lanes : int
        Pixels per transfer.
    container : int
        Bits per channel.

    Members
    -------
    ``i`` : ``In(stream.Signature(beat_layout(pixel, lanes)))``
    ``width`` : ``In(16)``
        Pixels in a line, constant from a clock before the first pixel to after the last.
    ``tdata`` : ``Out(lanes * channels * container)``
    ``tvalid``, ``tuser``, ``tlast`` : ``Out(1)``
    ``tready`` : ``In(1)``

    Raises
    ------
    ValueError
        If a channel does not fit its container.
    """

    def __init__(self, pixel: Pixel, *, lanes: int, container: int = 16) -> None:
        _check_containers(pixel, container)
        self.pixel = pixel
        self.lanes = lanes
        self.container = container
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(pixel, lanes))),
                "width": In(16),
                **axi4stream_members(lanes * len(pixel.channels) * container, sink=False),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = SkidBuffer(
            data.StructLayout({"data": len(self.tdata), "user": 1, "eol": 1})
        )
        beat = self.i.payload
        # Lanes are a power of two: the low bits of the width are the pixels of the last transfer, 0 for all.
        rest = self.width[: (self.lanes - 1).bit_length()]
        containers = []
        for lane in range(self.lanes):
            keep = Signal(init=1, name=f"keep_{lane}")
            m.d.sync += keep.eq((rest == 0) | (rest > lane))
            for name in self.pixel.names:
                code = Signal(self.container, name=f"{name}_{lane}")
                with m.If(keep | ~beat.eol):
                    m.d.comb += code.eq(beat.lane[lane][name])
                containers.append(code)
        m.d.comb += [
            skid.i.payload.data.eq(Cat(containers)),
            skid.i.payload.user.eq(beat.first),
            skid.i.payload.eol.eq(beat.eol),
            skid.i.valid.eq(self.i.valid),
            self.i.ready.eq(skid.i.ready),
            self.tdata.eq(skid.o.payload.data),
            self.tuser.eq(skid.o.payload.user),
            self.tlast.eq(skid.o.payload.eol),
            self.tvalid.eq(skid.o.valid),
            skid.o.ready.eq(self.tready),
        ]
        return m


def saturated(code: Value, form: Format) -> Value:
    """The container's value, brought into the format."""
    if form.signed:
        top = code[form.width - 1 :]
        fits = ~top.any() | top.all()
        edge = Cat((~code[-1]).replicate(form.width - 1), code[-1])
        return Mux(fits, code[: form.width], edge)
    over = code[form.width :]
    return code[: form.width] | over.any().replicate(form.width) if len(over) else code[: form.width]
