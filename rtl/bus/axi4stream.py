"""Edges between AXI4-Stream Video and the internal pixel streams.

A transfer carries P pixels: one container per channel per lane, lane 0 lowest, channels in order, each
code right-aligned in its container. ``tuser`` marks the first transfer of a frame, ``tlast`` the last of a
line.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.numeric.format import Format
from pullback.rtl.stream.pixel import Pixel, beat_layout, check_lanes
from pullback.rtl.stream.skid import SkidBuffer

__all__ = ["Pack", "Unpack", "axi4stream_members", "unpacked_layout"]


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
    """AXI4-Stream Video -> pixels: ``code = saturate(container)``, aligned ``... << (16 - depth)``.

    A container is signed where its channel is. A code outside the channel's format saturates; with
    ``align`` a code above ``2**depth - 1`` saturates to that before it is shifted to the top. No frame is
    checked here: ``user`` and ``eol`` travel on with their pixels.

    Latency 2, throughput one transfer per clock. ``tready``, ``o.valid``, ``user`` and ``eol`` are registers;
    codes pass the saturation (and the shift) behind theirs.

    Parameters
    ----------
    pixel : Pixel
        Channels in the order of their containers.
    lanes : int
        Pixels per transfer.
    container : int
        Bits per channel.
    align : bool
        Shift codes of ``depth`` bits left to fill the format; the one channel must be unsigned and 16 bits
        wide.

    Members
    -------
    ``tdata`` : ``In(lanes * channels * container)``
    ``tvalid``, ``tuser``, ``tlast`` : ``In(1)``
    ``tready`` : ``Out(1)``
    ``depth`` : ``In(5)``
        With ``align`` only: 8 to 16. It acts, one clock later, on the transfer at ``o``: a frame that waits
        there while ``depth`` changes leaves with the new one.
    ``o`` : ``Out(stream.Signature(unpacked_layout(pixel, lanes)))``

    Raises
    ------
    ValueError
        If a channel does not fit its container, or cannot be aligned.
    """

    def __init__(self, pixel: Pixel, *, lanes: int, container: int = 16, align: bool = False) -> None:
        _check_containers(pixel, container)
        self.pixel = pixel
        self.lanes = lanes
        self.container = container
        self.align = align
        members = axi4stream_members(lanes * len(pixel.channels) * container, sink=True)
        if align:
            for name, form in pixel.channels:
                if form.signed or form.width != 16:
                    raise ValueError(f"channel {name} of {form} cannot be aligned; make it UQ(0, 16)")
            members["depth"] = In(5)
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
        ]
        # The register keeps containers as they came: with `align` a beat may wait here for the frame before
        # it, and must then leave with the depth that is active when its own frame begins.
        beat = Signal.like(skid.o.payload, name="beat")
        m.d.comb += skid.o.ready.eq(self.o.ready | ~self.o.valid)
        with m.If(skid.o.ready):
            m.d.sync += [self.o.valid.eq(skid.o.valid), beat.eq(skid.o.payload)]
        m.d.comb += [self.o.payload.user.eq(beat.user), self.o.payload.eol.eq(beat.eol)]
        above = Signal(self.container)
        shift = Signal(4)
        if self.align:
            m.d.sync += [
                above.eq(Cat(self.depth <= k for k in range(self.container))),
                shift.eq(16 - self.depth),
            ]
        position = 0
        for lane in range(self.lanes):
            for name, form in self.pixel.channels:
                code = beat.data[position : position + self.container]
                position += self.container
                if self.align:
                    # All ones, shifted, are the largest code of this depth.
                    filled = code[:16] | (code & above).any().replicate(16)
                    value = Signal(16, name=f"{name}_{lane}")
                    with m.Switch(shift):
                        for amount in range(9):
                            with m.Case(amount):
                                m.d.comb += value.eq(Cat(Const(0, amount), filled[: 16 - amount]))
                else:
                    value = _saturate(code, form)
                m.d.comb += self.o.payload.lane[lane][name].eq(value)
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


def _saturate(code: Value, form: Format) -> Value:
    """The container's value, brought into the format."""
    if form.signed:
        top = code[form.width - 1 :]
        fits = ~top.any() | top.all()
        edge = Cat((~code[-1]).replicate(form.width - 1), code[-1])
        return Mux(fits, code[: form.width], edge)
    over = code[form.width :]
    return code[: form.width] | over.any().replicate(form.width) if len(over) else code[: form.width]
