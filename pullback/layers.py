"""Layers and pools as functions of floats, in numpy: what their torch and JAX operators share.

Operands become codes of 8 bits, ``floor(v 2^e + 1/2)`` saturated, e an exponent of the whole tensor: the largest for
which its peak does not saturate. Sums are exact. y is a code again, of an exponent that the caller gives. So

    ``y = 2^-e_y requantise(x w + b)``, the activation within

and its pullback for a cotangent ybar, times the derivative of the activation where the forward was, rounded to 8 bits
with an exponent of its own:

    ``xbar = 2^-(e_g + e_w) g w^T``, ``wbar = 2^-(e_x + e_g) x^T g``, ``bbar = 2^-e_g sum of g``

The derivative of quantising is 1, also where a value saturates, so that descent can bring it back; that of a result
that saturates is 0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pullback.errors import UsageError
from pullback.products import OPERAND_BITS, TOTAL_BITS, Codes, Products, open_products
from pullback.rtl.systolic.convolution import Taps
from pullback.sim.golden.requantise import Requantisation

__all__ = [
    "ACTIVATIONS",
    "EXPONENTS",
    "Activation",
    "Layer",
    "Pool",
    "check_conv2d",
    "check_linear",
    "check_pictures",
    "exponent",
    "find_layer",
    "find_pool",
    "quantise",
    "windows",
]

Real = NDArray[np.floating]

EXPONENTS = range(-40, 41)
"""Exponents of a tensor."""

_LO, _HI = -(1 << (OPERAND_BITS - 1)), (1 << (OPERAND_BITS - 1)) - 1


def exponent(values: Real) -> int:
    """The largest exponent with which the peak of these values does not saturate; 0 if there is none to see.

    Raises
    ------
    UsageError
        If a value is NaN or infinite.
    """
    peak = float(np.max(np.abs(values), initial=0.0))
    if not np.isfinite(peak):
        raise UsageError("a tensor holds NaN or infinity; look at what made it")
    if peak == 0.0:
        return 0
    # peak in [1/2, 1) 2^power: codes up to 127, so the last halfway point below 128 decides.
    power = int(np.frexp(peak)[1])
    e = OPERAND_BITS - 1 - power
    if np.floor(np.ldexp(peak, e) + 0.5) > _HI:
        e -= 1
    return int(np.clip(e, EXPONENTS[0], EXPONENTS[-1]))


def quantise(values: Real, e: int) -> Codes:
    """Codes ``floor(v 2^e + 1/2)``, saturated."""
    return np.clip(np.floor(np.ldexp(values.astype(np.float64), e) + 0.5), _LO, _HI).astype(np.int64)


@dataclass(frozen=True)
class Activation:
    """What follows a sum.

    Attributes
    ----------
    relu : bool
        Sums that are not positive give 0.
    leak : int
        Sums that are not positive are divided by ``2^leak``.
    limit : float or None
        Largest result.
    """

    relu: bool = False
    leak: int = 0
    limit: float | None = None


ACTIVATIONS = {
    "none": Activation(),
    "relu": Activation(relu=True),
    "relu6": Activation(relu=True, limit=6.0),
    **{f"leaky_relu_{1 << leak}": Activation(leak=leak) for leak in range(1, 8)},
}
"""By name. ``leaky_relu_8`` divides by 8 what is not positive."""


@dataclass(frozen=True, eq=False)
class Layer:
    """``y = f(x, w, b)`` and its pullback on floats.

    x is [M, K] and w [K, N]; or x [number, height, width, channels] and w [h, w, channels, outputs], depthwise
    [h, w, channels]. b is [outputs].

    Parameters
    ----------
    products : Products
    taps : Taps or None
        Of a convolution.
    activation : Activation
    """

    products: Products
    taps: Taps | None = None
    activation: Activation = Activation()

    def __deepcopy__(self, memo: dict) -> Layer:
        return self  # nothing here changes; copies of a module share the hardware behind it

    def shape(self, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y.

        Raises
        ------
        UsageError
            If x and w do not fit.
        """
        taps = self.taps
        if taps is None:
            if len(x) != 2 or len(w) != 2 or x[1] != w[0] or 0 in (*x, *w):
                raise UsageError(f"x has the shape {x} and w {w}; give (M, K) and (K, N), not empty")
            return x[0], w[1]
        kernel = (taps.height, taps.width)
        if (
            len(x) != 4
            or len(w) != (3 if taps.depthwise else 4)
            or w[:2] != kernel
            or x[3] != w[2]
            or 0 in (*x, *w)
        ):
            raise UsageError(
                f"x has the shape {x} and w {w}; give (number, height, width, channels) and "
                f"{(*kernel, 'channels') if taps.depthwise else (*kernel, 'channels', 'outputs')}, not empty"
            )
        high, wide = taps.size(x[1], taps.height), taps.size(x[2], taps.width)
        if high < 1 or wide < 1:
            raise UsageError(
                f"pictures of {x[1]} x {x[2]} are smaller than the kernel of {kernel[0]} x {kernel[1]} with dilation "
                f"{taps.dilation} and padding {taps.padding}"
            )
        return x[0], high, wide, w[-1]

    def forward(self, x: Real, w: Real, b: Real | None, e_y: int) -> tuple[Real, NDArray[np.uint8]]:
        """y of x's dtype, with exponent ``e_y``, or that of the sums if it is coarser; and the branch of each: 0 where
        the derivative is zero, 1 on the lower branch, 3 on the upper one.
        """
        shape = self.shape(x.shape, w.shape)
        if b is not None and b.shape != (shape[-1],):
            raise UsageError(f"b has the shape {b.shape}; give {(shape[-1],)}")
        if e_y not in EXPONENTS:
            raise UsageError(f"exponent {e_y} of y; give {EXPONENTS[0]} to {EXPONENTS[-1]}")
        e_x, e_w = exponent(x), exponent(w)
        # A sum has no more bits behind the point than its operands: a finer result would be filled with zeros.
        e_y = min(max(e_y, e_x + e_w - (TOTAL_BITS - 1)), e_x + e_w)
        shift = e_x + e_w - e_y
        act = self.activation
        top = _HI if act.limit is None else min(int(np.floor(np.ldexp(act.limit, e_y) + 0.5)), _HI)
        how = Requantisation(bits=OPERAND_BITS, shift=shift, relu=act.relu, leak=act.leak, top=top)
        half = 1 << (TOTAL_BITS - 2)
        bias = None
        if b is not None:
            if not np.isfinite(b).all():
                raise UsageError("b holds NaN or infinity; look at what made it")
            bias = np.clip(np.floor(np.ldexp(b.astype(np.float64), e_x + e_w) + 0.5), -half, half - 1).astype(
                np.int64
            )
        codes, branches = self.products.y(quantise(x, e_x), quantise(w, e_w), bias, how, self.taps)
        return np.ldexp(codes.astype(np.float64), -e_y).astype(x.dtype), branches.astype(np.uint8)

    def pull(self, x: Real, w: Real, branches: NDArray[np.uint8], ybar: Real) -> tuple[Real, Real, Real]:
        """``(xbar, wbar, bbar)`` of the dtypes of x, w and w."""
        slope = np.where(branches & 1, np.where(branches & 2, 1.0, 2.0**-self.activation.leak), 0.0)
        wanted = ybar.astype(np.float64) * slope
        e_x, e_w, e_g = exponent(x), exponent(w), exponent(wanted)
        g = quantise(wanted, e_g)
        xc, wc = quantise(x, e_x), quantise(w, e_w)
        xbar = np.ldexp(self.products.dx(g, wc, x.shape, self.taps).astype(np.float64), -(e_g + e_w))
        dw, db = self.products.dw(xc, g, self.taps)
        wbar = np.ldexp(dw.astype(np.float64), -(e_x + e_g))
        bbar = np.ldexp(db.astype(np.float64), -e_g)
        return xbar.astype(x.dtype), wbar.astype(w.dtype), bbar.astype(w.dtype)


