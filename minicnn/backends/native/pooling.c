// Pooling: the lesson functional/pooling.py.
//
// A kernel goes once over the pixels that it writes. For a vec of channels of each it looks at the
// pixels that have a part in it, keeps the result in a register, and writes it once. So memory
// gives and takes each array once; where windows overlap, the cache gives a pixel again. That is
// the floor: for windows of 3 × 3 in steps of 2, in float32, 5 bytes per element of x for the
// maximum and for averages, 5.25 for the winners and for what scatters to them.
//
// On one core of an AMD EPYC (Zen 5), for 16 images of 55 × 55 × 96, bytes go as fast as in a copy
// of x for the maximum, and for averages in both directions; at 0.7 of that for the winners; and at
// 0.8 in scatter, which from 16 MiB on writes past the caches (far.h): for 64 images it is as fast
// as the copy on one core, and on two faster.

#include "native.h"
#include "far.h"

// (N, H, W, C), (OH, OW) and the window, as functional/windows.py has them; and along each axis, of
// the windows that contain a pixel: if it has place i in window p, the next one that has it is
// window p − back, in place i + next.
typedef struct {
    Index n, h, w, c, oh, ow, kh, kw, sh, sw, top, left, dh, dw, next_h, next_w, back_h, back_w;
} Geometry;

// ---------------------------------------------------------------------------------- some channels
// At x are `count` channels of a pixel, a vec of them or fewer. Where the array goes on for the
// rest of a vec (`whole`), that is read as well, since it is quicker.
INLINE vec load_channels(const real *x, Index count, int whole) {
    vec v = {0};
    if (whole) return load(x);
    copy_few(&v, x, count * (Index)sizeof(real));
    return v;
}

INLINE void store_channels(real *y, vec v, Index count) {
    if (count == WIDTH) store(y, v);
    else copy_few(y, &v, count * (Index)sizeof(real));
}

// The winners' places in their windows: `size` bytes each, 1 or 4, or 0 if there are none, because
// all pixels win.
typedef struct {
    uint8_t *at;
    int size;
} Places;

#define LANES (BYTES / sizeof(real))
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// GCC 12 converts bytes one by one, which takes four times as long as all the rest.
#if BYTES == 64 && defined(REAL_IS_FLOAT)
INLINE ints widened(bytes few) { return (ints)_mm512_cvtepu8_epi32((__m128i)few); }
#elif BYTES == 64
INLINE ints widened(bytes few) { return (ints)_mm512_cvtepu8_epi64(_mm_cvtsi64_si128((long long)few)); }
#elif BYTES == 32 && defined(REAL_IS_FLOAT)
INLINE ints widened(bytes few) { return (ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)few)); }
#elif BYTES == 32
INLINE ints widened(bytes few) { return (ints)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128((int)few)); }
#else
INLINE ints widened(bytes few) { return __builtin_convertvector(few, ints); }
#endif

INLINE Places further(Places places, Index count) { return (Places){places.at + count * places.size, places.size}; }

INLINE ints load_places(Places places, Index count, int whole) {
    bytes few = {0};
    words many = {0};
    if (places.size == 1) {
        if (whole) few = *(const bytes *)places.at;
        else copy_few(&few, places.at, count);
        return widened(few);
    }
    if (whole) many = *(const words *)places.at;
    else copy_few(&many, places.at, 4 * count);
    return __builtin_convertvector(many, ints);
}

INLINE void store_places(Places places, ints v, Index count) {
    bytes few = __builtin_convertvector(v, bytes);
    words many = __builtin_convertvector(v, words);
    void *from = places.size == 1 ? (void *)&few : (void *)&many;
    if (count == WIDTH) memcpy(places.at, from, LANES * (size_t)places.size);
    else copy_few(places.at, from, count * places.size);
}

// For all channels of a pixel: does the work for a vec of them from `c` on. The last vec overlaps
// the one before; if there are fewer than a vec, it has only these.
#define EACH_VEC(channels, whole_pixel, work)                                  \
    do {                                                                       \
        Index c = 0;                                                           \
        for (; c + WIDTH <= (channels); c += WIDTH) {                          \
            const Index count = WIDTH;                                         \
            const int whole = 1;                                               \
            work;                                                              \
        }                                                                      \
        if (c < (channels)) {                                                  \
            c = most(0, (channels)-WIDTH);                                     \
            const Index count = least(channels, WIDTH);                        \
            const int whole = whole_pixel;                                     \
            work;                                                              \
        }                                                                      \
    } while (0)

// ------------------------------------------------------------------- from a window's pixels to one
enum Kernel { MAXIMUM, WINNERS, GATHER, SUM };

// For a vec of channels of one window: numbers, which are the result, or for WINNERS known; and
// places, the other way around
typedef struct {
    vec number;
    ints place;
} Result;

