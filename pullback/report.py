"""The report of a tuning run: pictures first, one HTML file that needs nothing else.

``report.html`` holds its pictures as base64 PNG and its charts as SVG; it opens offline. The pictures lie beside it
as files too.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pullback import files
from pullback.backend import GRADIENT, Pipeline, Result, Theta
from pullback.raw import Crop

__all__ = ["Report", "heat", "loss_chart", "png", "write"]

WIDEST = 1280
"""Pictures wider than this are shown smaller in the HTML; their files are whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What a report shows.

    Attributes
    ----------
    title, facts
        The frame's name; (label, value) pairs for the head.
    before, after, target : int64 [height, width, 3]
        UQ(0, 12).
    held_out : Crop
        The part that took no part in training.
    loss, held_out_psnr, scales
        Training PSNR before each step; (step, PSNR) of the held-out part; loss scale before each step.
    gradient_before, gradient_after : int64 [height, width]
        ``|xbar|`` per site of the view.
    start, tuned : Theta
        Codes.
    result_before, result_after : Result
        Forward and pullback over the view, for the counters.
    notes : sequence of str
        Sentences about the frame and the run.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    pipeline: Pipeline
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    target: NDArray[np.int64]
    target_name: str
    start_name: str
    held_out: Crop
    loss: Sequence[float]
    held_out_psnr: Sequence[tuple[int, float]]
    start: Theta
    tuned: Theta
    result_before: Result
    result_after: Result
    loss_scale: float
    cycles: int
    notes: Sequence[str] = field(default_factory=tuple)


def write(report: Report, directory: Path) -> list[Path]:
    """Write the pictures, the loss curve and ``report.html``; each file whole. Returns their paths."""
    bound = float(np.quantile(abs(report.result_before.xbar), 0.998)) or 1.0
    pictures = {
        "before": png(eight_bit(report.before)),
        "after": png(eight_bit(report.after)),
        "target": png(eight_bit(report.target)),
        "gradient_before": png(heat(abs(report.result_before.xbar), bound)),
        "gradient_after": png(heat(abs(report.result_after.xbar), bound)),
        "error_after": png(heat(abs(report.after - report.target).max(axis=-1), 1024)),
    }
    written = []
    for name, data in pictures.items():
        files.write(directory / f"{name}.png", data)
        written.append(directory / f"{name}.png")
    files.write(directory / "loss.svg", loss_chart(report.loss, report.held_out_psnr, standalone=True))
    files.write(directory / "report.html", _html(report, bound))
    return [*written, directory / "loss.svg", directory / "report.html"]