@dataclass(frozen=True, eq=False)
class Pool:
    """The largest value of every window, and its adjoint, on floats: x [number, height, width, channels].

    x becomes codes of 8 bits as a layer's operand does; of a layer's results nothing is lost by that. A cotangent is
    rounded to 8 bits with an exponent of its own, and sums of it are exact.

    Attributes
    ----------
    products : Products
    taps : Taps
    """

    products: Products
    taps: Taps

    def shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y.

        Raises
        ------
        UsageError
            If x is no pictures, or there is no window in them.
        """
        if len(x) != 4:
            raise UsageError(f"x has the shape {x}; give (number, height, width, channels)")
        taps = self.taps
        high, wide = taps.size(x[1], taps.height), taps.size(x[2], taps.width)
        if min(x[0], high, wide, x[3]) < 1:
            raise UsageError(
                f"x of {x}, as (number, height, width, channels), is too small for windows of {taps.height} x "
                f"{taps.width} with dilation {taps.dilation} and padding {taps.padding}"
            )
        for length, kernel, windows in ((x[1], taps.height, high), (x[2], taps.width, wide)):
            if not all(taps.inside(window, length, kernel) for window in range(windows)):
                raise UsageError(
                    f"windows of {taps.height} x {taps.width} with dilation {taps.dilation} and padding {taps.padding} "
                    f"that have no tap in a picture of {x[1]} x {x[2]}; give less padding"
                )
        return x[0], high, wide, x[3]

    def forward(self, x: Real) -> tuple[Real, NDArray[np.uint8]]:
        """y of x's dtype, and the number of the tap of each, line by line."""
        self.shape(x.shape)
        e = exponent(x)
        codes, numbers = self.products.max_pool(quantise(x, e), self.taps)
        return np.ldexp(codes.astype(np.float64), -e).astype(x.dtype), numbers.astype(np.uint8)

    def pull(self, x: tuple[int, ...], numbers: NDArray[np.uint8], ybar: Real) -> Real:
        """xbar, of x with that shape."""
        e = exponent(ybar)
        sums = self.products.max_pool_dx(quantise(ybar, e), numbers.astype(np.int64), x, self.taps)
        return np.ldexp(sums.astype(np.float64), -e).astype(ybar.dtype)


