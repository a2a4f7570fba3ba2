"""The primitives of a kernel, one rule in one place each."""

from .arithmetic import add, mul, neg, shift, sub, total
from .cut import ClipMode, clips, cut
from .select import (
    absolute,
    bit,
    both,
    either,
    equal,
    given,
    inverse,
    less,
    less_equal,
    maximum,
    minimum,
    select,
    where,
)
from .source import constant_like
from .table import segment

__all__ = [
    "ClipMode", "absolute", "add", "bit", "both", "clips", "constant_like", "cut", "either", "equal", "given",
    "inverse", "less", "less_equal", "maximum", "minimum", "mul", "neg", "segment", "select", "shift", "sub",
    "total", "where",
]  # fmt: skip
