"""The documents of a register map, each read back by somebody else's parser and compared."""

import json
import re
import subprocess

import pytest
from systemrdl.compiler import RDLCompiler
from systemrdl.node import FieldNode, RegNode

from pullback.gen.registers import FORMS, c_header, json_text, markdown, render, systemrdl
from pullback.rtl.bus.registers import CONTROL_REGISTERS, ParameterWords, RegisterMap, ResultWords
from pullback.rtl.numeric.format import SQ, UQ


def make_map(*, vjp=True):
    return RegisterMap(
        name="isp",
        version=(1, 2, 3),
        stages=("white_balance", "ccm", "tone_curve"),
        parameters=[
            ParameterWords("white_balance", "gain", 4, UQ(4, 10), 1024, 'gain | "per" colour \\ */'),
            ParameterWords("ccm", "matrix", 9, SQ(4, 10), [1024, -5, 0, 0, 1024, 0, 0, 0, 1024], "rows"),
            ParameterWords("ccm", "wide", 1, SQ(1, 31), -(1 << 31), "as wide as a word"),
            ParameterWords("tone_curve", "knot", 65, UQ(1, 15), [512 * k for k in range(65)], "knots"),
        ],
        results=[
            ResultWords("white_balance", "gain", 4, 30, "gains"),
            ResultWords("ccm", "matrix", 9, 28, "matrix"),
            ResultWords("tone_curve", "knot", 65, 26, "knots"),
        ]
        if vjp
        else [],
        lanes=2,
        max_width=4096,
        max_height=3000,
        vjp=vjp,
    )


MAPS = pytest.mark.parametrize("registers", [make_map(), make_map(vjp=False)], ids=["vjp", "forward"])


def addresses(registers):
    """What every document must say: {kind and flat name: (address, entries)}."""
    table = {f"register_{r.name}": (r.address, 1) for r in CONTROL_REGISTERS}
    for word in (*registers.words, *registers.result_runs):
        kind = "result" if word.kind == "result" else "parameter"
        table[f"{kind}_{word.name.replace('.', '_')}"] = (word.address(), word.entries)
    return table


@MAPS
def test_json(registers):
    tree = json.loads(json_text(registers))
    table = {f"register_{r['name']}": (r["address"], 1) for r in tree["registers"]}
    for kind in ("parameter", "result"):
        for run in tree[f"{kind}s"]:
            table[f"{kind}_{run['name'].replace('.', '_')}"] = (run["address"], run["entries"])
    assert table == addresses(registers)
    assert tree["parameter_words"] == registers.parameter_words
    assert tree["result_words"] == registers.result_words
    codes = [0] * registers.parameter_words
    for run in tree["parameters"]:
        codes[run["index"] : run["index"] + run["entries"]] = run["default"]
        name = run["name"]
        place = registers.parameter(name)
        assert (run["index"], run["entries"]) == place[:2]
        form = place.format
        assert run["format"] == {"signed": form.signed, "i": form.i, "f": form.f}
    assert tuple(codes) == registers.defaults


@MAPS
def test_systemrdl_is_read_by_its_compiler(registers, tmp_path):
    path = tmp_path / "isp.rdl"
    path.write_text(systemrdl(registers))
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    top = compiler.elaborate().top
    table, fields, resets = {}, {}, {}
    for node in top.children(unroll=False):
        assert isinstance(node, RegNode)
        if node.is_array:
            stride = 8 if node.inst_name.startswith("result_") else 4
            assert node.array_stride == stride and node.get_property("regwidth") == 8 * stride
            dimensions = node.array_dimensions
            assert dimensions is not None and len(dimensions) == 1
            table[node.inst_name] = (node.raw_absolute_address, dimensions[0])
            (field,) = node.fields()
            resets[node.inst_name] = field.get_property("reset")
            assert field.is_sw_writable == node.inst_name.startswith("parameter_")
        else:
            table[f"register_{node.inst_name}"] = (node.absolute_address, 1)
            fields[node.inst_name] = [(f.inst_name, f.low, f.width) for f in node.fields()]
            assert all(isinstance(f, FieldNode) for f in node.fields())
    assert table == addresses(registers)
    assert fields == {r.name: [(f.name, f.low, f.width) for f in r.fields] for r in CONTROL_REGISTERS}
    for word in registers.words:
        same = len(set(word.default)) == 1
        reset = word.default[0] & 0xFFFFFFFF if same else None
        assert resets[f"parameter_{word.name.replace('.', '_')}"] == reset


