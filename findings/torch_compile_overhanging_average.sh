#!/bin/sh
# torch.compile in PyTorch 2.13.0 gives a wrong gradient of average pooling whose last windows
# overhang (ceil_mode) where there is no padding, and says nothing (pytorch/pytorch#198119).
#
# The forward pass agrees with eager mode. Backward, a window that reaches past the end of the image
# is divided by the pixels that it would have inside, not by those that it has, so its pixels get
# too little. With count_include_pad=False, which is the same function where there is no padding,
# the gradient is right. Seen on a CPU, with g++ 12.2 and CPython 3.11, for windows of 3 in steps of 2
# over a row of 6 pixels, whose last window has two:
#
# count_include_pad=True: eager [0.3333 0.3333 0.6667 0.3333 0.8333 0.5   ]
# count_include_pad=True: compiled [0.3333 0.3333 0.6667 0.3333 0.6667 0.3333]
#
# The exit status is 0 as long as this is so. It needs a C++ compiler, as torch.compile does.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
TORCHINDUCTOR_CACHE_DIR="$folder/cache" venv/bin/python - <<'PROGRAM'
import numpy as np
import torch
from torch import nn

print("PyTorch", torch.__version__)
right = [1 / 3, 1 / 3, 2 / 3, 1 / 3, 5 / 6, 1 / 2]
for counts in (True, False):
    pool = nn.AvgPool2d((1, 3), (1, 2), ceil_mode=True, count_include_pad=counts)
    values = {}
    for name, function in (("eager", pool), ("compiled", torch.compile(pool))):
        x = torch.arange(6.0).reshape(1, 1, 1, 6).requires_grad_()
        y = function(x)
        y.sum().backward()
        values[name] = y.detach().numpy().ravel(), x.grad.numpy().ravel()
        print(f"count_include_pad={counts}: {name} {values[name][1].round(4)}")
    np.testing.assert_allclose(values["compiled"][0], values["eager"][0], rtol=1e-6)
    np.testing.assert_allclose(values["eager"][1], right, rtol=1e-5)
    assert np.allclose(values["compiled"][1], right, rtol=1e-5) == (not counts)
PROGRAM
