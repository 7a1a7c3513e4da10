// Pooling: the lesson functional/pooling.py.
//
// A kernel goes once over what it writes. For each pixel and a vec of its channels it looks at the
// pixels that have a part in it, with the result in a register, and writes that once. So memory
// gives each array once; where windows overlap, the cache gives it again.

#include "native.h"

// (N, H, W, C), (OH, OW) and the window, as functional/windows.py has them; and along each axis, of
// the windows that contain a pixel: if it has place i in window p, the next one to have it is
// window p − back, in place i + next.
typedef struct {
    Index n, h, w, c, oh, ow, kh, kw, sh, sw, top, left, dh, dw, next_h, next_w, back_h, back_w;
} Geometry;

// The winners' places in their windows: `size` bytes each, 1 or 4, or 0 if there are none, since all
// pixels win.
typedef struct {
    uint8_t *at;
    int size;
} Places;

#define LANES (BYTES / sizeof(real))
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// What is read and written has `count` channels, a vec of them or fewer. If there is more in the
// array after them, a vec is read for fewer as well (`whole`), since that is quicker.
INLINE vec load_channels(const real *at, Index count, int whole) {
    if (whole) return load(at);
    vec v = {0};
    copy_few(&v, at, count * (Index)sizeof(real));
    return v;
}

INLINE void store_channels(real *at, vec v, Index count) {
    if (count == WIDTH) store(at, v);
    else copy_few(at, &v, count * (Index)sizeof(real));
}

// GCC 12 would do it one by one, in ten times the instructions.
#if defined(REAL_IS_FLOAT) && defined(__AVX512F__)
#include <immintrin.h>
INLINE ints widen(bytes few) { return (ints)_mm512_cvtepu8_epi32((__m128i)few); }
#elif defined(REAL_IS_FLOAT) && defined(__AVX2__)
#include <immintrin.h>
INLINE ints widen(bytes few) { return (ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)few)); }
#else
INLINE ints widen(bytes few) { return __builtin_convertvector(few, ints); }
#endif

INLINE Places after(Places p, Index count) { return (Places){p.at + count * p.size, p.size}; }

INLINE ints load_places(Places from, Index count, int whole) {
    if (from.size == 1) {
        bytes few = {0};
        if (whole) few = *(const bytes *)from.at;
        else copy_few(&few, from.at, count);
        return widen(few);
    }
    words many = {0};
    if (whole) many = *(const words *)from.at;
    else copy_few(&many, from.at, 4 * count);
    return __builtin_convertvector(many, ints);
}

INLINE void store_places(Places to, ints places, Index count) {
    bytes few = __builtin_convertvector(places, bytes);
    words many = __builtin_convertvector(places, words);
    void *from = to.size == 1 ? (void *)&few : (void *)&many;
    if (count == WIDTH) memcpy(to.at, from, LANES * (size_t)to.size);
    else copy_few(to.at, from, count * to.size);
}

// ------------------------------------------------------------------------ many pixels make a window
enum Kernel { MAXIMUM, WINNERS, GATHER, SUM };

// Of a vec of channels of a window: what is sought, and what is known
typedef struct {
    vec number;
    ints place;
} Result;

// a where it is larger or NaN, else b. Of equal numbers either will do.
INLINE vec maximum(vec a, vec b) {
    ints nan = (ints)(a != a);
    for (Index u = 0; u < WIDTH; ++u) b[u] = a[u] > b[u] ? a[u] : b[u];
    return (vec)((nan & (ints)a) | (~nan & (ints)b));
}

// The result after one more pixel of the window
INLINE Result look(enum Kernel kernel, Result r, vec pixel, ints place) {
    if (kernel == MAXIMUM) r.number = maximum(pixel, r.number);
    if (kernel == WINNERS) {
        ints wins = (ints)(pixel == r.number);
        r.place = (wins & place) | (~wins & r.place);
    }
    if (kernel == GATHER) r.number += where((ints)(r.place == place), pixel);
    if (kernel == SUM) r.number += pixel;
    return r;
}

// The places first ≤ i < last of a window that lie in the image, along one axis, if place 0 is
// pixel `start`
typedef struct {
    Index first, last;
} Range;

INLINE Range inside(Index start, Index step, Index count, Index size) {
    Range places = {0, count};
    if (start >= 0 && start + step * (count - 1) < size) return places;
    if (start < 0) places.first = (step - 1 - start) / step;
    places.last = start < size ? least(count, (size - 1 - start) / step + 1) : 0;
    return places;
}

