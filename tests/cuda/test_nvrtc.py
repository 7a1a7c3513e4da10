"""Every kernel, in every use that AlexNet makes of it and a few odd ones, compiles for the GPUs of six years, and keeps
all its numbers in registers, unless it is a naive one. NVRTC needs no GPU for that."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import nvrtc
import pytest
import standin
from model import INPUT_SIZE, alexnet

from minicnn import Tensor, nn, optim
from minicnn import functional as F
from minicnn.backends import devices
from minicnn.backends.cuda import launch, products
from minicnn.backends.cuda.__main__ import CONSTANTS
from minicnn.data.transforms import Normalize

FILES = sorted(path.stem for path in launch.HERE.glob("*.cu"))
NORMALIZE = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
ARCHITECTURES = (75, 80, 90, 100, 120)  # Turing, Ampere, Hopper, Blackwell in a server and at home
FRAME = re.compile(
    r"Function properties for (\w+)\n.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)
KERNEL = re.compile(r"Compiling entry function '(\w+)' for")
WINDOW = {
    "C": 3, "H": 7, "W": 9, "KH": 3, "KW": 2, "SH": 2, "SW": 1, "DH": 2, "DW": 3, "TOP": 1, "LEFT": 2, "OH": 3, "OW": 9,
}  # fmt: skip
ROWS = {"RUN": 5, "ROW": 48, "LINE": 240, "PIXEL": 24}
BYTE = {"place": "unsigned char"}
ODD = [  # file, types, constants
    ("activation", {}, {"PACK": 1}),
    ("conv", {}, {"PACK": 1}),
    ("dropout", {}, {"PACK": 1}),
    ("linear", {}, {"PACK": 1, "C": 7, "RECTIFIED": 0}),
    ("loss", {}, {"K": 7}),
    ("lrn", {}, {"PACK": 1, "C": 7, "BEFORE": 2, "AFTER": 1}),
    ("lrn", {}, {"PACK": 4, "C": 16, "BEFORE": 3, "AFTER": 3}),
    ("lrn", {}, {"PACK": 1, "C": 64, "BEFORE": 16, "AFTER": 15}),
    ("matmul", {}, {"TILE": 16}),
    ("ops", {}, {"PACK": 1, "WIDE": 7}),
    ("optimizer", {}, {"PACK": 1, "MOST": 24}),
    ("pixels", {}, {"PACK": 1}),
    ("pooling", BYTE, {**WINDOW, "PACK": 1, "PADDED": 1, "ALL": 0}),
    ("pooling", BYTE, {**WINDOW, "C": 8, "PACK": 4, "PADDED": 1, "ALL": 1}),
    ("pooling", {"place": "unsigned"}, {**WINDOW, "C": 8, "PACK": 4, "PADDED": 1, "ALL": 0}),
    ("windows", {}, {**WINDOW, **ROWS, "PACK": 1, "READ": 1, "G": 1}),
    ("windows", {}, {**WINDOW, **ROWS, "PACK": 4, "READ": 1, "G": 2}),
    ("windows", {"Index": "unsigned long long"}, {**WINDOW, **ROWS, "C": 8, "PACK": 4, "READ": 4, "G": 3}),
]


@pytest.fixture(scope="module")
def uses():
    """Those of ODD, and what AlexNet's training step launches, for a batch of one image: for 128 it is the same, for
    all arrays have less than 2³¹ numbers then too. Nothing is computed."""
    found = dict.fromkeys((file, tuple(types.items()), tuple(constants.items())) for file, types, constants in ODD)

    def source(file, types, constants):
        found[file, types[2:], constants] = None  # without `real` and `Index`
        return ""

    with standin.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "source", source)
        patch.setattr(standin.arrays, "poisoned", np.empty)
        patch.setattr(standin.cupy, "RawModule", lambda **_: SimpleNamespace(get_function=lambda _: lambda *_: None))
        patch.setattr(products, "product", lambda a, b, out: out)
        for name in ("normal", "he"):
            patch.setattr(nn.init, name, lambda *_: lambda shape: np.empty(shape, np.float32))
        for variant in ("2012", "2014"):
            net, size = alexnet(variant).to("gpu"), INPUT_SIZE[variant]
            images = devices.to_device(np.zeros((1, size, size, 3), np.uint8), "gpu")
            F.cross_entropy(net(Tensor(NORMALIZE(images))), np.array([0])).backward()
            optim.SGD(net.parameters(), 0.01).step()
    devices.opened.clear()
    assert {file for file, _, _ in found} == set(FILES)
    return list(found)


def check(real, jobs):
    """Each (use, architecture) compiles, every kernel of the file, and needs no memory but the registers."""
    jobs = [  # each once
        ((file, tuple({"Index": "unsigned", **dict(types), "real": real}.items()), constants), architecture)
        for (file, types, constants), architecture in dict.fromkeys(jobs)
    ]
    try:
        logs = nvrtc.logs([(launch.source(*use), architecture) for use, architecture in jobs], *launch.OPTIONS)
    except nvrtc.Missing as reason:
        pytest.skip(str(reason))
    for (use, architecture), log in zip(jobs, logs, strict=True):
        assert not log.startswith("failed"), f"{use} for sm_{architecture}: {log}"
        assert set(KERNEL.findall(log)) == launch.declarations(use[0]).keys()
        for name, *numbers in FRAME.findall(log):
            assert name.endswith("_naive") or numbers == ["0"] * 3, f"{use} for sm_{architecture}: {log}"
        assert "warning" not in log, f"{use} for sm_{architecture}: {log}"


def test_float32(uses):
    """Every use, and on every architecture every kernel."""
    check("float", [job for file in FILES for job in in_turn([use for use in uses if use[0] == file])])


def test_float64(uses):
    """The odd uses only."""
    check("double", in_turn(uses[: len(ODD)]))


def test_the_program_shows_uses_in_alexnet(uses):
    """And these compile, by test_float32, or for matmul, of which AlexNet has no use, as an odd one."""
    found = [(file, dict(constants)) for file, _, constants in uses]
    assert CONSTANTS.keys() == set(FILES) and all(use in found for use in CONSTANTS.items())


@pytest.mark.slow
@pytest.mark.parametrize("real", ["float", "double"])
def test_every_use_on_every_architecture(uses, real):
    check(real, [(use, architecture) for use in uses for architecture in ARCHITECTURES])


def in_turn(uses):
    """(use, architecture), as often as it takes for each use and each architecture to occur."""
    use, architecture = itertools.cycle(uses), itertools.cycle(ARCHITECTURES)
    return [(next(use), next(architecture)) for _ in range(max(len(uses), len(ARCHITECTURES)))]


def test_what_cannot_be_compiled():
    """It is told from what can, and numbers in registers from numbers in memory."""
    begin, bad = 'extern "C" __global__ void f(float* x) {', "no CUDA"
    local = begin + "float a[64]; for (int i = 0; i < 64; ++i) a[i] = x[i];"
    local += " for (int i = 0; i < 64; ++i) a[int(a[i])] += 1; for (int i = 0; i < 64; ++i) x[i] = a[i]; }"
    try:
        logs = nvrtc.logs([(begin + "}", 90), (bad, 90), (local, 90), (begin + "}", 30)])
    except nvrtc.Missing as reason:
        pytest.skip(str(reason))
    assert FRAME.findall(logs[0]) == [("f", "0", "0", "0")] and KERNEL.findall(logs[0]) == ["f"]
    assert logs[1].startswith("failed") and logs[3].startswith("failed")
    assert FRAME.findall(logs[2]) == [("f", "256", "0", "0")]
