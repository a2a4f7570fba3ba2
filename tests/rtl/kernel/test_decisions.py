"""Decisions on the tape: the pullback with them is the pullback without, and reads no pixel for them."""

import numpy as np
import pytest

from pullback.rtl.isp import FilterBank, HamiltonAdamsGreen
from pullback.rtl.kernel import cut, evaluate, tape_decisions, trace, vjp, where
from pullback.rtl.kernel.primitives.arithmetic import Mul
from pullback.rtl.kernel.primitives.source import Decision, Tap
from pullback.rtl.numeric import SQ

from ..isp.test_kernels import STAGES


def pulled(name: str) -> dict:
    """What the pullback of a stage gives for a pixel."""
    stage, _, cotangent = STAGES[name]
    pullback = stage.trace().pullback(dict.fromkeys(stage.o.names, cotangent))
    nodes = [*pullback.taps.values(), *pullback.entries.values()]
    nodes += [node for table in pullback.tables for node in (table.index, table.value)]
    return {f"n{k}": node for k, node in enumerate(nodes)}


def random_codes(nodes: list, count: int, seed: int) -> dict:
    """Codes for all sources; some of them extreme, so that cuts clip."""
    rng = np.random.default_rng(seed)
    values = {}
    for node in nodes[0].graph.live(nodes):
        if node.arguments or node.constant is not None or isinstance(node.primitive, Decision):
            continue
        form = node.primitive.format
        codes = rng.integers(form.lo, form.hi + 1, count)
        extreme = rng.choice([form.lo, form.hi], count)
        values[node.primitive.label] = np.where(rng.random(count) < 0.3, extreme, codes).astype(object)
    return values


@pytest.mark.parametrize("name", STAGES)
def test_pullback_with_decisions_from_the_tape(name):
    """Equal codes, given what the forward decided; every decision goes both ways."""
    nodes = pulled(name)
    taped, decisions = tape_decisions(nodes)
    sources = random_codes([*nodes.values(), *decisions.values()], 4000, len(name))
    stage = STAGES[name][0]
    rng = np.random.default_rng(1)
    tables = {n: rng.integers(p.format.lo, p.format.hi + 1, p.entries).astype(object)
              for n, p in stage.parameters.items() if p.table}  # fmt: skip
    taken = dict(zip(decisions, evaluate(list(decisions.values()), sources, tables), strict=True))
    for label, flags in taken.items():
        assert set(flags.tolist()) == {0, 1}, f"{label} never changed"
    before = evaluate(list(nodes.values()), sources, tables)
    after = evaluate(list(taped.values()), sources | taken, tables)
    for label, a, b in zip(nodes, before, after, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=label)


def kinds(nodes: dict, kind: type) -> int:
    live = next(iter(nodes.values())).graph.live(list(nodes.values()))
    return sum(isinstance(node.primitive, kind) for node in live)


def test_nothing_is_computed_again_for_a_decision():
    """Hamilton-Adams' pullback is linear but for its decisions: no pixel is read. The filter bank's is left with the
    products of its pullback: nine folds and nine coefficients for each of two missing channels."""
    green, _ = tape_decisions(pulled("hamilton_adams_green"))
    assert HamiltonAdamsGreen().radius and not kinds(green, Tap)
    nodes = pulled("filter_bank")
    bank, decisions = tape_decisions(nodes)
    assert len(decisions) == 3
    assert kinds(nodes, Mul) == kinds(bank, Mul) + 2 * len(FilterBank.FOLDS)


def test_conditions_without_pixels_are_no_decisions():
    """The site's colour is known everywhere; a condition on a cotangent is not the forward's."""
    kernel = trace(
        lambda x, t, s: {"y": where(s.x < 3, x.a, cut(x.a << 1, SQ(4, 0), "identity_if_towards"))},
        channels={"a": SQ(4, 0)},
        parameters={},
    )
    taps = vjp(kernel.graph, kernel.outputs, {"y": SQ(4, 0)}).taps
    _, decisions = tape_decisions({"a_bar": taps["a", 0, 0]})
    assert sorted(node.primitive.side for node in decisions.values()) == ["above", "below"]


def test_decisions_of_one_name_stay_apart():
    """A kernel may call two conditions alike."""
    kernel = trace(
        lambda x, t, s: {"y": where((x.a < 1).named("low"), x.a, 0) + where((x.b < 2).named("low"), x.b, 0)},
        channels={"a": SQ(4, 0), "b": SQ(4, 0)},
        parameters={},
    )
    taps = vjp(kernel.graph, kernel.outputs, {"y": SQ(4, 0)}).taps
    _, decisions = tape_decisions({c: taps[c, 0, 0] for c in "ab"})
    assert len(decisions) == 2