// A vec of channels of one window, whose place (0, 0) is at `x`, and what it gives is at y and places
INLINE void few_channels(enum Kernel kernel, const real *x, Range rows, Range columns, Index down, Index right,
                         const Geometry *g, real *y, Places places, Index count, int whole) {
    Result r = {{0}, {0}};
    if (kernel == MAXIMUM) r.number -= (real)INFINITY;
    if (kernel == WINNERS) r.place += (integer)(g->kh * g->kw);
    if (kernel == WINNERS) r.number = load_channels(y, count, whole);
    if (kernel == GATHER) r.place = load_places(places, count, whole);
    for (Index a = 0; a < rows.last - rows.first; ++a)
        for (Index b = 0; b < columns.last - columns.first; ++b) {
            // the last of the winners is the first of the window
            Index i = kernel == WINNERS ? rows.last - 1 - a : rows.first + a;
            Index j = kernel == WINNERS ? columns.last - 1 - b : columns.first + b;
            vec pixel = load_channels(x + i * down + j * right, count, whole);
            r = look(kernel, r, pixel, (ints){0} + (integer)(i * g->kw + j));
        }
    if (kernel == WINNERS) store_places(places, r.place, count);
    else store_channels(y, r.number, count);
}

// The windows side by side whose places (0, 0) are at x[from], from + step, … and which all have
// these rows and columns in the image; what they give is at y[to] and places[to], and so on.
INLINE void some_windows(enum Kernel kernel, Index windows, const real *x, Index from, Range rows, Range columns,
                         const Geometry *g, real *y, Places places, Index to, int whole) {
    Index down = g->dh * g->w * g->c, right = g->dw * g->c, step = g->sw * g->c, channels = g->c;
    Index span = step * g->sh;
    const real *next = x + from + rows.last * down;
    for (Index q = 0; q < windows; ++q, from += step, to += channels) {
        Index c = 0;
        for (Index e = 0; e < span; e += 64 / (Index)sizeof(real)) __builtin_prefetch(next + e, 0, 2);
        next += span;
        for (; c + WIDTH <= channels; c += WIDTH)
            few_channels(kernel, x + from + c, rows, columns, down, right, g, y + to + c, after(places, to + c), WIDTH, 1);
        if (c < channels) {
            Index last = most(0, channels - WIDTH);  // so the last vec overlaps the one before
            few_channels(kernel, x + from + last, rows, columns, down, right, g, y + to + last, after(places, to + last),
                         least(channels, WIDTH), whole);
        }
    }
}

// A kernel for the rows first ≤ row < last of all N·OH rows of windows
INLINE void each_window(enum Kernel kernel, Index first, Index last, const real *x, real *y, Places places,
                        const Geometry *geometry) {
    Geometry copy = *geometry, *g = &copy;
    Index size = g->n * g->h * g->w * g->c, windows_size = g->n * g->oh * g->ow * g->c;
    // windows begin ≤ q < end have all their columns in the image
    Index begin = least((g->left + g->sw - 1) / g->sw, g->ow), room = g->w + g->left - g->dw * (g->kw - 1) - 1;
    Index end = room < 0 ? begin : most(begin, least(room / g->sw + 1, g->ow));
    for (Index row = first; row < last; ++row) {
        Index top = row % g->oh * g->sh - g->top, below = ((row / g->oh * g->h) + top) * g->w - g->left;
        Range rows = inside(top, g->dh, g->kh, g->h), columns = {0, g->kw};
        Index lowest = (below + (rows.last - 1) * g->dh * g->w + (g->ow - 1) * g->sw + (g->kw - 1) * g->dw) * g->c;
        int whole = g->c >= WIDTH || (lowest + WIDTH <= size && ((row + 1) * g->ow - 1) * g->c + WIDTH <= windows_size);
        int full = whole && rows.last - rows.first == g->kh;
        for (Index q = 0, next; q < g->ow; q = next) {
            Index from = (below + q * g->sw) * g->c, to = (row * g->ow + q) * g->c;
            if (q >= begin && q < end) {
                next = end;
                if (full && g->kh == 3 && g->kw == 3) some_windows(kernel, next - q, x, from, (Range){0, 3}, (Range){0, 3}, g, y, places, to, 1);
                else if (full && g->kh == 2 && g->kw == 2) some_windows(kernel, next - q, x, from, (Range){0, 2}, (Range){0, 2}, g, y, places, to, 1);
                else some_windows(kernel, next - q, x, from, rows, columns, g, y, places, to, whole);
            } else {
                next = q + 1;
                some_windows(kernel, 1, x, from, rows, inside(q * g->sw - g->left, g->dw, g->kw, g->w), g, y, places, to, whole);
            }
        }
    }
}

KERNEL void window_maximum(Index first, Index last, const real *restrict x, real *restrict y,
                           const Index *restrict geometry) {
    each_window(MAXIMUM, first, last, x, y, (Places){0}, (const Geometry *)geometry);
}

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

