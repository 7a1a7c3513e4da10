// Local response normalization: the lesson functional/lrn.py.
//
// The pixels lie one after another, so all channels of all pixels are one long row. A kernel goes
// along it by the vec, whatever the number of channels. It reads the vec once for each channel of
// the window, shifted by that many elements, from the first-level cache, and sets to 0 what belongs
// to the pixel before or after. What networks have, small windows and pixels of whole vecs, goes
// pixel by pixel, with all that a window needs in registers.
//
// Memory gives and takes each array once, which is the floor: in float32, 8 bytes an element
// forward, 12 backward. With n = 5 and 16 or 64 images of 55 × 55 × 96, two cores of an AMD EPYC
// (Zen 5, AVX-512) move bytes at 0.9 of the speed of NumPy's sum of two arrays, in both directions.
// Where the arrays stay in the last-level cache, arithmetic is the limit: the two roots and the
// quotient that a vec takes are 11 of its 13 cycles forward, and of its 20 backward.

#include "native.h"

#include <tgmath.h>

// The row: how many elements, channels, and channels of a window before and after its own; whether
// the compiler knows the latter two
typedef struct {
    Index size, channels, before, after;
    int known;
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

// s^-1/4 and s^-1/2. With two roots and a quotient, all that is needed of s is made by products.
// The order is such that 0 and infinity become each other.
typedef struct {
    vec fourth, root;
} Inverse;

INLINE Inverse inverse(vec s) {
    Inverse r;
    for (Index u = 0; u < WIDTH; ++u) r.root[u] = sqrt(s[u]);
    r.root = 1 / r.root;
    for (Index u = 0; u < WIDTH; ++u) r.fourth[u] = sqrt(r.root[u]);
    return r;
}

// s^-β for β = quarters / 4: the paper's is 3/4.
INLINE vec power(Inverse r, Index quarters) {
    vec y = 1 + (vec){0};
    if (quarters % 4) y = quarters % 4 == 1 ? r.fourth : quarters % 4 == 2 ? r.root : (vec)(r.fourth * r.root);
    for (; quarters >= 4; quarters -= 4) y *= r.root * r.root;
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
        store_until(y, i, load_until(x, i, row.size) * power(inverse(s), quarters), row.size);
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
            Inverse r = inverse(s);
            vec gradient = load_until(dy, i, row.size) * power(r, quarters);
            store(own + lead + i - block, gradient);
            store(shares + lead + i - block, gradient * r.root * (load_until(x, i, row.size) * r.root));
        }
        for (Index i = block; i < until; i += WIDTH, c = further(c, step, row.channels)) {
            vec sum = inner_sum(shares + lead + i - block, c, row.after, row.before, row.channels, 0);
            vec gradient = load(own + lead + i - block);
            store_until(dx, i, gradient - alpha * quarters / 2 * load_until(x, i, row.size) * sum, row.size);
        }
    }
}

// ------------------------------------------------------------------------ the paper's case
// Windows of a few channels, pixels of whole vecs and β = 3/4: a pixel is gone along with three
// vecs in registers, of which the windows of the middle one consist. Before a pixel's first vec and
// after its last there is 0.

INLINE int is_usual(Row row, Index quarters) {
    return row.known && row.before <= WIDTH && row.channels % WIDTH == 0 && quarters == 3;
}

// The first pixel that begins in this line or later
INLINE Index pixel_from(Index line, Row row) {
    return least((line * LINE + row.channels - 1) / row.channels * row.channels, row.size);
}

// A vec that begins with number `from` of a, and goes on with those of b
INLINE vec out_of(vec a, vec b, Index from) {
    ints places;
    for (Index u = 0; u < WIDTH; ++u) places[u] = (integer)(u + from);
    return chosen(a, b, places);
}

INLINE vec sum_of(vec left, vec middle, vec right, Row row) {
    vec sum = middle;
    for (Index shift = 1; shift <= row.before; ++shift) sum += out_of(left, middle, WIDTH - shift);
    for (Index shift = 1; shift <= row.after; ++shift) sum += out_of(middle, right, shift);
    return sum;
}