// The result after one more pixel of the window
INLINE Result look(enum Kernel kernel, Result r, vec pixel, ints place) {
    if (kernel == MAXIMUM) {
        // first the larger one, which is one instruction, and of equal ones either; then NaN
        const ints nan = (ints)(pixel != pixel);
        for (Index u = 0; u < WIDTH; ++u) r.number[u] = pixel[u] > r.number[u] ? pixel[u] : r.number[u];
        r.number = (vec)((nan & (ints)pixel) | (~nan & (ints)r.number));
    }
    if (kernel == WINNERS) {
        const ints wins = (ints)(pixel == r.number);
        r.place = (wins & place) | (~wins & r.place);
    }
    if (kernel == GATHER) r.number += where((ints)(r.place == place), pixel);
    if (kernel == SUM) r.number += pixel;
    return r;
}

// first ≤ i < last: of the places along one axis of a window, those inside of the image, where
// place 0 is pixel `start`
typedef struct {
    Index first, last;
} Range;

INLINE Range inside(Index start, Index step, Index places, Index size) {
    Range range = {0, places};
    if (start < 0) range.first = (step - 1 - start) / step;
    if (start + step * (places - 1) >= size) range.last = start < size ? (size - 1 - start) / step + 1 : 0;
    return range;
}

// A vec of channels of one window, whose place (0, 0) is at x. The next places down and right are
// that far away.
INLINE void window(enum Kernel kernel, const real *x, Index down, Index right, Range rows, Range columns,
                   const Geometry *g, real *y, Places places, Index count, int whole) {
    Result r = {{0}, {0}};
    if (kernel == MAXIMUM) r.number -= (real)INFINITY;
    if (kernel == WINNERS) r.place += (integer)(g->kh * g->kw);
    if (kernel == WINNERS) r.number = load_channels(y, count, whole);
    if (kernel == GATHER) r.place = load_places(places, count, whole);
    for (Index a = 0; a < rows.last - rows.first; ++a)
        for (Index b = 0; b < columns.last - columns.first; ++b) {
            // backward for WINNERS, so that the first one has the last word
            const Index i = kernel == WINNERS ? rows.last - 1 - a : rows.first + a;
            const Index j = kernel == WINNERS ? columns.last - 1 - b : columns.first + b;
            const vec pixel = load_channels(x + i * down + j * right, count, whole);
            r = look(kernel, r, pixel, (ints){0} + (integer)(i * g->kw + j));
        }
    if (kernel == WINNERS) store_places(places, r.place, count);
    else store_channels(y, r.number, count);
}

// `windows` windows side by side, with the same rows and columns inside of the image. The first has
// place (0, 0) at x[from], and its own pixel is number `to` of y and places.
INLINE void windows(enum Kernel kernel, Index windows, const real *x, Index from, Range rows, Range columns,
                    const Geometry *g, real *y, Places places, Index to, int whole_row) {
    const Index down = g->dh * g->w * g->c, right = g->dw * g->c, step = g->sw * g->c, line = 64 / sizeof(real);
    // While a row of windows is computed, memory is asked for the rows of pixels that the next one
    // reads. No processor guesses that, and without it this takes two to three times as long.
    const real *ahead = x + from + rows.last * down;
    for (Index q = 0; q < windows; ++q, from += step, to += g->c, ahead += step * g->sh) {
        for (Index e = 0; e < step * g->sh; e += line) __builtin_prefetch(ahead + e, 0, 2);
        EACH_VEC(g->c, whole_row, window(kernel, x + from + c, down, right, rows, columns, g, y + to + c,
                                         further(places, to + c), count, whole));
    }
}

