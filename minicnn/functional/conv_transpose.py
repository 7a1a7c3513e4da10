"""Transposed convolution: lesson conv's map from dy back to dx, as a layer that enlarges images.

conv2d sums each window into one pixel. conv_transpose2d adds each pixel's multiple of the kernel to
a window of the result; where windows overlap, the multiples add up (Zeiler et al. 2010). It is not
the inverse of conv2d, but its transpose: ⟨conv2d(x), y⟩ = ⟨x, conv_transpose2d(y)⟩ for all x and y.
With K the weight, s the stride and d the dilation, it computes t and crops the padding from it:

    t[n, p·s + i·d, q·s + j·d, :] += x[n, p, q, :] @ K[i, j]ᵀ      for all n, p, q, i, j

    x (N, H, W, O)      K (KH, KW, C, O)      t (N, TH, TW, C)      (here for one group)

So its gradients, to any order, are the maps of lesson conv: if g arrives at t, x gets conv2d(g, K),
K gets convolve_weight(g, x), and the bias gets Σ g over images and pixels. K and x are kept.

A weight in PyTorch's layout, (O, C/groups, KH, KW), has its axes in another order, as in conv2d.

>>> import minicnn, minicnn.functional as F
>>> kernel = minicnn.Tensor([[1.0, 2.0, 3.0]]).reshape(1, 3, 1, 1)
>>> x = minicnn.Tensor([1.0, 10.0]).reshape(1, 1, 2, 1)
>>> F.conv_transpose2d(x, kernel, stride=2).reshape(5)
Tensor([ 1.,  2., 13., 20., 30.], dtype=float32)

Try: which kernel writes each pixel twice?

>>> twice = minicnn.Tensor([[1.0, 1.0]]).reshape(1, 2, 1, 1)
>>> F.conv_transpose2d(x, twice, stride=2).reshape(4)
Tensor([ 1.,  1., 10., 10.], dtype=float32)
"""

from ..tensor import Tensor, apply
from .conv import Conv2dTranspose
from .layout import check_convolution
from .shapes import pad
from .windows import IntPair, Padding, Pair, Window, pair

__all__ = ["conv_transpose2d"]


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    *,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Tensor:
    """The transpose of conv2d with the same weight and settings, which maps from conv2d's output
    size back to its input size (Zeiler et al. 2010).

    Args:
        x: (N, H, W, O), floating point.
        weight: (KH, KW, C/groups, O): conv2d's weight, so the result has C channels.
        bias: (C,) or None.
        stride, padding, dilation, groups: conv2d's; the last two are keyword-only, because PyTorch
            has them in another order.
        output_padding: int or (height, width), smaller than the stride or the dilation. conv2d maps
            several input sizes to one output size; output_padding chooses a larger one of them.
    Returns:
        (N, TH, TW, C), TH = (H − 1)·stride − top − bottom + dilation·(KH − 1) + output_padding + 1.
    Raises:
        ValueError: the shapes or settings do not fit, or the padding leaves no pixel.
    """
    check_convolution("conv_transpose2d", x, weight, bias, groups, transposed=True)
    window = Window.of(weight.shape[:2], stride, padding, dilation)
    extra = extra_pixels("conv_transpose2d", output_padding, window)
    h, w = (
        (n - 1) * s - sum(p) + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(x.shape[1:3], *window, extra, strict=True)
    )
    if h < 1 or w < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of the result ({h} × {w} pixels)")
    if extra == (0, 0):
        y = apply(Conv2dTranspose(window, groups, (h, w)), x, weight)
    else:
        # conv2d of h × w pixels makes more than x has if extra is not below the stride. So compute
        # without padding and extra, add zeros where no window reaches, then crop
        (top, bottom), (left, right) = window.padding
        whole = h - extra[0] + top + bottom, w - extra[1] + left + right
        y = apply(Conv2dTranspose(window._replace(padding=((0, 0), (0, 0))), groups, whole), x, weight)
        y = pad(y, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)))[:, top : top + h, left : left + w]
    return y if bias is None else y + bias


def extra_pixels(name: str, output_padding: IntPair, window: Window) -> Pair:
    """output_padding as a pair.

    Raises:
        ValueError: it is not smaller than the stride or the dilation.
    """
    extra = pair(output_padding, f"{name}: output_padding", 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, window.stride, window.dilation, strict=True)):
        raise ValueError(
            f"{name}: output_padding {output_padding} must be smaller than the stride {window.stride} "
            f"or the dilation {window.dilation}"
        )
    return extra


# The faster versions are those of lesson conv's convolve_transpose.
