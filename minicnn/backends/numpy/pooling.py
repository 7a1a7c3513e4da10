"""Pooling (functional/pooling.py) on all threads, a few images at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import threads
from .masks import select
from .memory import empty, scratch
from .threads import Array, batch_step, parallel, slices
from .windows import padded

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one


def window_maximum(x: Array, window: Window) -> Array:
    """y = max over each window: (N, H, W, C) -> (N, OH, OW, C)"""
    y = empty((len(x), *window.output_size(*x.shape[1:3]), x.shape[3]), x.dtype)
    (kh, kw), (sh, sw), _, _ = window
    along = window._replace(kernel_size=(1, kw), stride=(1, sw))
    across = window._replace(kernel_size=(kh, 1), stride=(sh, 1))

    def images(lo: int, hi: int) -> None:
        whole = padded(x[lo:hi], window, -np.inf)
        # first along the width, then along the height: KW + KH comparisons for each window, not
        # KW·KH; flat is (n, H, OW, C)
        flat = scratch("flat", (hi - lo, whole.shape[1], y.shape[2], x.shape[3]), like=x)
        _running_maximum(along.taps(whole), flat)
        _running_maximum(across.taps(flat), y[lo:hi])

    parallel(images, _slices(x))
    return y


def _running_maximum(views: Iterator[Array], out: Array) -> None:
    first = next(views)
    np.maximum(first, next(views, first), out=out)
    for view in views:
        np.maximum(out, view, out=out)


def winners(x: Array, y: Array, window: Window) -> Array:
    """The argmax of each window, i·KW + j, of its first maximum: (N, H, W, C), (N, OH, OW, C) ->
    (N, OH, OW, C), uint8 or larger. A window of NaN has no maximum: its argmax is KH·KW.
    """
    kh, kw = window.kernel_size
    winner = empty(y.shape, np.uint8 if kh * kw <= 255 else np.uint32)

    def images(lo: int, hi: int) -> None:
        place = winner[lo:hi]
        place[...] = 0
        waiting = np.ones(place.shape, bool)  # for a pixel that is the maximum
        other = np.empty(place.shape, bool)
        for tap in window.taps(padded(x[lo:hi], window, np.nan)):  # NaN: equal to nothing
            waiting &= np.not_equal(tap, y[lo:hi], out=other)
            # counts the pixels before the maximum: 20 times as fast as writing k where the mask
            # holds
            place += waiting

    parallel(images, _slices(x))
    return winner


def scatter(dy: Array, winner: Array | None, window: Window, size: tuple[int, int]) -> Array:
    """dx = what each pixel won: (N, OH, OW, C) -> (N, H, W, C), where (H, W) = size. Without
    winners every pixel of a window receives all of it.
    """
    dx = empty((len(dy), *size, dy.shape[3]), dy.dtype)
    (kh, kw), (sh, sw), ((top, bottom), (left, right)), dilation = window
    is_padded = window.padding != ((0, 0), (0, 0))
    # Then each pixel is in one of a window's SH · SW places (i < SH, j < SW), unless it lies behind
    # the last window's: these are written, which takes half the time of adding to zeros.
    # equivalent (comparison, constant): adds to zeros
    tiles = kh >= sh and kw >= sw and dilation == (1, 1)
    overlap = kh > sh or kw > sw  # equivalent (operator, term, comparison): both ways are right

    def images(lo: int, hi: int) -> None:
        whole = dx[lo:hi]
        if is_padded:
            whole = scratch("padded", (hi - lo, top + size[0] + bottom, left + size[1] + right, dy.shape[3]), like=dy)
        # as in a sum, −0 becomes 0
        given = np.add(dy[lo:hi], 0, out=scratch("given", dy[lo:hi].shape, like=dy))
        if winner is not None and overlap:  # equivalent (term): both ways are right
            whole[...] = 0
            _add_at_winners(given, winner[lo:hi], window, whole)
        else:
            # equivalent (term): more zeros do no harm
            whole[:, sh * dy.shape[1] if tiles else 0 :] = 0
            whole[:, :, sw * dy.shape[2] :] = 0  # equivalent (term): nor here
            won = given if winner is None else scratch("won", given.shape, like=dy)
            for k, tap in enumerate(window.taps(whole)):
                if winner is not None:
                    select(given, winner[lo:hi] == k, won)
                if tiles and k // kw < sh and k % kw < sw:
                    tap[...] = won
                else:
                    tap += won
        if is_padded:
            dx[lo:hi] = window.unpadded(whole)

    parallel(images, _slices(dx))
    return dx


def _add_at_winners(dy: Array, winner: Array, window: Window, dx: Array) -> None:
    """dx at the winners += dy. Where windows overlap this takes half the time of a pass for each
    place of a window. The sums are those, bit by bit: each place follows those before it.
    """
    (n, h, w, c), (kh, kw), (down, right) = dx.shape, window.kernel_size, window.dilation
    # in the elements of an image: a window's first, and from there its places; that without a
    # winner is its first again, to which 0 is added
    first = next(window.taps(np.arange(h * w * c).reshape(1, h, w, c)))
    i, j = np.divmod(np.arange(kh * kw + 1) % (kh * kw), kw)  # equivalent (constant): of no use
    at = ((i * down * w + j * right) * c).take(winner)
    at += first
    at += (h * w * c * np.arange(n)).reshape(n, 1, 1, 1)
    dy = select(dy, winner < kh * kw, dy)
    np.add.at(dx.reshape(-1), at.reshape(-1)[::-1], dy.reshape(-1)[::-1])


def gather(x: Array, winner: Array | None, window: Window) -> Array:
    """y = x at the winners' places: (N, H, W, C) -> (N, OH, OW, C). Without winners it is the sum
    over all places.
    """
    y = empty((len(x), *window.output_size(*x.shape[1:3]), x.shape[3]), x.dtype)

    def images(lo: int, hi: int) -> None:
        out = y[lo:hi]
        won = scratch("won", out.shape, like=x)
        for k, tap in enumerate(window.taps(padded(x[lo:hi], window))):
            part = tap if winner is None else select(tap, winner[lo:hi] == k, won)
            np.add(out if k else 0, part, out=out)

    parallel(images, _slices(x))
    return y


def _slices(x: Array) -> list[tuple[int, int]]:
    """How many images to take at a time: about 800,000 elements of x, and enough to give each
    thread its share. Half as many take up to twice as long, because the threads contend for the
    interpreter lock; twice as many take a third longer, because they leave the cache.
    """
    n, nbytes = len(x), 2 * x.shape[1] * x.shape[2] * x.shape[3] * x.itemsize
    return slices(n, batch_step(n, nbytes)) if n * nbytes > threads.CACHE else [(0, n)]