// For the rows first ≤ row < last of all N·OH rows of windows
INLINE void each_window(enum Kernel kernel, Index first, Index last, const real *x, real *y, Places places,
                        const Geometry *geometry) {
    const Geometry own = *geometry, *g = &own;
    // the windows begin ≤ q < end have all their columns inside of the image
    const Index begin = least((g->left + g->sw - 1) / g->sw, g->ow);
    const Index room = g->w + g->left - g->dw * (g->kw - 1) - 1, end = room < 0 ? 0 : least(room / g->sw + 1, g->ow);
    for (Index row = first; row < last; ++row) {
        const Index top = row % g->oh * g->sh - g->top, start = (row / g->oh * g->h + top) * g->w - g->left;
        const Range rows = inside(top, g->dh, g->kh, g->h);
        // the last pixel that the row reads of x
        const Index bottom = start + (rows.last - 1) * g->dh * g->w + (g->ow - 1) * g->sw + (g->kw - 1) * g->dw;
        const int whole = g->c >= WIDTH || (bottom * g->c + WIDTH <= g->n * g->h * g->w * g->c &&
                                            ((row + 1) * g->ow - 1) * g->c + WIDTH <= g->n * g->oh * g->ow * g->c);
        const int full = whole && rows.last - rows.first == g->kh;
        for (Index q = 0, count; q < g->ow; q += count) {
            const Index from = (start + q * g->sw) * g->c, to = (row * g->ow + q) * g->c;
            const int between = q >= begin && q < end;
            const Range two = {0, 2}, three = {0, 3};
            const Range columns = between ? (Range){0, g->kw} : inside(q * g->sw - g->left, g->dw, g->kw, g->w);
            count = between ? end - q : 1;
            if (between && full && g->kh == 3 && g->kw == 3)  // with the loop written out
                windows(kernel, count, x, from, three, three, g, y, places, to, 1);
            else if (between && full && g->kh == 2 && g->kw == 2)
                windows(kernel, count, x, from, two, two, g, y, places, to, 1);
            else if (whole)  // known to the compiler: with fewer channels than a vec, ten times as fast
                windows(kernel, count, x, from, rows, columns, g, y, places, to, 1);
            else
                windows(kernel, count, x, from, rows, columns, g, y, places, to, 0);
        }
    }
}

KERNEL void window_maximum(Index first, Index last, const real *restrict x, real *restrict y,
                           const Index *restrict geometry) {
    each_window(MAXIMUM, first, last, x, y, (Places){0}, (const Geometry *)geometry);
}

// The winners go to `few` or to `many`, whichever there is.
KERNEL void winners(Index first, Index last, const real *restrict x, const real *restrict y, uint8_t *restrict few,
                    uint32_t *restrict many, const Index *restrict geometry) {
    const Geometry *g = (const Geometry *)geometry;
    if (few) each_window(WINNERS, first, last, x, (real *)y, (Places){few, 1}, g);
    else each_window(WINNERS, first, last, x, (real *)y, (Places){(uint8_t *)many, 4}, g);
}

KERNEL void gather(Index first, Index last, const real *restrict x, const uint8_t *restrict few,
                   const uint32_t *restrict many, real *restrict y, const Index *restrict geometry) {
    const Geometry *g = (const Geometry *)geometry;
    if (few) each_window(GATHER, first, last, x, y, (Places){(uint8_t *)few, 1}, g);
    else if (many) each_window(GATHER, first, last, x, y, (Places){(uint8_t *)many, 4}, g);
    else each_window(SUM, first, last, x, y, (Places){0}, g);
}

// ----------------------------------------------------------------- from a pixel's windows to one
// The windows along one axis that contain a pixel: it has `place` in window `at`, then place + next
// in window at − back, and so on, `count` of them.
typedef struct {
    Index place, at, count;
} Seen;

// t is the pixel, padding included; there are `windows` windows of `places` places.
INLINE Seen seen(Index t, Index stride, Index dilation, Index next, Index back, Index windows, Index places) {
    Seen s = {t % stride, t / stride, 0};
    if (dilation != 1) {
        for (s.place = 0; s.place < next && (t - s.place * dilation) % stride;) ++s.place;
        if (s.place == next) return s;
        s.at = (t - s.place * dilation) / stride;
    }
    if (s.at >= windows) {  // the image goes on after the last window
        const Index skipped = (s.at - windows) / back + 1;
        s.place += skipped * next, s.at -= skipped * back;
    }
    if (s.place < places && s.at >= 0) s.count = least((places - 1 - s.place) / next, s.at / back) + 1;
    return s;
}

// A vec of channels of one pixel, at dx: the sum over the windows that it has won, in the order of
// its places in them. The first of its windows is at dy and places. `far` is whether it is stored
// so.
INLINE void pixel(const real *dy, Places places, Seen down, Seen along, const Geometry *g, real *dx, int far,
                  Index count, int whole) {
    vec sum = {0};
    for (Index a = 0; a < down.count; ++a)
        for (Index b = 0; b < along.count; ++b) {
            const Index back = (a * g->back_h * g->ow + b * g->back_w) * g->c;
            const Index place = (down.place + a * g->next_h) * g->kw + along.place + b * g->next_w;
            vec gradient = load_channels(dy - back, count, whole);
            if (places.size) {
                const ints winner = load_places(further(places, -back), count, whole);
                gradient = where((ints)(winner == (integer)place), gradient);
            }
            sum += gradient;
        }
    if (far) store_far(dx, sum);
    else store_channels(dx, sum, count);
}

