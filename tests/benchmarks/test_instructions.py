"""The machine instructions of a launch: read from a listing, counted loop by loop, and what they take."""

import pytest

from benchmarks import gpu
from benchmarks import instructions as counting
from benchmarks.gpu_launches import Code, Launch
from benchmarks.instructions import Instruction, Issued, clocks, issued, read, way

# f: two instructions and an exit for threads to spare; a loop with another inside it, a choice and something that may
# be skipped; the end; and what ptxas puts behind it. g has nothing to do with f.
LISTING = """
	.section	.text.g,"ax",@progbits
.text.g:
        /*0000*/                   EXIT ;
	.section	.text.f,"ax",@progbits
	.align	128
.text.f:
.L_x_9:
        /*0000*/                   S2R R0, SR_CTAID.X ;
        /*0010*/                   ISETP.GE.U32.AND P0, PT, R0, UR4, PT ;
        /*0020*/               @P0 EXIT ;
.L_x_0:
        /*0030*/                   IMAD.WIDE.U32 R4, R0, 0x4, R2 ;
.L_x_1:
	//## File "kernels.cu", line 3
        /*0040*/                   FADD.FTZ R8, R8, R17 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/               @P2 BRA `(.L_x_3) ;
        /*0070*/                   MOV R2, R4 ;
        /*0080*/                   BRA `(.L_x_4) ;
.L_x_3:
        /*0090*/                   MUFU.EX2 R2, R4 ;
        /*00a0*/                   FMUL.FTZ R2, R2, R4 ;
        /*00b0*/                   FMUL.FTZ R2, R2, R4 ;
.L_x_4:
        /*00c0*/              @!P3 BRA P0, `(.L_x_5) ;
        /*00d0*/                   LDG.E.CONSTANT R16, desc[UR4][R28.64+0x30] ;
.L_x_5:
        /*00e0*/              @!P0 BRA `(.L_x_0) ;
        /*00f0*/                   EXIT ;
.L_x_6:
        /*0100*/                   BRA `(.L_x_6);
        /*0110*/                   NOP;
	.section	.text.h,"ax",@progbits
        /*0000*/                   EXIT ;
"""
AROUND = ["S2R", "ISETP.GE.U32.AND", "EXIT"]
BODY = ["IMAD.WIDE.U32", "BRA", "MUFU.EX2", "FMUL.FTZ", "FMUL.FTZ", "BRA", "LDG.E.CONSTANT", "BRA"]


def test_read():
    found = read(LISTING, "f")
    assert len(found) == 18 and found[0] == ("S2R", False, None) and found[2] == ("EXIT", True, None)
    jumps = {i: found[i].target for i in range(18) if found[i].target is not None}
    assert jumps == {5: 4, 6: 9, 8: 12, 12: 14, 14: 3, 16: 16}
    assert [found[i].conditional for i in jumps] == [True, True, False, True, True, False]
    assert read(LISTING, "g") == read(LISTING, "h") == [("EXIT", False, None)]


def test_the_longest_way():
    """Of the choice the longer branch; what may be skipped is not; and the end once."""
    gone = way(read(LISTING, "f"), 2.0, [10.0])
    assert sum(times for _, times in gone) == 4 + 2 * (8 + 10 * 2)
    assert sorted(name for name, times in gone if times == 1) == sorted([*AROUND, "EXIT"])
    assert [name for name, times in gone if times == 2] == BODY
    assert [name for name, times in gone if times == 20] == ["FADD.FTZ", "BRA"]


def test_a_loop_that_is_gone_on_with_from_two_places_is_one():
    names = "FADD BRA FMUL BRA RET.REL NOP".split()
    code = [Instruction(name, name == "BRA", 0 if name == "BRA" else None) for name in names]
    gone = way(code, 3, [])
    assert [times for _, times in gone] == [3, 3, 3, 3, 1]


@pytest.mark.parametrize("inner", [[], [1.0, 1.0]])
def test_loops_that_are_not_known(inner):
    with pytest.raises(ValueError, match=rf"^its machine code has 2 loops, not one with {len(inner)} inside$"):
        way(read(LISTING, "f"), 1.0, inner)


def test_loops_one_after_the_other():
    """As when the compiler has written FOR_EACH out: how often each is run is not known."""
    loop = [Instruction("FADD", False), Instruction("BRA", True, 0)]
    with pytest.raises(ValueError, match="2 loops"):
        way([*loop, loop[0], Instruction("BRA", True, 2)], 1.0, [1.0])


@pytest.mark.parametrize(
    "names, expected",
    [
        ("FFMA FFMA LDG FADD", 1),
        ("IMAD IMAD.MOV.U32 FFMA FFMA", 1),
        ("IMAD IMAD IMAD.SHL FFMA", 1.5),
        ("IMAD.WIDE.U32 IMAD.HI IMAD", 2.5),
        ("IMAD IMAD IADD3 LOP3", 1),  # these do not share lanes
        ("IADD3 VIADD ISETP LEA.HI SHF PRMT SEL MOV FSETP FSEL FMNMX VIMNMX VIADDMNMX PLOP3 IABS I2FP.F32 P2R", 8.5),
        ("UIADD3 ULDC UMOV UIMAD ULEA ULOP3 S2R CS2R", 2),  # once for a warp, or not by these lanes
        ("MUFU.RCP F2I.FTZ I2F.U32 FRND", 8),
        ("I2FP.F32.U32", 0.5),
        ("DADD DFMA DMUL", 1.5),
    ],
)
def test_clocks(names, expected):
    assert clocks([(name, 1.0) for name in names.split()]) == expected


