"""Print what the compiler sees of a .cu file, for a use in AlexNet, and how to compile it. That
needs neither CuPy nor a GPU.

    python -m minicnn.backends.cuda lrn
"""

from .. import printing
from . import launch, matmul, optimizer

CONV1 = {
    "PACK": 4, "C": 3, "H": 227, "W": 227, "KH": 11, "KW": 11, "SH": 4, "SW": 4, "DH": 1, "DW": 1, "TOP": 0, "LEFT": 0,
    "OH": 55, "OW": 55, "G": 1, "ROW": 364, "LINE": 227 * 3, "PIXEL": 3, "RUN": 11, "READ": 1,
}  # fmt: skip
POOL1 = {
    "PACK": 4, "C": 96, "H": 55, "W": 55, "KH": 3, "KW": 3, "SH": 2, "SW": 2, "DH": 1, "DW": 1, "TOP": 0, "LEFT": 0,
    "OH": 27, "OW": 27, "PADDED": 0, "ALL": 0,
}  # fmt: skip
CONSTANTS = {
    "activation": {"PACK": 4},
    "conv": {"PACK": 4},
    "dropout": {"PACK": 4},
    "linear": {"PACK": 4, "C": 96, "RECTIFIED": 1},
    "loss": {"K": 1000},
    "lrn": {"PACK": 4, "C": 96, "BEFORE": 2, "AFTER": 2},
    "matmul": {"TILE": matmul.TILE},
    "ops": {"PACK": 4, "WIDE": 24},
    "optimizer": {"PACK": 4, "MOST": optimizer.MOST},
    "pixels": {"PACK": 4},
    "pooling": POOL1,
    "windows": CONV1,
}
# the last in pooling.cu alone
TYPES = {"real": "float", "Index": "unsigned", "place": "unsigned char"}
HEAD = """\
// {name}.cu as the compiler sees it, for a use in AlexNet. To compile it for an A100 and to see how
// many registers each kernel takes:
//
//     python -m minicnn.backends.cuda {name} > {name}.cu
//     nvcc {options} -ftz=true -arch=sm_80 -cubin -Xptxas -v {name}.cu
//
// CuPy gives it to NVRTC, with the same options up to -ftz=true.
"""


def text(name: str) -> str:
    source = launch.source(name, tuple(TYPES.items()), tuple(CONSTANTS[name].items()))
    return HEAD.format(name=name, options=" ".join(launch.OPTIONS)) + source + "\n"


def main() -> None:
    printing.main("python -m minicnn.backends.cuda", __doc__ or "", CONSTANTS, text)


if __name__ == "__main__":
    main()
