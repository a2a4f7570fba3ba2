from fractions import Fraction
from math import floor

import numpy as np
import pytest

from pullback.rtl.numeric import SQ, UQ
from pullback.sim.golden import exact
from pullback.sim.golden.cut import CLIP_MODES, cut


@pytest.mark.parametrize("dtype", [np.int64, object])
@pytest.mark.parametrize(
    ("f", "to"), [(6, SQ(2, 3)), (3, UQ(2, 3)), (1, SQ(3, 4)), (5, UQ(1, 4)), (9, SQ(1, 2))]
)
def test_is_round_half_up_then_saturate(f, to, dtype):
    value = np.arange(-700, 701).astype(dtype)
    result = cut(value, f, to)
    for v, code, below, above, e in zip(
        value, result.code, result.below, result.above, result.remainder, strict=True
    ):
        rounded = floor(Fraction(int(v), 2**f) * 2**to.f + Fraction(1, 2))
        assert code == min(max(rounded, to.lo), to.hi)
        assert (below, above) == (rounded < to.lo, rounded > to.hi)
        assert Fraction(int(e), 2**result.remainder_f) == Fraction(int(code), 2**to.f) - Fraction(
            int(v), 2**f
        )
    assert exact.remainders_out_of_range(result) == 0
    assert result.below.any() == (-700 * 2.0 ** (to.f - f) < to.lo)


def test_half_goes_up_on_both_sides_of_zero():
    assert cut(np.array([-6, -2, 2, 6]), 2, SQ(4, 0)).code.tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        # value below, inside, above; cotangent -1, 0 and 1 for each
        ("disconnected", [0, 0, 0, -1, 0, 1, 0, 0, 0]),
        ("identity", [-1, 0, 1, -1, 0, 1, -1, 0, 1]),
        ("identity_if_towards", [-1, 0, 0, -1, 0, 1, 0, 0, 1]),
    ],
)
def test_derivative(clip, expected):
    result = cut(np.repeat([-9, 1, 9], 3), 0, SQ(3, 0))
    ybar = np.tile([-1, 0, 1], 3)
    assert result.pull(ybar, clip).tolist() == expected
    # The tangent map is the transpose: here diagonal, so the same factors.
    v = np.full(9, 5)
    assert (result.push(v, clip, ybar) * ybar).tolist() == (v * result.pull(ybar, clip)).tolist()


def test_errors_name_the_remedy():
    result = cut(np.array([9]), 0, SQ(3, 0))
    with pytest.raises(ValueError, match="towards=cotangent"):
        result.push(np.array([1]), "identity_if_towards")
    with pytest.raises(ValueError, match=", ".join(CLIP_MODES)):
        result.pull(np.array([1]), "clamp")
