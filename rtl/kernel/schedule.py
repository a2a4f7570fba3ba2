"""Scheduling: in which clock cycle each value of a kernel exists.

Every node gets a *step*, the number of registers between the inputs and it; within one step values are
chained combinationally until the clock's budget is spent. A value that is needed in a later step waits in a
delay line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .graph import Node
from .primitives.select import Where
from .primitives.source import Constant, Source

__all__ = ["Schedule", "schedule"]

REGISTER_OVERHEAD = 1.3
"""Clock-to-output, set-up and skew of an ECP5 register in nanoseconds."""


@dataclass
class Schedule:
    """Steps of the nodes.

    Members
    -------
    step : dict of node index to int
        The step in which the value is first there. Static nodes (parameters, constants and what is computed
        from them alone) have none: they are there in every step.
    latency : int
        Steps from inputs to outputs: all outputs are aligned to it.
    """

    step: dict[int, int] = field(default_factory=dict)
    latency: int = 0

    def static(self, node: Node) -> bool:
        """True if the value does not change while pixels are in flight."""
        return node.index not in self.step


def schedule(outputs: Sequence[Node], *, clock: float) -> Schedule:
    """As soon as possible, at ``clock`` hertz.

    The inputs are taken as registered; so are the outputs' steps: the last register follows the last logic.
    """
    budget = 1e9 / clock - REGISTER_OVERHEAD
    if budget <= 0:
        raise ValueError(f"a clock of {clock / 1e6:g} MHz leaves no time for logic; ask for less than "
                         f"{1e3 / REGISTER_OVERHEAD:.0f} MHz")  # fmt: skip
    result = Schedule()
    elapsed: dict[int, float] = {}  # nanoseconds spent in the step in which the node exists
    for node in outputs[0].graph.live(outputs) if outputs else []:
        primitive = node.primitive
        moving = [a for a in node.arguments if not result.static(a)]
        if isinstance(primitive, Source):
            if not primitive.static:
                result.step[node.index] = primitive.arrival
                elapsed[node.index] = 0.0
            continue
        if isinstance(primitive, Constant) or not (moving or primitive.latency):
            continue
        step = max((result.step[a.index] for a in moving), default=0)
        start = max((elapsed[a.index] for a in moving if result.step[a.index] == step), default=0.0)
        delay = primitive.delay(node)
        if start and start + delay > budget:
            step, start = step + 1, 0.0
        if primitive.latency:
            result.step[node.index], elapsed[node.index] = step + primitive.latency, 0.0
        else:
            result.step[node.index], elapsed[node.index] = step, start + delay
    finish = [result.step[o.index] + (elapsed[o.index] > 0) for o in outputs if not result.static(o)]
    result.latency = max(finish, default=0)
    _gate_late(outputs, result, elapsed, budget)
    return result


def _gate_late(outputs: Sequence[Node], result: Schedule, elapsed: dict[int, float], budget: float) -> None:
    """Move gates, selections between a value and a constant, to the last step if only outputs need them.

    A value that is gated for many outputs, as a product is for the entries of a parameter that is chosen by colour,
    then waits in one delay line instead of one for each.
    """
    last = result.latency - 1
    waiting: dict[int, list[int]] = {}  # consumers
    live = outputs[0].graph.live(outputs) if outputs else []
    for node in live:
        for argument in node.arguments:
            waiting.setdefault(argument.index, []).append(node.index)
    late: dict[int, float] = {}  # nanoseconds from its inputs to the end of the step
    final = {node.index for node in outputs}
    for node in reversed(live):
        consumers = waiting.get(node.index, [])
        constants = [a.constant is not None for a in node.arguments[1:]]
        if (
            not isinstance(node.primitive, Where)
            or constants.count(True) != 1
            or result.static(node)
            or not all(c in late for c in consumers)
            or (node.index not in final and not consumers)
        ):
            continue
        chain = node.primitive.delay(node) + max((late[c] for c in consumers), default=0.0)
        begun = [elapsed[a.index] for a in node.arguments if result.step.get(a.index) == last]
        if max(begun, default=0.0) + chain <= budget:
            late[node.index] = chain
            result.step[node.index] = last
