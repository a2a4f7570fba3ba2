"""The register map: addresses as the specification counts them, look-ups, defaults, checks."""

import pytest

from pullback.rtl.bus.registers import (
    CONTROL_REGISTERS,
    ParameterWords,
    Place,
    RegisterMap,
    ResultWords,
)
from pullback.rtl.numeric.format import SQ, UQ

PARAMETERS = [
    ParameterWords("tone", "knot", 65, UQ(1, 15), [512 * k for k in range(65)], "knots"),
    ParameterWords("ccm", "matrix", 9, SQ(4, 10), (1024, 0, 0, 0, 1024, 0, 0, 0, 1024), "matrix"),
    ParameterWords("ccm", "offset", 3, SQ(2, 14), 0, "offset"),
]
RESULTS = [
    ResultWords("ccm", "matrix", 9, 28, "matrix"),
    ResultWords("ccm", "offset", 3, 14, "offset"),
    ResultWords("tone", "knot", 65, 26, "knots"),
]
BASE = {
    "name": "isp",
    "version": (1, 2, 3),
    "stages": ("ccm", "tone"),
    "parameters": PARAMETERS,
    "results": RESULTS,
    "lanes": 2,
    "max_width": 4096,
    "max_height": 3000,
    "vjp": True,
}


def test_control_registers_are_where_the_specification_puts_them():
    assert {r.name: r.address for r in CONTROL_REGISTERS} == {
        "ID": 0x000,
        "VERSION": 0x004,
        "CONTROL": 0x008,
        "STATUS": 0x00C,
        "ERRORS": 0x010,
        "FRAMES": 0x014,
        "PIXELS_LO": 0x018,
        "PIXELS_HI": 0x01C,
        "CYCLES_LO": 0x020,
        "CYCLES_HI": 0x024,
        "RESULTS": 0x028,
        "ACK": 0x02C,
        "MAX_SIZE": 0x030,
        "BUILD": 0x034,
        "PARAMETERS": 0x038,
        "RESULT_WORDS": 0x03C,
    }
    assert [r.address for r in CONTROL_REGISTERS] == [4 * k for k in range(16)]


def test_parameters_follow_the_pipeline_not_the_declarations():
    m = RegisterMap(**BASE)
    frame = ("width", "height", "cfa", "depth", "frames", "bypass", "loss.kind", "loss.delta", "loss.scale")
    assert [m.parameter(name).index for name in frame] == list(range(9))
    assert m.parameter("ccm.matrix") == Place(16, 9, SQ(4, 10))
    assert m.parameter("ccm.offset") == Place(25, 3, SQ(2, 14))
    assert m.parameter("tone.knot") == Place(28, 65, UQ(1, 15))
    assert m.parameter_words == 93
    assert m.words[-1].address() == 0x1000 + 4 * 28
    assert m.words[-1].address(64) == 0x1000 + 4 * 92


def test_results_run_from_the_last_stage_to_the_first():
    m = RegisterMap(**BASE)
    assert [(w.name, w.index) for w in m.result_runs] == [
        ("loss", 0),
        ("loss.cotangent_saturated", 1),
        ("tone.knot", 2),
        ("tone.saturated", 67),
        ("tone.cotangent_saturated", 68),
        ("ccm.matrix", 69),
        ("ccm.offset", 78),
        ("ccm.saturated", 81),
        ("ccm.cotangent_saturated", 82),
    ]
    assert m.result_words == 83
    assert m.result("loss") == Place(0, 1, SQ(39, 25))
    assert m.result("ccm.matrix").format.f == 28
    assert m.result_runs[-1].address() == 0x4000 + 8 * 82


def test_a_forward_core_counts_saturations_only():
    m = RegisterMap(**{**BASE, "vjp": False, "results": []})
    assert [(w.name, w.index) for w in m.result_runs] == [("tone.saturated", 0), ("ccm.saturated", 1)]
    assert m.result_words == 2


def test_defaults_cover_the_whole_memory_and_pass_their_own_check():
    m = RegisterMap(**BASE)
    assert m.defaults == (
        *(4096, 3000, 0, 16, 1, 0, 0, 4095, 256, 0, 0, 0, 0, 0, 0, 0),
        *(1024, 0, 0, 0, 1024, 0, 0, 0, 1024, 0, 0, 0),
        *(512 * k for k in range(65)),
    )
    m.check_parameters(m.defaults)