@MAPS
def test_c_header_compiles_and_agrees_with_the_json(registers, tmp_path):
    header = c_header(registers)
    (tmp_path / "isp_registers.h").write_text(header)
    names = re.findall(r"^#define (ISP_\w+) \S", header, re.M)
    assert len(names) == len(set(names))
    body = "".join(f'    printf("{name} %lld\\n", (long long)({name}));\n' for name in names)
    program = f'#include <stdio.h>\n#include "isp_registers.h"\nint main(void) {{\n{body}    return 0;\n}}\n'
    (tmp_path / "main.c").write_text(program)
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99", "-o", "main", "main.c"],
        cwd=tmp_path,
        check=True,
    )
    output = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    values = {name: int(value) for name, value in (line.split() for line in output.splitlines())}

    tree = json.loads(json_text(registers))
    expected = {
        "ISP_PARAMETER_BASE": tree["parameter_base"],
        "ISP_PARAMETER_WORDS": tree["parameter_words"],
        "ISP_RESULT_BASE": tree["result_base"],
        "ISP_RESULT_COUNT": tree["result_words"],
    }
    for register in tree["registers"]:
        prefix = f"ISP_REG_{register['name']}"
        expected[f"{prefix}_ADDRESS"] = register["address"]
        if register["value"] is not None:
            expected[f"{prefix}_VALUE"] = register["value"]
        for field in register["fields"]:
            expected[f"{prefix}_{field['name'].upper()}_SHIFT"] = field["low"]
            expected[f"{prefix}_{field['name'].upper()}_MASK"] = (2 ** field["width"] - 1) << field["low"]
    for kind in ("parameter", "result"):
        for run in tree[f"{kind}s"]:
            prefix = f"ISP_{kind.upper()}_{run['name'].replace('.', '_').upper()}"
            expected[f"{prefix}_ADDRESS"] = run["address"]
            expected[f"{prefix}_INDEX"] = run["index"]
            expected[f"{prefix}_ENTRIES"] = run["entries"]
            expected[f"{prefix}_FRACTION_BITS"] = run["format"]["f"]
            if kind == "parameter":
                expected[f"{prefix}_MIN"] = run["lo"]
                expected[f"{prefix}_MAX"] = run["hi"]
                if len(set(run["default"])) == 1:
                    expected[f"{prefix}_DEFAULT"] = run["default"][0]
    assert values == expected


@MAPS
def test_markdown_tables_hold_every_address(registers):
    table, fields = {}, {}
    section = ""
    for line in markdown(registers).splitlines():
        section = line[3:] if line.startswith("## ") else section
        if not line.startswith("| 0x"):
            continue
        # An escaped bar belongs to its cell.
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        address = int(cells[0], 16)
        if section == "Control registers":
            assert len(cells) == 6
            table[f"register_{cells[1]}"] = (address, 1)
            high, _, low = cells[3].partition(":")
            low = int(low or high)
            fields.setdefault(cells[1], []).append((cells[4], low, int(high) - low + 1))
        else:
            kind = {"Parameters": "parameter", "Results": "result"}[section]
            assert len(cells) == {"parameter": 8, "result": 6}[kind]
            table[f"{kind}_{cells[2].replace('.', '_')}"] = (address, int(cells[3]))
            place = getattr(registers, kind)(cells[2])
            assert int(cells[1]) == place.index
            assert cells[4] == str(place.format if kind == "parameter" else place.format.f)
    assert table == addresses(registers)
    assert fields == {r.name: [(f.name, f.low, f.width) for f in r.fields] for r in CONTROL_REGISTERS}


@MAPS
def test_render_gives_every_form_and_always_the_same(registers):
    files = render(registers)
    assert list(files) == [f"isp_registers{suffix}" for suffix in (".json", ".rdl", ".h", ".md")]
    assert len(files) == len(FORMS)
    assert files == render(make_map(vjp=registers.vjp))
    assert all(text.endswith("\n") and not text.endswith("\n\n") for text in files.values())