def check_linear(x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """Refuses shapes that are not (..., inputs) and (outputs, inputs).

    Raises
    ------
    UsageError
    """
    if len(x) < 1 or len(weight) != 2 or x[-1] != weight[1]:
        raise UsageError(f"x has the shape {x} and weight {weight}; give (..., inputs) and (outputs, inputs)")


def check_conv2d(x: tuple[int, ...], weight: tuple[int, ...], groups: int) -> bool:
    """Whether it is depthwise. Refuses shapes that are not those of a convolution of pictures, and other groups.

    Raises
    ------
    UsageError
    """
    if len(x) != 4 or len(weight) != 4:
        raise UsageError(
            f"x has the shape {x} and weight {weight}; give (number, channels, height, width) and "
            "(outputs, channels / groups, h, w)"
        )
    if groups != 1 and not groups == x[1] == weight[0]:
        raise UsageError(
            f"groups={groups} of {x[1]} channels and {weight[0]} outputs; give 1, or as many as both"
        )
    return groups != 1


def windows(kernel: int | tuple[int, int], stride: int | None) -> tuple[int, int, int]:
    """Height, width and stride of windows: the stride is the kernel's if it is not given.

    Raises
    ------
    UsageError
        If that is not one number.
    """
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    if stride is None and high != wide:
        raise UsageError(
            f"kernel={high, wide} without a stride; the array has one for both directions, so give it"
        )
    return high, wide, high if stride is None else stride


def check_pictures(x: tuple[int, ...]) -> None:
    """Refuses shapes that are not (number, channels, height, width).

    Raises
    ------
    UsageError
    """
    if len(x) != 4:
        raise UsageError(f"x has the shape {x}; give (number, channels, height, width)")


@functools.cache
def _products(backend: str) -> Products:
    """One array for all layers: a simulated unit is built once."""
    return open_products(backend)


@functools.cache
def _layer(products: Products, activation: str, taps: Taps | None) -> Layer:
    return Layer(products, taps, ACTIVATIONS[activation])


def find_layer(
    backend: str | Products, activation: str, taps: tuple[int, int, int, int, int, bool] | None = None
) -> Layer:
    """The layer of that name, the same for the same arguments.

    Parameters
    ----------
    backend : str or Products
        ``"golden"`` (numpy) or ``"rtl"`` (the hardware, simulated): the same bits.
    activation : str
        One of :data:`ACTIVATIONS`.
    taps : tuple, optional
        Of a convolution: height, width, stride, padding, dilation, and whether it is depthwise.

    Raises
    ------
    UsageError
        If a name is unknown or a number is out of range.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation {activation!r} is unknown; choose {', '.join(ACTIVATIONS)}")
    found = None if taps is None else _taps(*taps)
    return _layer(_products(backend) if isinstance(backend, str) else backend, activation, found)


def find_pool(
    backend: str | Products, height: int, width: int, stride: int, padding: int = 0, dilation: int = 1
) -> Pool:
    """The pool of such windows, the same for the same arguments.

    Raises
    ------
    UsageError
        If the backend is unknown, a number is out of range, or a window may lie outside of a picture altogether.
    """
    if 2 * padding > min(height, width):
        raise UsageError(
            f"padding={padding} of windows of {height} x {width}; give at most {min(height, width) // 2}, half of them"
        )
    if height * width > 1 << OPERAND_BITS:
        raise UsageError(f"windows of {height} x {width} taps; give at most {1 << OPERAND_BITS}")
    products = _products(backend) if isinstance(backend, str) else backend
    return _pool(products, _taps(height, width, stride, padding, dilation))


@functools.cache
def _pool(products: Products, taps: Taps) -> Pool:
    return Pool(products, taps)


def _taps(height: int, width: int, stride: int, padding: int, dilation: int, depthwise: bool = False) -> Taps:
    try:
        return Taps(
            height=height, width=width, stride=stride, padding=padding, dilation=dilation, depthwise=depthwise
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