def eight_bit(picture: NDArray[np.int64]) -> NDArray[np.uint8]:
    """UQ(0, 12) to 8 bits, white to white."""
    return ((picture * (2 * 255) + 4095) // (2 * 4095)).astype(np.uint8)


# Perceived brightness rises evenly from black over violet and orange to light yellow.
_HEAT = np.array(
    [
        (4, 4, 16),
        (38, 12, 82),
        (96, 18, 110),
        (156, 40, 98),
        (210, 72, 66),
        (244, 122, 32),
        (252, 184, 48),
        (252, 250, 180),
    ]
)


def heat(values: NDArray, bound: float) -> NDArray[np.uint8]:
    """False colours of ``0..bound``, by the square root so that small values show."""
    place = np.sqrt(np.clip(np.asarray(values, np.float64) / bound, 0, 1)) * (len(_HEAT) - 1)
    return np.stack([np.interp(place, np.arange(len(_HEAT)), _HEAT[:, k]) for k in range(3)], -1).astype(
        np.uint8
    )


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _inline(picture: NDArray[np.uint8]) -> str:
    """A data URI, made smaller if it is wide."""
    from PIL import Image

    image = Image.fromarray(picture)
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# Charts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axes:
    """A plotting area and its two linear scales."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 560
    height: int = 300
    left: int = 46
    bottom: int = 36

    def at(self, x: float, y: float) -> str:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            f"{self.left + across * (self.width - self.left - 12):.1f},"
            f"{self.height - self.bottom - up * (self.height - self.bottom - 12):.1f}"
        )

    def line(self, points: Sequence[tuple[float, float]], style: str) -> str:
        return f'<polyline fill="none" {style} points="{" ".join(self.at(x, y) for x, y in points)}"/>'

    def frame(self, x_label: str, y_label: str) -> str:
        parts = []
        for value in _ticks(*self.y):
            x1, y = self.at(self.x[0], value).split(",")
            x2 = self.at(self.x[1], value).split(",")[0]
            parts.append(
                f'<line x1="{x1}" x2="{x2}" y1="{y}" y2="{y}" stroke="#8884" stroke-width="1"/>'
                f'<text x="{self.left - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        for value in _ticks(*self.x):
            x, y = self.at(value, self.y[0]).split(",")
            parts.append(f'<text x="{x}" y="{float(y) + 18:.1f}" text-anchor="middle">{value:g}</text>')
        parts.append(
            f'<text x="{self.width - 12}" y="{self.height - 3}" text-anchor="end" opacity=".7">{x_label}</text>'
            f'<text x="{self.left + 6}" y="24" opacity=".7">{y_label}</text>'
        )
        return "".join(parts)

    def svg(self, body: str, *, standalone: bool = False) -> str:
        ground = '<rect width="100%" height="100%" fill="#fff"/>' if standalone else ""
        ink = "#333" if standalone else "currentColor"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{ink}">{ground}{body}</svg>'
        )


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def loss_chart(
    loss: Sequence[float], held_out: Sequence[tuple[int, float]], *, standalone: bool = False
) -> str:
    """PSNR over steps as SVG: of the training part before each step, and of the held-out part."""
    finite = [value for value in (*loss, *(value for _, value in held_out)) if math.isfinite(value)] or [
        0.0,
        1.0,
    ]
    low, high = math.floor(min(finite)) - 0.5, math.ceil(max(finite)) + 0.5
    axes = _Axes((0, max(1, len(loss))), (low, high))
    body = axes.frame("step", "PSNR, dB")
    body += axes.line(
        [(k, v) for k, v in enumerate(loss) if math.isfinite(v)], 'stroke="#3b82c4" stroke-width="2"'
    )
    points = [(k, v) for k, v in held_out if math.isfinite(v)]
    body += axes.line(points, 'stroke="#e0782f" stroke-width="2" stroke-dasharray="5 4"')
    for point in points:
        x, y = axes.at(*point).split(",")
        body += f'<circle cx="{x}" cy="{y}" r="3.5" fill="#e0782f"/>'
    x, y = axes.width - 130, axes.height - 84
    body += (
        f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="#3b82c4" stroke-width="2"/>'
        f'<text x="{x + 30}" y="{y + 4}">training</text>'
        f'<line x1="{x}" x2="{x + 22}" y1="{y + 20}" y2="{y + 20}" stroke="#e0782f" stroke-width="2" '
        f'stroke-dasharray="5 4"/><text x="{x + 30}" y="{y + 24}">held out</text>'
    )
    return axes.svg(body, standalone=standalone)


def _curve_chart(start: NDArray[np.float64], tuned: NDArray[np.float64]) -> str:
    axes = _Axes((0, 1), (0, 1), width=420, height=320)
    body = axes.frame("linear in", "picture out")
    colours = ("#888",) if len(tuned) == 65 else ("#d33", "#2a2", "#36d")
    body += axes.line(
        [(k / 64, float(v)) for k, v in enumerate(start[:65])],
        'stroke="#888" stroke-width="1.5" stroke-dasharray="4 4"',
    )
    for channel, colour in enumerate(colours if len(tuned) > 65 else ("#e0782f",)):
        points = [(k / 64, float(v)) for k, v in enumerate(tuned[65 * channel : 65 * channel + 65])]
        body += axes.line(points, f'stroke="{colour}" stroke-width="2.5"')
        for point in points:
            x, y = axes.at(*point).split(",")
            body += f'<circle cx="{x}" cy="{y}" r="1.8" fill="{colour}"/>'
    return axes.svg(body)


def _filter_chart(coefficient: NDArray[np.float64]) -> str:
    """Eight 5x5 filters as squares: orange positive, blue negative, white 0."""
    bank = coefficient.reshape(4, 2, 3, 3)
    missing = (("g", "b"), ("r", "b"), ("r", "b"), ("r", "g"))
    cell, parts = 17, []
    for c, colour in enumerate(("R", "Gr", "Gb", "B")):
        for m in range(2):
            left, top = 8 + c * (5 * cell + 22), 22 + m * (5 * cell + 32)
            parts.append(f'<text x="{left}" y="{top - 6}">{missing[c][m]} at {colour}</text>')
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    value = float(bank[c, m, abs(dy), abs(dx)])
                    shade = min(1.0, abs(value) / 0.6) ** 0.6
                    ink = (224, 120, 47) if value >= 0 else (40, 110, 190)
                    rgb = ",".join(str(round(255 + (k - 255) * shade)) for k in ink)
                    parts.append(
                        f'<rect x="{left + (dx + 2) * cell}" y="{top + (dy + 2) * cell}" width="{cell - 1}" '
                        f'height="{cell - 1}" fill="rgb({rgb})"><title>{value:+.4f}</title></rect>'
                    )
    width, height = 8 + 4 * (5 * cell + 22), 22 + 2 * (5 * cell + 32)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="11" '
        f'font-family="system-ui, sans-serif" fill="currentColor">{"".join(parts)}</svg>'
    )


def _number_rows(pipeline: Pipeline, start: Theta, tuned: Theta) -> list[dict]:
    """Parameters small enough to read as numbers: before, after."""
    rows = []
    for parameter in pipeline.parameters:
        if parameter.entries <= 9:
            rows.append(
                {
                    "key": parameter.key,
                    "format": str(parameter.format),
                    "columns": 3 if parameter.entries % 3 == 0 else 2,
                    "before": [f"{v:.4f}" for v in parameter.decode(start[parameter.key])],
                    "after": [f"{v:.4f}" for v in parameter.decode(tuned[parameter.key])],
                }
            )
    return rows  # fmt: skip


def _stages(report: Report, width: int) -> list[dict]:
    tape = report.pipeline.tape_pixels(width)
    rows = []
    for stage in report.pipeline.stages:
        bits = tape[stage.name] * sum(form.width for form in stage.i.values())
        rows.append(
            {
                "name": stage.name.replace("_", " "),
                "i": _channels(stage.i),
                "o": _channels(stage.o),
                "cotangent": str(stage.cotangent_i),
                "radius": stage.radius,
                "parameters": ", ".join(f"{p.name} {p.entries} x {p.format}" for p in stage.parameters)
                or "none",
                "tape": f"{bits / 1000:.1f}" if bits else "0",
                "saturated": report.result_after.saturated.get(stage.name, 0),
                "saturated_before": report.result_before.saturated.get(stage.name, 0),
                "cotangent_saturated": report.result_after.cotangent_saturated.get(stage.name, 0),
            }
        )
    return rows  # fmt: skip


def _channels(channels: Mapping) -> str:
    forms = {str(form) for form in channels.values()}
    return f"{' '.join(channels)}: {', '.join(sorted(forms))}"


def _html(report: Report, bound: float) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)
    real_start, real_tuned = report.pipeline.decode(report.start), report.pipeline.decode(report.tuned)
    curves = {k: _curve_chart(real_start[k], real_tuned[k]) for k in real_tuned if k == "tone_curve.knots"}
    banks = {
        k: (_filter_chart(real_start[k]), _filter_chart(real_tuned[k]))
        for k in real_tuned
        if k == "filter_bank.coefficient"
    }
    height, width = report.before.shape[:2]
    return template.render(
        r=report,
        before=_inline(eight_bit(report.before)),
        after=_inline(eight_bit(report.after)),
        target=_inline(eight_bit(report.target)),
        gradient_before=_inline(heat(abs(report.result_before.xbar), bound)),
        gradient_after=_inline(heat(abs(report.result_after.xbar), bound)),
        error=_inline(heat(abs(report.after - report.target).max(axis=-1), 1024)),
        held_out_top=f"{100 * report.held_out.y / height:.2f}",
        loss=loss_chart(report.loss, report.held_out_psnr),
        bound=bound / 2**GRADIENT.f,
        curves=curves,
        banks=banks,
        numbers=_number_rows(report.pipeline, report.start, report.tuned),
        stages=_stages(report, min(width, report.pipeline.max_width)),
        width=width,
        height=height,
        tape_width=min(width, report.pipeline.max_width),
        small=width <= 700,
    )


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pullback: {{ r.title }}</title>
<style>
:root { color-scheme: light dark; --bg: #f6f5f2; --card: #fff; --ink: #23211e; --dim: #746f67; --line: #e2ded6;
  --hot: #d9691e; }
@media (prefers-color-scheme: dark) { :root { --bg: #171614; --card: #211f1c; --ink: #ece7de; --dim: #9d968b;
  --line: #37332e; --hot: #f2914a; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 24px 60px; }
h1 { font-size: 30px; margin: 0 0 2px; letter-spacing: -.02em; } h1 span { color: var(--hot) }
h2 { font-size: 19px; margin: 0 0 4px; } p { margin: 0 0 14px; color: var(--dim); max-width: 75ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px;
  margin-top: 20px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px; }
.fact b { display: block; font-size: 22px; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.fact span { color: var(--dim); font-size: 13px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 14px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 22px; align-items: start; }
@media (max-width: 760px) { .three, .two { grid-template-columns: 1fr } }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--dim); margin-top: 6px; }
figcaption b { color: var(--ink) }
img { width: 100%; display: block; border-radius: 6px; {% if small %}image-rendering: pixelated;{% endif %} }
.shot { position: relative; }
.shot i { position: absolute; left: 0; right: 0; border-top: 2px dashed #fff; mix-blend-mode: difference; }
.slide { position: relative; max-width: 620px; margin: 0 auto; } .slide img + img { position: absolute; inset: 0; }
.slide input { width: 100%; margin-top: 10px; accent-color: var(--hot); }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--dim); font-weight: 500; } td, th { padding: 6px 10px 6px 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.n, th.n { text-align: right; }
.grid { display: inline-grid; gap: 2px 14px; } .scroll { overflow-x: auto; }
.flow { display: flex; flex-wrap: wrap; align-items: stretch; gap: 6px; margin-bottom: 18px; }
.box { border: 1.5px solid var(--hot); border-radius: 8px; padding: 8px 12px; font-weight: 600; font-size: 14px; }
.box small { display: block; font-weight: 400; color: var(--dim); font-size: 11.5px; }
.wire { align-self: center; font-size: 11px; color: var(--dim); text-align: center; }
.wire b { display: block; font-size: 16px; line-height: 1; color: var(--hot); }
</style></head><body><main>
<h1><span>Pullback</span> {{ r.title }}</h1>
<p>A camera pipeline in fixed point, tuned by the gradients that it computes itself.</p>
<div class="facts">{% for label, value in r.facts %}<div class="fact"><b>{{ value }}</b><span>{{ label }}</span></div>
{% endfor %}</div>

<section><h2>Before, after, target</h2>
<p>Below the dashed line is the part that was held out: no step of the training saw it.</p>
<div class="three">
{% for name, source, text in
  [("Before", before, r.start_name), ("After", after, "tuned"), ("Target", target, r.target_name)] %}
<figure><div class="shot"><img src="{{ source }}" alt="{{ name }}"><i style="top: {{ held_out_top }}%"></i></div>
<figcaption><b>{{ name }}</b>: {{ text }}</figcaption></figure>
{% endfor %}</div></section>

<section><h2>Tuned against target</h2><p>Move the slider: the tuned picture on the left, the target on the right.</p>
<div class="slide"><div class="shot"><img src="{{ target }}" alt="target"><img id="top" src="{{ after }}" alt="after"
style="clip-path: inset(0 50% 0 0)"></div>
<input type="range" min="0" max="100" value="50" aria-label="how much of the tuned picture is shown"
oninput="document.getElementById('top').style.clipPath = `inset(0 ${100 - this.value}% 0 0)`"></div></section>

<section><h2>How it learned</h2><p>Every point of the blue line is one pass of the training region through the core,
which returns the loss and its whole gradient together.</p>
<div style="max-width: 900px">{{ loss | safe }}</div></section>

<section><h2>Where the gradient came from</h2>
<p>The size of the loss's derivative with respect to each site of the sensor, on one scale for both maps
(by its square root; full brightness at {{ "%.4f" | format(bound) }}).</p>
<div class="three">
<figure><img src="{{ gradient_before }}" alt="gradient before">
<figcaption><b>Before</b>: what the first step saw</figcaption></figure>
<figure><img src="{{ gradient_after }}" alt="gradient after">
<figcaption><b>After</b>: what is left</figcaption></figure>
<figure><img src="{{ error }}" alt="error">
<figcaption><b>Remaining error</b> of the picture, largest channel</figcaption></figure>
</div></section>

<section><h2>What it learned</h2>
<div class="two">
{% for key, chart in curves.items() %}<div><p>Tone curve (dashed: before)</p>{{ chart | safe }}</div>{% endfor %}
<div class="scroll"><table><tr><th>parameter</th><th>before</th><th>after</th></tr>
{% for row in numbers %}<tr><td>{{ row.key }}<br><small>{{ row.format }}</small></td>
{% for values in [row.before, row.after] %}<td>
<span class="grid" style="grid-template-columns: repeat({{ row.columns }}, auto)">
{% for v in values %}<span>{{ v }}</span>{% endfor %}</span></td>{% endfor %}</tr>
{% endfor %}</table></div></div>
{% for key, (was, now) in banks.items() %}<div class="two" style="margin-top: 22px">
<div><p>Demosaicking filters before</p>{{ was | safe }}</div>
<div><p>after: orange adds, blue subtracts</p>{{ now | safe }}</div></div>
{% endfor %}</section>

<section><h2>The pipeline</h2>
<div class="flow">{% for stage in stages %}<div class="wire"><b>&rarr;</b>{{ stage.i }}</div>
<div class="box">{{ stage.name }}<small>{{ stage.parameters }}</small></div>
{% if loop.last %}<div class="wire"><b>&rarr;</b>{{ stage.o }}</div>{% endif %}{% endfor %}</div>
<div class="scroll"><table><tr><th>stage</th><th>in</th><th>out</th><th>cotangent at its input</th>
<th class="n">radius</th>
<th class="n">tape, kbit at {{ tape_width }} wide</th><th class="n">clipped before</th><th class="n">clipped after</th>
<th class="n">cotangents clipped</th></tr>
{% for stage in stages %}<tr><td>{{ stage.name }}</td><td>{{ stage.i }}</td><td>{{ stage.o }}</td>
<td>{{ stage.cotangent }}</td>
<td class="n">{{ stage.radius }}</td><td class="n">{{ stage.tape }}</td><td class="n">{{ stage.saturated_before }}</td>
<td class="n">{{ stage.saturated }}</td><td class="n">{{ stage.cotangent_saturated }}</td></tr>
{% endfor %}</table></div>
<p style="margin-top: 14px">{{ r.pipeline.lanes }} pixel{{ "s" if r.pipeline.lanes > 1 }} per clock,
border {{ r.pipeline.border }},
line buffers for {{ r.pipeline.max_width }} sites. Loss scale at the end {{ "%g" | format(r.loss_scale) }}.
{% if r.cycles %}{{ "{:,}".format(r.cycles) }} clock cycles of hardware in all.{% endif %}</p></section>

{% if r.notes %}<section><h2>Notes</h2>{% for note in r.notes %}<p>{{ note }}</p>{% endfor %}</section>{% endif %}
</main></body></html>
"""
