"""The documents of an array's registers, read back by somebody else's parsers; and the table of the documentation."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from systemrdl.compiler import RDLCompiler
from systemrdl.node import RegNode

from pullback.gen.registers import render
from pullback.rtl.systolic.build import UnitBuild
from pullback.rtl.systolic.registers import ARRAY_ID, ARRAY_REGISTERS, PROGRAMME_BASE, ArrayMap

MAP = ArrayMap(UnitBuild(), name="array", version=(1, 2, 3))
FILES = render(MAP)
ADDRESSES = {register.name: register.address for register in ARRAY_REGISTERS}
FIELDS = {r.name: [(f.name, f.low, f.width) for f in r.fields] for r in ARRAY_REGISTERS}
PAGE = Path(__file__).parents[2] / "docs" / "array_edges.md"


def test_the_four_documents():
    assert list(FILES) == [f"array_registers{suffix}" for suffix in (".json", ".rdl", ".h", ".md")]
    assert render(ArrayMap(UnitBuild(), name="array", version=(1, 2, 3))) == FILES


def test_json():
    tree = json.loads(FILES["array_registers.json"])
    assert {r["name"]: r["address"] for r in tree["registers"]} == ADDRESSES
    assert {r["name"]: [(*f.values(),)[:3] for f in r["fields"]] for r in tree["registers"]} == FIELDS
    assert {r["name"]: r["value"] for r in tree["registers"] if r["value"] is not None} == MAP.constants
    assert tree["programme_base"] == PROGRAMME_BASE and tree["programme_words"] == 512


def test_systemrdl(tmp_path):
    path = tmp_path / "array.rdl"
    path.write_text(FILES["array_registers.rdl"])
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    found, fields = {}, {}
    for node in compiler.elaborate().top.children(unroll=False):
        assert isinstance(node, RegNode)
        if node.is_array:
            assert (node.inst_name, node.raw_absolute_address, node.array_dimensions, node.array_stride) == (
                "programme",
                PROGRAMME_BASE,
                [512],
                4,
            )
            continue
        found[node.inst_name] = node.absolute_address
        fields[node.inst_name] = [(f.inst_name, f.low, f.width) for f in node.fields()]
        access = {r.name: r.access for r in ARRAY_REGISTERS}[node.inst_name]
        assert all(f.is_sw_writable == ("w" in access) for f in node.fields())
    assert found == ADDRESSES and fields == FIELDS


def test_c_header_compiles(tmp_path):
    (tmp_path / "array_registers.h").write_text(FILES["array_registers.h"])
    checks = [
        f"_Static_assert(ARRAY_REG_{name}_ADDRESS == {address}, {json.dumps(name)});"
        for name, address in ADDRESSES.items()
    ]
    checks += [
        f"_Static_assert(ARRAY_REG_{name}_VALUE == {value}u, {json.dumps(name)});"
        for name, value in MAP.constants.items()
    ]
    checks += [
        f"_Static_assert(ARRAY_REG_{name}_{field.upper()}_MASK >> ARRAY_REG_{name}_{field.upper()}_SHIFT == "
        f"{(1 << width) - 1}u, {json.dumps(name)});"
        for name, fields in FIELDS.items()
        for field, _, width in fields
    ]
    checks.append(
        f'_Static_assert(ARRAY_PROGRAMME_BASE == {PROGRAMME_BASE} && ARRAY_PROGRAMME_WORDS == 512, "");'
    )
    (tmp_path / "main.c").write_text('#include "array_registers.h"\n' + "\n".join(checks) + "\n")
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-std=c11", "-c", "main.c"], cwd=tmp_path, check=True
    )


def _table(text: str) -> dict[str, int]:
    """Registers of a table whose first cells are an address and a name."""
    rows = re.findall(r"^\| `?(0x[0-9a-fA-F]{3,4})`? \| (\w+) \|", text, re.M)
    return {name: int(address, 16) for address, name in rows}


def test_markdown_and_the_page():
    assert _table(FILES["array_registers.md"]) == ADDRESSES
    page = PAGE.read_text()
    assert _table(page) == ADDRESSES
    assert f"0x{ARRAY_ID:08X}" in page and f"0x{PROGRAMME_BASE:04X}" in page
    for name in ("CONTROL", "STATUS", "ERRORS", "INTERRUPTS"):
        (row,) = re.findall(rf"^\| `0x[0-9A-F]{{3}}` \| {name} \|(.*)\|$", page, re.M)
        for field, low, _ in FIELDS[name]:
            assert f"{low} `{field}`" in row, f"bit {low} of {name} is {field}"