// `pixels` pixels that are a stride apart, so that they have the same places in as many windows.
// The first has its first window at number `from` of dy and places, and is dx[to]. While they are
// written, memory is asked, as above, for the row below: of pixels, which is written next, or, if
// that is not to be read, of windows.
INLINE void pixels(Index pixels, const real *dy, Places places, Index from, Seen down, Seen along, const Geometry *g,
                   real *dx, Index to, int whole_row) {
    const Index line = 64 / sizeof(real);
    for (Index k = 0; k < pixels; ++k, from += g->c, to += g->sw * g->c) {
        for (Index e = 0; e < g->c; e += line) __builtin_prefetch(dx + to + g->w * g->c + e, 1, 2);
        EACH_VEC(g->c, whole_row,
                 pixel(dy + from + c, further(places, from + c), down, along, g, dx + to + c, 0, count, whole));
    }
}

// The same for pixels of whole vecs, which are written one after another
INLINE void vecs(Index pixels, const real *dy, Places places, Index from, Seen down, Seen along, const Geometry *g,
                 real *dx, Index to, int far) {
    const Index channels = g->c, end = from + pixels * channels, gap = (g->sw - 1) * channels;
    const Index below = (far ? g->ow : g->w) * channels;
    for (Index c = 0; from < end; from += WIDTH, to += WIDTH) {
        if (far) __builtin_prefetch(dy + from + below, 0, 2);
        if (far && places.size) __builtin_prefetch(further(places, from + below).at, 0, 2);
        if (!far) __builtin_prefetch(dx + to + below, 1, 2);
        pixel(dy + from, further(places, from), down, along, g, dx + to, far, WIDTH, 1);
        if ((c += WIDTH) == channels) c = 0, to += gap;
    }
}

// Either, with loops over rows · columns windows
INLINE void run(Index count, const real *dy, Places places, Index from, Seen down, Seen along, Index rows,
                Index columns, const Geometry *g, real *dx, Index to, int far, int whole_row) {
    down.count = rows, along.count = columns;
    if (g->c % WIDTH) pixels(count, dy, places, from, down, along, g, dx, to, whole_row);
    else if (far) vecs(count, dy, places, from, down, along, g, dx, to, 1);
    else vecs(count, dy, places, from, down, along, g, dx, to, 0);
}

// For the rows first ≤ row < last of all N·H rows of pixels
INLINE void each_pixel(Index first, Index last, const real *dy, Places places, real *dx, const Geometry *geometry) {
    const Geometry own = *geometry, *g = &own;
    const int far = is_far(dx, g->n * g->h * g->w * g->c, g->c);
    for (Index row = first; row < last; ++row) {
        const Seen down = seen(row % g->h + g->top, g->sh, g->dh, g->next_h, g->back_h, g->oh, g->kh);
        const Index start = (row / g->h * g->oh + down.at) * g->ow;
        const int whole = g->c >= WIDTH || (start + g->ow - 1) * g->c + WIDTH <= g->n * g->oh * g->ow * g->c;
        for (Index phase = 0; phase < least(g->sw, g->w); ++phase)
            for (Index w = phase, count; w < g->w; w += count * g->sw) {
                const Seen along = seen(w + g->left, g->sw, g->dw, g->next_w, g->back_w, g->ow, g->kw);
                // If no window is missing, none will be until the row of windows or of pixels ends.
                const int all = along.place < g->next_w && along.place + along.count * g->next_w >= g->kw;
                count = all && along.count ? least(g->ow - along.at, (g->w - 1 - w) / g->sw + 1) : 1;
                const Index from = (start + along.at) * g->c, to = (row * g->w + w) * g->c;
                const Index rows = down.count, columns = along.count;
                // with the loops written out
                if (whole && rows == 1 && columns == 1)
                    run(count, dy, places, from, down, along, 1, 1, g, dx, to, far, 1);
                else if (whole && rows == 1 && columns == 2)
                    run(count, dy, places, from, down, along, 1, 2, g, dx, to, far, 1);
                else if (whole && rows == 2 && columns == 1)
                    run(count, dy, places, from, down, along, 2, 1, g, dx, to, far, 1);
                else if (whole && rows == 2 && columns == 2)
                    run(count, dy, places, from, down, along, 2, 2, g, dx, to, far, 1);
                else if (whole)
                    run(count, dy, places, from, down, along, rows, columns, g, dx, to, far, 1);
                else
                    run(count, dy, places, from, down, along, rows, columns, g, dx, to, far, 0);
            }
    }
}

KERNEL void scatter(Index first, Index last, const real *restrict dy, const uint8_t *restrict few,
                    const uint32_t *restrict many, real *restrict dx, const Index *restrict geometry) {
    const Geometry *g = (const Geometry *)geometry;
    if (few) each_pixel(first, last, dy, (Places){(uint8_t *)few, 1}, dx, g);
    else if (many) each_pixel(first, last, dy, (Places){(uint8_t *)many, 4}, dx, g);
    else each_pixel(first, last, dy, (Places){0}, dx, g);
}
