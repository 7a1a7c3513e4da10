// Local response normalization: the lesson functional/lrn.py.
//
// The pixels lie one after another, so all channels of all pixels are one long row. A kernel goes
// along it by the vec, whatever the number of channels. It reads the vec once for each channel of
// the window, shifted by that many elements, from the first-level cache, and sets to 0 what belongs
// to the pixel before or after. Memory gives and takes each array once, which is the floor: in
// float32, 8 bytes an element forward, 12 backward. Roots and quotients, three forward and four
// backward, take nearly as long: on one core of an AMD EPYC (Zen 5), for n = 5 and 16 images of
// 55 × 55 × 96, bytes go at 0.7 of the speed of a copy of x forward, and at 0.4 of it backward.

#include "native.h"

#include <tgmath.h>

// The row: how many elements, channels, and channels of a window before and after its own
typedef struct {
    Index size, channels, before, after;
} Row;

// The row is shared among threads in lines of the cache.
#define LINE ((Index)(64 / sizeof(real)))

// Elements of the backward pass that are finished before the next ones are begun
#define BLOCK 1024

// How many elements ahead the memory is asked for
#define AHEAD 512

// The channels of a vec of elements
INLINE ints channels_of(Index element, Index channels) {
    ints c;
    for (Index u = 0; u < WIDTH; ++u) c[u] = (integer)((element + u) % channels);
    return c;
}

// The channels of the vec that begins 0 ≤ step < channels elements further on. Of the two numbers
// the smaller one is a channel: the other is too large, or as if it were, below 0.
INLINE ints further(ints c, Index step, Index channels) {
    uints on = (uints)(c + (integer)step), back = (uints)(c + (integer)(step - channels));
    for (Index u = 0; u < WIDTH; ++u) on[u] = on[u] < back[u] ? on[u] : back[u];
    return (ints)on;
}

INLINE vec load_until(const real *x, Index i, Index size) {
    vec v = {0};
    if (i + WIDTH <= size) return load(x + i);
    copy_few(&v, x + i, (size - i) * (Index)sizeof(real));
    return v;
}

INLINE void store_until(real *y, Index i, vec v, Index size) {
    if (i + WIDTH <= size) store(y + i, v);
    else copy_few(y + i, &v, (size - i) * (Index)sizeof(real));
}

// The sum over the window of each element of a vec, or of their squares. c are its channels.
INLINE vec inner_sum(const real *x, ints c, Index before, Index after, Index channels, int squares) {
    vec sum = {0};
    for (Index shift = -before; shift <= after; ++shift) {
        vec v = load(x + shift);
        if (shift < 0) v = where((ints)(c >= (integer)-shift), v);
        if (shift > 0) v = where((ints)(c < (integer)(channels - shift)), v);
        sum += squares ? (vec)(v * v) : v;
    }
    return sum;
}

// The same where the windows of the vec reach beyond the row, for x[i] and so on
static vec outer_sum(const real *x, Index i, ints c, Row row, int squares) {
    vec sum = {0};
    for (Index u = 0; u < least(WIDTH, row.size - i); ++u)
        for (Index shift = -least(row.before, c[u]); shift <= least(row.after, row.channels - 1 - c[u]); ++shift) {
            real v = x[i + u + shift];
            sum[u] += squares ? v * v : v;
        }
    return sum;
}

INLINE vec window_sum(const real *x, Index i, ints c, Row row, int squares) {
    if (i < row.before || i + WIDTH + row.after > row.size) return outer_sum(x, i, c, row, squares);
    return inner_sum(x + i, c, row.before, row.after, row.channels, squares);
}

// s^(quarters / 4): the paper's β is 3/4, √s · √√s.
INLINE vec power(vec s, Index quarters) {
    vec y = 1 + (vec){0}, root = s, fourth;
    if (quarters % 4) {
        for (Index u = 0; u < WIDTH; ++u) root[u] = sqrt(s[u]);
        for (Index u = 0; u < WIDTH; ++u) fourth[u] = sqrt(root[u]);
        y = quarters % 4 == 1 ? fourth : quarters % 4 == 2 ? root : (vec)(root * fourth);
    }
    for (; quarters >= 4; quarters -= 4) y *= s;
    return y;
}