INLINE void usual_quotients(Index first, Index last, const real *restrict x, real *restrict y, Row row, real k,
                            real alpha) {
    for (Index i = pixel_from(first, row); i < pixel_from(last, row);) {
        const Index end = i + row.channels;
        vec now = load(x + i), left = {0}, middle = now * now;
        for (; i < end; i += WIDTH) {
            __builtin_prefetch(x + i + AHEAD);
            const vec next = i + WIDTH < end ? load(x + i + WIDTH) : (vec){0}, right = next * next;
            const vec s = k + alpha * sum_of(left, middle, right, row);
            store(y + i, now * power(inverse(s), 3));
            left = middle, middle = right, now = next;
        }
    }
}

// The sums of shares are one vec behind those of squares: of dx[i], the first term is `own`, and
// the shares are `old`, `share` and what is computed next.
INLINE void usual_gradients(Index first, Index last, const real *restrict dy, const real *restrict x, real *restrict dx,
                            Row row, real k, real alpha) {
    const real factor = alpha * 3 / 2;
    for (Index i = pixel_from(first, row); i < pixel_from(last, row);) {
        const Index begin = i, end = i + row.channels;
        vec now = load(x + i), left = {0}, middle = now * now, old = {0}, share = {0}, own = {0}, past = {0};
        for (; i < end; i += WIDTH) {
            __builtin_prefetch(x + i + AHEAD);
            __builtin_prefetch(dy + i + AHEAD);
            __builtin_prefetch(dx + i + AHEAD, 1);
            const vec next = i + WIDTH < end ? load(x + i + WIDTH) : (vec){0}, right = next * next;
            const Inverse r = inverse(k + alpha * sum_of(left, middle, right, row));
            const vec gradient = load(dy + i) * power(r, 3), new = gradient * r.root * (now * r.root);
            if (i > begin) store(dx + i - WIDTH, own - factor * past * sum_of(old, share, new, row));
            left = middle, middle = right, past = now, now = next;
            old = share, share = new, own = gradient;
        }
        store(dx + end - WIDTH, own - factor * past * sum_of(old, share, (vec){0}, row));
    }
}

// ----------------------------------------------------------------------------------- the kernels
// The loop over a window is written out for n = 3, 5 and 9.
#define FOR_WINDOWS(work)                                             \
    if (before == 1 && after == 1) {                                  \
        const Row row = {size, channels, 1, 1, 1};                    \
        work                                                          \
    } else if (before == 2 && after == 2) {                           \
        const Row row = {size, channels, 2, 2, 1};                    \
        work                                                          \
    } else if (before == 4 && after == 4) {                           \
        const Row row = {size, channels, 4, 4, 1};                    \
        work                                                          \
    } else {                                                          \
        const Row row = {size, channels, before, after, 0};           \
        work                                                          \
    }

KERNEL void sum_window(Index first, Index last, const real *restrict x, real *restrict y, Index size, Index channels,
                       Index before, Index after) {
    FOR_WINDOWS(sums(first, last, x, y, row);)
}

KERNEL void normalize(Index first, Index last, const real *restrict x, real *restrict y, Index size, Index channels,
                      Index before, Index after, real k, real alpha, Index quarters) {
    FOR_WINDOWS(if (is_usual(row, quarters)) usual_quotients(first, last, x, y, row, k, alpha);
                else quotients(first, last, x, y, row, k, alpha, quarters);)
}

KERNEL void normalize_backward(Index first, Index last, const real *restrict dy, const real *restrict x,
                               real *restrict dx, Index size, Index channels, Index before, Index after, real k,
                               real alpha, Index quarters, uint8_t *room) {
    real *own = (real *)room, *shares = own + BLOCK + before + after + 3 * WIDTH;
    FOR_WINDOWS(if (is_usual(row, quarters)) usual_gradients(first, last, dy, x, dx, row, k, alpha);
                else gradients(first, last, dy, x, dx, row, k, alpha, quarters, own, shares);)
}