def test_constants():
    m = RegisterMap(**BASE)
    assert m.constant("ID") == 0x4B4C4250 == int.from_bytes(b"PBLK", "little")
    assert m.constant("VERSION") == 0x00010203
    assert m.constant("MAX_SIZE") == 3000 << 16 | 4096
    assert m.constant("BUILD") == 2 << 16 | 1 << 8 | 2
    assert m.constant("PARAMETERS") == 93
    assert m.constant("RESULT_WORDS") == 83
    with pytest.raises(ValueError, match="STATUS"):
        m.constant("STATUS")


@pytest.mark.parametrize(
    "index, code, message",
    [
        (0, 0, r"width \(word 0\) is 0; .* 1 to 4096"),
        (0, 4097, r"width \(word 0\) is 4097; .* 1 to 4096"),
        (1, 3001, r"height .* 1 to 3000"),
        (2, 4, r"cfa .* 0 to 3"),
        (3, 7, r"depth .* 8 to 16"),
        (4, 0, r"frames .* 1 to 65535"),
        (5, 4, r"bypass .* 0 to 3"),
        (9, 1, r"reserved word 9 is 1"),
        (17, 8192, r"ccm.matrix\[1\] \(word 17\) is 8192; a code of SQ\(4, 10\) here must be -8192 to 8191"),
        (17, -8193, r"ccm.matrix\[1\]"),
        (28, -1, r"tone.knot\[0\].* 0 to 65535"),
    ],
)
def test_check_names_word_value_and_range(index, code, message):
    m = RegisterMap(**BASE)
    words = list(m.defaults)
    words[index] = code
    with pytest.raises(ValueError, match=message):
        m.check_parameters(words)


def test_check_wants_every_word():
    m = RegisterMap(**BASE)
    with pytest.raises(ValueError, match="92 parameter words given; isp has 93"):
        m.check_parameters(m.defaults[:-1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "My ISP"}, "My ISP"),
        ({"version": (0, 256, 0)}, "minor of version .* is 256"),
        ({"stages": ("ccm", "ccm")}, "'ccm' appears twice"),
        ({"stages": ("loss", "ccm")}, "'loss' belongs"),
        ({"stages": ("ccm",)}, "tone.knot names no stage"),
        ({"stages": ()}, "number of stages is 0"),
        ({"lanes": 0}, "lanes is 0"),
        ({"max_width": 65536}, "max_width is 65536"),
        ({"vjp": False}, "need vjp=True"),
        ({"parameters": [*PARAMETERS, PARAMETERS[0]]}, "'tone.knot' is declared twice"),
        ({"parameters": [ParameterWords("ccm", "m", 3, SQ(1, 1), [0, 0], "")]}, "2 defaults; give 3"),
        ({"parameters": [ParameterWords("ccm", "m", 1, SQ(1, 1), 2, "")]}, "is 2; it must be -2 to 1"),
        ({"parameters": [ParameterWords("ccm", "m", 1, UQ(16, 16), 0, "")]}, r"UQ\(16, 16\)"),
        ({"parameters": [ParameterWords("ccm", "m", 0, UQ(1, 1), 0, "")]}, "0 entries"),
        ({"parameters": [ParameterWords("ccm", "m", 3057, UQ(1, 1), 0, "")]}, "3073 parameter words"),
        ({"results": [ResultWords("ccm", "m", 2043, 0, "")]}, "2049 result words"),
        ({"results": [ResultWords("ccm", "saturated", 1, 0, "")]}, "'ccm.saturated' is declared twice"),
    ],
)
def test_bad_declarations_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        RegisterMap(**{**BASE, **change})


def test_unknown_names_list_the_known_ones():
    m = RegisterMap(**BASE)
    with pytest.raises(ValueError, match=r"'gain'.*ccm\.matrix"):
        m.parameter("gain")
    with pytest.raises(ValueError, match=r"'width'.*loss"):
        m.result("width")
    with pytest.raises(ValueError, match=r"'NONE'.*STATUS"):
        m.register("NONE")
    with pytest.raises(ValueError, match="no entry 9; give 0 to 8"):
        m.words[9].address(9)


def test_names_which_documents_could_not_tell_apart_are_refused():
    with pytest.raises(ValueError, match="differs by a dot"):
        RegisterMap(
            **{
                **BASE,
                "stages": ("a", "a_b"),
                "results": [],
                "parameters": [
                    ParameterWords("a", "b_c", 1, UQ(1, 1), 0, ""),
                    ParameterWords("a_b", "c", 1, UQ(1, 1), 0, ""),
                ],
            }
        )
