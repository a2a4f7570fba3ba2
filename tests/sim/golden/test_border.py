from itertools import product

import numpy as np
import pytest

from pullback.sim.golden.border import BORDERS, Scatter, Window, indices


def test_indices_are_the_definition():
    assert indices(4, 2, "mirror")[0].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert indices(2, 3, "mirror")[0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert indices(1, 2, "mirror")[0].tolist() == [0] * 5
    assert indices(3, 2, "replicate")[0].tolist() == [0, 0, 0, 1, 2, 2, 2]
    index, read = indices(3, 2, "zero")
    assert index[read].tolist() == [0, 1, 2]
    assert read.tolist() == [False, False, True, True, True, False, False]
    with pytest.raises(ValueError, match="mirror, replicate, zero"):
        indices(3, 1, "wrap")


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3), (2, 2), (3, 5), (2, 3, 4)])
def test_scatter_is_the_transpose_of_window(border, shape):
    rng = np.random.default_rng(1)
    v = rng.integers(-99, 99, shape)
    window, scatter, left = Window(v, 2, border), Scatter(shape, v.dtype, 2, border), 0
    for dy, dx in product(range(-2, 3), repeat=2):
        a = rng.integers(-99, 99, shape)
        left += (window(dy, dx) * a).sum()
        scatter.add(dy, dx, a)
    assert left == (scatter.total() * v).sum()


@pytest.mark.parametrize("border", BORDERS)
def test_window_reads_the_indices(border):
    x = np.arange(1, 13).reshape(3, 4)
    window = Window(x, 2, border)
    (rows, rows_read), (columns, columns_read) = indices(3, 2, border), indices(4, 2, border)
    for dy, dx, i, j in product(range(-2, 3), range(-2, 3), range(3), range(4)):
        p, q = i + dy + 2, j + dx + 2
        expected = x[rows[p], columns[q]] if rows_read[p] and columns_read[q] else 0
        assert window(dy, dx)[i, j] == expected