// The lines first ≤ line < last of the row: the sum over the window
INLINE void sums(Index first, Index last, const real *restrict x, real *restrict y, Row row) {
    const Index step = WIDTH % row.channels, end = least(last * LINE, row.size);
    ints c = channels_of(first * LINE, row.channels);
    for (Index i = first * LINE; i < end; i += WIDTH, c = further(c, step, row.channels)) {
        __builtin_prefetch(x + i + AHEAD);
        store_until(y, i, window_sum(x, i, c, row, 0), row.size);
    }
}

// y = x / s^β
INLINE void quotients(Index first, Index last, const real *restrict x, real *restrict y, Row row, real k, real alpha,
                      Index quarters) {
    const Index step = WIDTH % row.channels, end = least(last * LINE, row.size);
    ints c = channels_of(first * LINE, row.channels);
    for (Index i = first * LINE; i < end; i += WIDTH, c = further(c, step, row.channels)) {
        __builtin_prefetch(x + i + AHEAD);
        vec s = k + alpha * window_sum(x, i, c, row, 1);
        store_until(y, i, load_until(x, i, row.size) / power(s, quarters), row.size);
    }
}

// dx = dy s^-β − 2αβ x Sᵀ(dy x r). For a block of elements, and as many before and after it as
// their windows need, `shares` are dy x r, and `own` the first term.
INLINE void gradients(Index first, Index last, const real *restrict dy, const real *restrict x, real *restrict dx,
                      Row row, real k, real alpha, Index quarters, real *restrict own, real *restrict shares) {
    const Index step = WIDTH % row.channels, end = least(last * LINE, row.size);
    const Index lead = (row.after + WIDTH - 1) / WIDTH * WIDTH;
    ints c = channels_of(first * LINE, row.channels);
    for (Index block = first * LINE; block < end; block += BLOCK) {
        const Index from = most(0, block - lead), until = least(block + BLOCK, end);
        ints a = channels_of(from, row.channels);
        for (Index i = from; i < least(until + row.before, row.size); i += WIDTH, a = further(a, step, row.channels)) {
            __builtin_prefetch(x + i + AHEAD);
            __builtin_prefetch(dy + i + AHEAD);
            __builtin_prefetch(dx + i + AHEAD, 1);
            vec s = k + alpha * window_sum(x, i, a, row, 1);
            vec gradient = load_until(dy, i, row.size) / power(s, quarters);
            store(own + lead + i - block, gradient);
            store(shares + lead + i - block, gradient * load_until(x, i, row.size) / s);
        }
        for (Index i = block; i < until; i += WIDTH, c = further(c, step, row.channels)) {
            vec sum = inner_sum(shares + lead + i - block, c, row.after, row.before, row.channels, 0);
            vec gradient = load(own + lead + i - block);
            store_until(dx, i, gradient - alpha * quarters / 2 * load_until(x, i, row.size) * sum, row.size);
        }
    }
}

// The loop over a window is written out for n = 5 and n = 9.
#define FOR_WINDOWS(work)                                             \
    if (before == 2 && after == 2) {                                  \
        const Row row = {size, channels, 2, 2};                       \
        work;                                                         \
    } else if (before == 4 && after == 4) {                           \
        const Row row = {size, channels, 4, 4};                       \
        work;                                                         \
    } else {                                                          \
        const Row row = {size, channels, before, after};              \
        work;                                                         \
    }

KERNEL void sum_window(Index first, Index last, const real *restrict x, real *restrict y, Index size, Index channels,
                       Index before, Index after) {
    FOR_WINDOWS(sums(first, last, x, y, row))
}

KERNEL void normalize(Index first, Index last, const real *restrict x, real *restrict y, Index size, Index channels,
                      Index before, Index after, real k, real alpha, Index quarters) {
    FOR_WINDOWS(quotients(first, last, x, y, row, k, alpha, quarters))
}

KERNEL void normalize_backward(Index first, Index last, const real *restrict dy, const real *restrict x,
                               real *restrict dx, Index size, Index channels, Index before, Index after, real k,
                               real alpha, Index quarters, uint8_t *room) {
    real *own = (real *)room, *shares = own + BLOCK + before + after + 3 * WIDTH;
    FOR_WINDOWS(gradients(first, last, dy, x, dx, row, k, alpha, quarters, own, shares))
}