def test_what_a_launch_issues(monkeypatch):
    """300 blocks of 8 warps, which run the outer loop half a time each in the mean, the inner one four times in that;
    3 of 300 blocks' worth cannot use all multiprocessors."""
    monkeypatch.setitem(counting.INNER, "a.f", lambda numbers: [numbers["K"]])
    launch = Launch("a.f", "kernel", "", 0, 0.0, Code("", 300, 1200, (("K", 4),)))
    each = 4 + 0.5 * (8 + 2 * 4)
    taken = (1 * 1 + 0.5 * 1) / 2, (0.5 * 2) / 2, 0.5 / 0.5  # integers, products of 64 bits, special functions
    assert max(taken) < each / 4
    assert issued(LISTING, launch) == Issued(2400 * each, pytest.approx(2400 * each / 4 / 132 / 1.755e9))
    few = launch._replace(code=launch.code._replace(blocks=3, turns=12))
    assert issued(LISTING, few) == Issued(24 * each, pytest.approx(24 * each / 4 / 3 / 1.755e9))
    with pytest.raises(ValueError, match=r"^b\.f: its machine code has 2 loops, not one with 0 inside$"):
        issued(LISTING, launch._replace(name="b.f"))


def test_how_often_inner_loops_are_run():
    """22 rows are 5 times four and 2; a pixel of conv2 is seen by (27 · 5 − 2 · 3) / 27 windows along an axis."""
    assert counting.INNER["ops.column_sums"]({"rows": 1000, "chunk": 169, "WIDE": 32}) == [2, 5]
    assert counting.INNER["ops.column_sums"]({"rows": 8, "chunk": 169, "WIDE": 32}) == [1, 0]
    common = {"H": 27, "KH": 5, "SH": 1, "DH": 1, "TOP": 2, "OH": 27, "W": 55, "KW": 5, "SW": 1, "DW": 1, "LEFT": 2}
    for changed, down, along in (
        ({"OW": 55}, 129 / 27, 1),
        ({"OW": 12, "TOP": 0, "OH": 20, "SH": 2, "DH": 3}, 54 / 27, 0),
        # one pixel, which is seen by the windows with 2q + j = 8, or q + 2j = 8
        ({"W": 1, "LEFT": 8, "SW": 2, "OW": 5, "KW": 7}, 129 / 27, 1),
        ({"W": 1, "LEFT": 8, "DW": 2, "OW": 7, "KW": 5}, 129 / 27, 1),
    ):
        assert counting.INNER["windows.col2im"](common | changed) == [pytest.approx(down), along]


def asked(name, source, count):
    return Launch(name, "kernel", "", 0, 0.0, Code(source, -(-count // 256), -(-count // 32), ()))


def test_without_the_tools(monkeypatch):
    """One line."""
    monkeypatch.setattr(counting.shutil, "which", lambda name: None)
    monkeypatch.setattr(counting.importlib.util, "find_spec", lambda name: None)
    said = counting.Machine(1).issued([asked("a.f", "void", 1)])
    assert said == "nvdisasm is missing, which comes with CUDA, and for Python as nvidia-cuda-nvdisasm"


def test_nvdisasm_beside_nvidias_packages(monkeypatch, tmp_path):
    """And one that cannot read what it is given."""
    tool = tmp_path / "cu13" / "bin" / "nvdisasm"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\necho "$1 $(cat $2)"; echo bad file >&2; test $(cat $2) = good\n')
    tool.chmod(0o755)
    place = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(counting.shutil, "which", lambda name: None)
    monkeypatch.setattr(counting.importlib.util, "find_spec", lambda name: place)
    monkeypatch.setattr(counting, "compiled", str.encode)
    assert counting.listing("good") == "-c good\n"
    assert counting.Machine(1).issued([asked("a.f", "bad", 1)]) == "nvdisasm: bad file"


@pytest.mark.skipif(not gpu.SUITE.joinpath("standin").is_dir(), reason="needs the stand-in of tests/cuda")
def test_a_training_step():
    """All loops are known, and there are as many instructions as the kernels' authors say: 7 for each element of
    conv1's columns (windows.cu), where there were 61; a few for each of the simplest kernels."""
    launches = [launch for launch, _ in gpu._asked(gpu.Options(1, [128])) if launch.code]
    counted = gpu.issued(gpu.Options(1), launches)
    if isinstance(counted, str) and any(tool in counted for tool in ("nvdisasm is missing", "cupy", "nvrtc")):
        pytest.skip(counted)
    assert not isinstance(counted, str), counted
    found = {(launch.name, launch.shape): count for launch, count in zip(launches, counted, strict=True)}
    elements = {
        ("windows.im2col", "128×227×227×3 → 387200×364"): (387200 * 364, 6.5, 7.5),
        ("activation.where_positive", "128×55×55×96"): (128 * 55 * 55 * 96, 7, 10),
        ("linear.add_bias", "128×55×55×96 → 96"): (128 * 55 * 55 * 96, 7, 12),
        ("optimizer.sgd", "60,965,224"): (60965224, 15, 30),
    }
    for launch, (number, least, most) in elements.items():
        assert least <= 32 * found[launch].instructions / number <= most
    # 528 warps' instructions in a clock at the most, 66 if all were special functions of the slowest kind
    assert all(66 < count.instructions / count.seconds / 1.755e9 <= 528.1 for count in counted if count.seconds > 3e-6)
