#!/bin/sh
# OpenVINO 2026.4.1 sums one channel too few in an ONNX LRN whose size is even, and says nothing.
#
# ONNX defines LRN (opset 13) for any size: channel c is divided by a sum over the channels from
# c - floor((size - 1) / 2) to c + ceil((size - 1) / 2), `size` of them, times alpha / size.
# For even sizes OpenVINO's CPU device leaves the last of these out and still divides by `size`. For
# odd sizes it agrees with the definition. Seen with onnx 1.23.2, which checks the file, NumPy 2.4.6
# and CPython 3.11:
#
# size 3: defined [0.6    0.2857 0.1429 0.0714 0.15  ], OpenVINO [0.6    0.2857 0.1429 0.0714 0.15  ]
# size 4: defined [0.1905 0.0941 0.0471 0.0952 0.2   ], OpenVINO [0.8    0.381  0.1905 0.0952 0.2   ]
# size 2: defined [0.4   0.2   0.1   0.05  0.125], OpenVINO [2.    1.    0.5   0.25  0.125]
#
# The exit status is 0 as long as this is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PROGRAM'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper

C = 5
x = (2.0 ** np.arange(C, dtype=np.float32)).reshape(1, C, 1, 1)


def divided(size, after):
    """By the sum over the channels from c - floor((size - 1) / 2) to c + after, times 1 / size."""
    before = (size - 1) // 2
    sums = [(x[0, max(0, c - before) : c + after + 1] ** 2).sum() for c in range(C)]
    return x.ravel() / (np.array(sums) / size)


def by_openvino(size):
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=1.0, beta=1.0, bias=0.0)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, C, 1, 1]) for name in "xy"]
    graph = helper.make_graph([node], "lrn", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "lrn.onnx")
    return openvino.compile_model(openvino.Core().read_model("lrn.onnx"), "CPU")(x)[0].ravel()


print("OpenVINO", openvino.__version__)
for size in (3, 4, 2):
    defined, found = divided(size, size // 2), by_openvino(size)
    print(f"size {size}: defined {defined.round(4)}, OpenVINO {found.round(4)}")
    np.testing.assert_allclose(found, divided(size, (size - 1) // 2), rtol=1e-5)
    assert np.allclose(found, defined, rtol=1e-5) == (size % 2 == 1)
PROGRAM
