// Convolution without columns: the lesson functional/conv.py. All three maps are one product
// (product.h), of a matrix that is never made: element (a, b) of it is source[rows[a] + columns[b]].
//
//   y   pixels   × elements  @  K    y[a] = Σ_b x[pixel a + element b] K[b]
//   dK  elements × pixels    @  dy   dK[a] = Σ_b x[element a + pixel b] dy[b]
//   dx  pixels   × elements  @  Kᵀ   dx[a] = Σ_b dy[pixel a − element b] Kᵀ[b]
//
// where an element is a place (i, j) of the window and a channel. So im2col is two lists of offsets,
// as long as the matrix has rows and columns.
//
// The floor is 2 · N·OH·OW · KH·KW·C/G · O operations. The images of a unit of work, with their
// padding, stay in the second-level cache.

#include "native.h"
#include "product.h"

// What a convolution is: sizes of the image and of the output, the window, and how the work is cut:
// `few` images to a unit, or a part of the `bands` of an image's rows.
typedef struct {
    Index n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands;
} Shape;

// A thread's working memory: for products of at most `pixels` × `elements`, either way around, and
// for a copy of images with their padding, which has the rest.
typedef struct {
    real *packed, *spare, *copy;
    Index *tables;
} Room;

INLINE Room divided(uint8_t *room, Index pixels, Index elements) {
    Room r = {.packed = (real *)room, .tables = (Index *)(room + PACKED)};
    r.spare = (real *)(r.tables + 2 * (pixels + elements));
    r.copy = r.spare + most(pixels, elements) * SPARE;
    return r;
}

// The pixels [top, bottom) × [left, right) of some images of h × w pixels, for the channels
// [first, first + some) of all: in the images themselves if they are there, else copied to `copy`,
// with zeros around the image. *row and *image are the distances between rows and images.
static const real *part(const real *x, Index images, Index h, Index w, Index all, Index first, Index some, Index top,
                        Index bottom, Index left, Index right, real *copy, Index *row, Index *image, Index *pixel) {
    if (top >= 0 && left >= 0 && bottom <= h && right <= w) {
        *row = w * all, *image = h * w * all, *pixel = all;
        return x + top * *row + left * all + first;
    }
    const Index wide = right - left, begin = most(-left, 0), end = most(begin, least(wide, w - left));
    *row = wide * some, *image = (bottom - top) * *row, *pixel = some;
    for (Index n = 0; n < images; ++n)
        for (Index y = top; y < bottom; ++y) {
            real *to = copy + n * *image + (y - top) * *row;
            const Index from = y < 0 || y >= h ? wide : begin, until = y < 0 || y >= h ? wide : end;
            memset(to, 0, least(from, wide) * some * sizeof(real));
            const real *at = x + ((n * h + y) * w + left + from) * all + first;
            if (some == all && until > from)
                memcpy(to + from * some, at, (until - from) * some * sizeof(real));
            else
                for (Index i = from; i < until; ++i, at += all)
                    for (Index k = 0; k < some; ++k) to[i * some + k] = at[k];
            if (until < wide) memset(to + until * some, 0, (wide - until) * some * sizeof(real));
        }
    return copy;
}

// The matrix of im2col(x) for the group's channels, output rows [begin, end) of some images: its
// rows are pixels, its columns elements.
static Gathered windows(const Shape *s, const real *x, Index images, Index group, Index begin, Index end, real *copy,
                        Index *tables) {
    const Index c = s->c / s->groups, o = s->o, pixels = images * (end - begin) * s->ow, elements = s->kh * s->kw * c;
    Gathered g = {NULL, pixels, elements, tables, tables + pixels, tables + pixels + elements,
                  tables + 2 * pixels + elements};
    const Index top = begin * s->sh - s->top, bottom = (end - 1) * s->sh - s->top + s->dh * (s->kh - 1) + 1;
    const Index left = -s->left, right = (s->ow - 1) * s->sw - s->left + s->dw * (s->kw - 1) + 1;
    Index row, image, pixel, a = 0, b = 0;
    g.source = part(x, images, s->h, s->w, s->c, group * c, c, top, bottom, left, right, copy, &row, &image, &pixel);
    for (Index n = 0; n < images; ++n)
        for (Index p = 0; p < end - begin; ++p)
            for (Index q = 0; q < s->ow; ++q, ++a) {
                g.rows[a] = n * image + p * s->sh * row + q * s->sw * pixel;
                g.to[a] = ((n * s->oh + begin + p) * s->ow + q) * o;
            }
    for (Index i = 0; i < s->kh; ++i)
        for (Index j = 0; j < s->kw; ++j)
            for (Index k = 0; k < c; ++k, ++b) {
                g.columns[b] = i * s->dh * row + j * s->dw * pixel + k;
                g.with[b] = b * o;
            }
    return g;
}

// y = im2col(x) @ K + b. A unit is a few images, or a band of rows of one.
KERNEL void convolve(Index first, Index last, const real *x, const real *weight, const real *bias, real *y, Index n,
                     Index h, Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh, Index sw,
                     Index top, Index left, Index dh, Index dw, Index groups, Index few, Index bands, uint8_t *room) {
    const Shape s = {n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands};
    const Room r = divided(room, few * ow * (oh / bands + 1), kh * kw * c / groups);
    for (Index unit = first; unit < last; ++unit) {
        const Index image = unit / bands * few, images = least(few, n - image), band = unit % bands;
        for (Index g = 0; g < groups; ++g) {
            const Gathered matrix = windows(&s, x + image * h * w * c, images, g, oh * band / bands,
                                            oh * (band + 1) / bands, r.copy, r.tables);
            const Index begin = g * (o / groups);
            product(&matrix, weight + begin, bias ? bias + begin : NULL, y + image * oh * ow * o + begin, o / groups,
                    0, r.packed, r.spare);
        }
    }
}