// -------------------------------------------------------------------- many windows make a pixel
// The windows along one axis that contain a pixel: it has `place` in window `at`, then place + next
// in window at − back, and so on, `count` of them
typedef struct {
    Index place, at, count;
} Seen;

// t is the pixel, padding included; there are `windows` windows of `size` places.
INLINE Seen seen(Index t, Index stride, Index dilation, Index next, Index back, Index windows, Index size) {
    Seen s = {t % stride, t / stride, 0};
    if (dilation != 1) {
        for (s.place = 0; s.place < next && (t - s.place * dilation) % stride;) ++s.place;
        if (s.place == next) return s;
        s.at = (t - s.place * dilation) / stride;
    }
    if (s.at >= windows) {  // no window begins so far on
        Index skip = (s.at - windows) / back + 1;
        s.place += skip * next, s.at -= skip * back;
    }
    if (s.place < size && s.at >= 0) s.count = least((size - 1 - s.place) / next, s.at / back) + 1;
    return s;
}

// A vec of channels of one pixel, at dx: the sum over the windows that it has won, in the order of
// its places in them. The first window is at dy and places.
INLINE void few_sums(const real *dy, Places places, Seen down, Seen along, const Geometry *g, real *dx, Index count,
                     int whole) {
    vec sum = {0};
    int all = !places.size;
    for (Index a = 0; a < down.count; ++a)
        for (Index b = 0; b < along.count; ++b) {
            Index back = (a * g->back_h * g->ow + b * g->back_w) * g->c;
            vec gradient = load_channels(dy - back, count, whole);
            integer place = (integer)((down.place + a * g->next_h) * g->kw + along.place + b * g->next_w);
            if (!all) gradient = where((ints)(load_places(after(places, -back), count, whole) == place), gradient);
            sum += gradient;
        }
    store_channels(dx, sum, count);
}

// Pixels at distances of the stride along a row, which have the same places in as many windows: the
// first window of the first pixel is at dy[from] and places[from], the pixel at dx[to].
INLINE void some_sums(Index pixels, const real *dy, Places places, Index from, Seen down, Seen along, Index rows,
                      Index columns, const Geometry *g, real *dx, Index to, int whole) {
    Index channels = g->c, step = g->sw * g->c;
    down.count = rows, along.count = columns;
    for (Index k = 0; k < pixels; ++k, from += channels, to += step) {
        Index c = 0;
        for (; c + WIDTH <= channels; c += WIDTH)
            few_sums(dy + from + c, after(places, from + c), down, along, g, dx + to + c, WIDTH, 1);
        if (c < channels) {
            Index last = most(0, channels - WIDTH);  // so the last vec overlaps the one before
            few_sums(dy + from + last, after(places, from + last), down, along, g, dx + to + last, least(channels, WIDTH), whole);
        }
    }
}

// For the rows first ≤ row < last of all N·H rows of pixels
INLINE void each_pixel(Index first, Index last, const real *dy, Places places, real *dx, const Geometry *geometry) {
    Geometry copy = *geometry, *g = &copy;
    Index size = g->n * g->oh * g->ow * g->c;
    for (Index row = first; row < last; ++row) {
        Seen down = seen(row % g->h + g->top, g->sh, g->dh, g->next_h, g->back_h, g->oh, g->kh);
        Index line = (row / g->h * g->oh + down.at) * g->ow;
        int whole = g->c >= WIDTH || (line + g->ow - 1) * g->c + WIDTH <= size;
        for (Index phase = 0; phase < least(g->sw, g->w); ++phase)
            for (Index w = phase, count; w < g->w; w += count * g->sw) {
                Seen along = seen(w + g->left, g->sw, g->dw, g->next_w, g->back_w, g->ow, g->kw);
                // until the row of pixels ends, or that of windows, the next ones have as many
                int inner = along.count && along.place < g->next_w && along.place + along.count * g->next_w >= g->kw;
                count = inner ? least(g->ow - along.at, (g->w - w - 1) / g->sw + 1) : 1;
                Index from = (line + along.at) * g->c, to = (row * g->w + w) * g->c;
                Index rows = down.count, columns = along.count;
#define SUMS(rows, columns, whole) some_sums(count, dy, places, from, down, along, rows, columns, g, dx, to, whole)
                if (whole && rows == 1 && columns == 1) SUMS(1, 1, 1);
                else if (whole && rows == 1 && columns == 2) SUMS(1, 2, 1);
                else if (whole && rows == 2 && columns == 1) SUMS(2, 1, 1);
                else if (whole && rows == 2 && columns == 2) SUMS(2, 2, 1);
                else SUMS(rows, columns, whole);
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