// dK = im2col(x)ᵀ @ dy, as a sum for each unit: a share of the images.
KERNEL void convolve_weight(Index first, Index last, const real *x, const real *dy, real *sums, Index n, Index h,
                            Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh, Index sw,
                            Index top, Index left, Index dh, Index dw, Index groups, Index few, Index bands,
                            Index shares, uint8_t *room) {
    const Shape s = {n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands};
    const Index pieces = (n + few - 1) / few * bands;
    const Room r = divided(room, few * ow * (oh / bands + 1), kh * kw * c / groups);
    for (Index unit = first; unit < last; ++unit)
        for (Index piece = pieces * unit / shares; piece < pieces * (unit + 1) / shares; ++piece) {
            const Index image = piece / bands * few, images = least(few, n - image), band = piece % bands;
            for (Index g = 0; g < groups; ++g) {
                const Gathered m = windows(&s, x + image * h * w * c, images, g, oh * band / bands,
                                           oh * (band + 1) / bands, r.copy, r.tables);
                const Gathered turned = {m.source, m.depth, m.height, m.columns, m.rows, m.with, m.to};
                const Index begin = g * (o / groups);
                product(&turned, dy + image * oh * ow * o + begin, NULL, sums + unit * m.depth * o + begin,
                        o / groups, piece > pieces * unit / shares, r.packed, r.spare);
            }
        }
}

// Kᵀ: (places, C, O) -> (places, O, C). A unit is SIDE of the O at a place: each line that is read goes
// to as many rows.
#define SIDE 16
KERNEL void transpose(Index first, Index last, const real *restrict weight, real *restrict turned, Index c, Index o) {
    const Index parts = (o + SIDE - 1) / SIDE;
    for (Index unit = first; unit < last; ++unit) {
        const Index begin = unit % parts * SIDE, some = least(SIDE, o - begin);
        const real *from = weight + unit / parts * c * o + begin;
        real *to = turned + (unit / parts * o + begin) * c;
        for (Index k = 0; k < c; ++k)
            for (Index i = 0; i < some; ++i) to[i * c + k] = from[k * o + i];
    }
}

INLINE Index floored(Index a, Index b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// dx = col2im(dy @ Kᵀ), where `turned` is Kᵀ, (KH, KW, O, C/G). A pixel (h, w) of dx gets something from
// output pixel (p, q) and place (i, j) if p·s + i·d = h + top, and likewise along the width. With a
// stride these places depend on the remainder of h + top, so pixels of a remainder are a product
// of their own. A unit is a few images, or a band of rows of one.
KERNEL void convolve_transpose(Index first, Index last, const real *dy, const real *turned, real *dx, Index n,
                               Index h, Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh,
                               Index sw, Index top, Index left, Index dh, Index dw, Index groups, Index few,
                               Index bands, uint8_t *room) {
    const Index each = c / groups, outs = o / groups, pixels = few * w * (h / bands + 1), elements = kh * kw * outs;
    const Room r = divided(room, pixels, elements);
    for (Index unit = first; unit < last; ++unit) {
        const Index image = unit / bands * few, images = least(few, n - image), band = unit % bands;
        const Index begin = h * band / bands, end = h * (band + 1) / bands;
        if (begin == end) continue;
        const Index low = floored(begin + top - dh * (kh - 1), sh), high = floored(end - 1 + top, sh) + 1;
        const Index near = floored(left - dw * (kw - 1), sw), far = floored(w - 1 + left, sw) + 1;
        for (Index group = 0; group < groups; ++group) {
            Index row, step, pixel;
            const real *source = part(dy + image * oh * ow * o, images, oh, ow, o, group * outs, outs, low, high, near,
                                      far, r.copy, &row, &step, &pixel);
            for (Index y = 0; y < sh; ++y)
                for (Index z = 0; z < sw; ++z) {
                    Gathered g = {source, 0, 0, r.tables, r.tables + pixels, r.tables + pixels + elements,
                                  r.tables + 2 * pixels + elements};
                    for (Index m = 0; m < images; ++m)
                        for (Index p = begin + (y + sh - (begin + top) % sh) % sh; p < end; p += sh)
                            for (Index q = (z + sw - left % sw) % sw; q < w; q += sw, ++g.height) {
                                g.rows[g.height] = m * step + ((p + top) / sh - low) * row +
                                                   ((q + left) / sw - near) * pixel;
                                g.to[g.height] = ((m * h + p) * w + q) * c;
                            }
                    for (Index i = 0; i < kh; ++i)
                        for (Index j = 0; j < kw; ++j)
                            if (i * dh % sh == y && j * dw % sw == z)
                                for (Index k = 0; k < outs; ++k, ++g.depth) {
                                    g.columns[g.depth] = k - i * dh / sh * row - j * dw / sw * pixel;
                                    g.with[g.depth] = ((i * kw + j) * o + group * outs + k) * each;
                                }
                    product(&g, turned, NULL, dx + image * h * w * c + group * each, each, 0, r.packed, r.spare);
                }
        }
    }
}
