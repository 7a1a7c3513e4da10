// Convolution without columns: the lesson functional/conv.py. All three maps are one product
// (product.h), of a matrix that is never made: element (a, b) of it is left[rows[a] + columns[b]].
//
//   y   pixels   × elements  @  K    y[a] = Σ_b x[pixel a + element b] K[b]
//   dK  elements × pixels    @  dy   dK[a] = Σ_b x[element a + pixel b] dy[b]
//   dx  pixels   × elements  @  Kᵀ   dx[a] = Σ_b dy[pixel a − element b] Kᵀ[b]
//
// where an element is a place (i, j) of the window and a channel. So im2col is two lists of
// offsets, as long as the matrix has rows and columns.
//
// The floor is 2 · N·OH·OW · KH·KW·C/G · O operations. The images of a unit of work, with their
// padding, stay in the second-level cache. On one core of an AMD EPYC (Zen 5, AVX-512), whose peak
// is 266 GFLOP/s in float32, AlexNet's conv1 runs at 0.84 to 0.89 of it, conv2's three maps (which
// winograd.c makes faster) at 0.88 to 0.90, cuda-convnet's layers at 0.8 to 0.9, and kernels of
// 3 × 3 and 5 × 5 for 3 channels at 0.7 to 0.8. Where O is 20, of 32 numbers in two registers, it
// is 0.35 to 0.6. On one core of an Intel Xeon (Emerald Rapids, 176 GFLOP/s) cuda-convnet's layers
// run at 0.75 to 0.9, its first one at 0.7.

#include "native.h"
#include "product.h"

// What a convolution is: sizes of the images and of the outputs, the window, and how the work is
// cut: by pixels, into `few` images or one of an image's bands of rows; and each of these into the
// groups' channels, or parts of them. A sum over pixels has shares.
typedef struct {
    Index n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, parts, few, bands, shares;
} Shape;

// A unit's images, its rows of the `height` of each, its group, and its channels of the group's
// `width`, in whole registers
typedef struct {
    Index image, images, begin, end, group, channel, channels;
} Unit;

INLINE Unit unit_of(const Shape *s, Index number, Index height, Index width) {
    const Index cut = number / (s->parts * s->groups), part = number % s->parts;
    const Index image = cut / s->bands * s->few, band = cut % s->bands;
    const Index registers = (width + WIDTH - 1) / WIDTH, channel = registers * part / s->parts * WIDTH;
    return (Unit){
        .image = image, .images = least(s->few, s->n - image),
        .begin = height * band / s->bands, .end = height * (band + 1) / s->bands, .group = number / s->parts % s->groups,
        .channel = channel, .channels = least(registers * (part + 1) / s->parts * WIDTH, width) - channel};
}

// A thread's working memory: what a product of a unit's pixels × elements needs, either way around,
// and a copy of images with their padding, which has the rest.
typedef struct {
    Product product;
    real *copy;
} Room;

INLINE Room divided(uint8_t *room, Index pixels, Index elements) {
    Index *tables = (Index *)(room + PACKED);
    Room r = {.product = {.rows = tables, .to = tables + pixels, .right_step = 1, .out_step = 1, .packed = (real *)room}};
    r.product.columns = tables + 2 * pixels, r.product.with = r.product.columns + elements;
    r.product.spare = (real *)(r.product.with + elements);
    r.copy = r.product.spare + most(pixels, elements) * SPARE;
    return r;
}

// The pixels [top, bottom) × [left, right) of some images of h × w pixels, for the channels [first,
// first + some) of all: in the images themselves if they are there, else copied to `copy`, with
// zeros around the image. *row and *image are the distances between rows and images.
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

// im2col(x) as a product's left matrix, for a unit: its rows are pixels, its columns elements.
static Product windows(const Shape *s, const Room *room, const real *x, Unit u) {
    Product m = room->product;
    const Index c = s->c / s->groups;
    const Index top = u.begin * s->sh - s->top, bottom = (u.end - 1) * s->sh - s->top + s->dh * (s->kh - 1) + 1;
    const Index left = -s->left, right = (s->ow - 1) * s->sw - s->left + s->dw * (s->kw - 1) + 1;
    Index row, image, pixel;
    m.left = part(x + u.image * s->h * s->w * s->c, u.images, s->h, s->w, s->c, u.group * c, c, top, bottom, left,
                  right, room->copy, &row, &image, &pixel);
    m.height = m.depth = 0, m.width = u.channels;
    for (Index n = 0; n < u.images; ++n)
        for (Index p = 0; p < u.end - u.begin; ++p)
            for (Index q = 0; q < s->ow; ++q, ++m.height) {
                m.rows[m.height] = n * image + p * s->sh * row + q * s->sw * pixel;
                m.to[m.height] = ((n * s->oh + u.begin + p) * s->ow + q) * s->o;
            }
    for (Index i = 0; i < s->kh; ++i)
        for (Index j = 0; j < s->kw; ++j)
            for (Index k = 0; k < c; ++k, ++m.depth) {
                m.columns[m.depth] = i * s->dh * row + j * s->dw * pixel + k;
                m.with[m.depth] = m.depth * s->o;
            }
    return m;
}

// y = im2col(x) @ K + b, or if `rectified`, the maximum of that and 0.
KERNEL void convolve(Index first, Index last, const real *x, const real *weight, const real *bias, Index rectified,
                     real *y, const Index *shape, uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index o = s->o / s->groups;
    const Room r = divided(room, s->few * s->ow * (s->oh / s->bands + 1), s->kh * s->kw * s->c / s->groups);
    for (Index number = first; number < last; ++number) {
        const Unit u = unit_of(s, number, s->oh, o);
        const Index channel = u.group * o + u.channel;
        Product m = windows(s, &r, x, u);
        m.right = weight + channel, m.out = y + u.image * s->oh * s->ow * s->o + channel;
        m.rectified = rectified != 0;
        multiply(&m, bias ? bias + channel : NULL, 0);
    }
}

// dK = im2col(x)ᵀ @ dy. A unit is a share of the cuts, and of dy's channels a group's or a part.
KERNEL void convolve_weight(Index first, Index last, const real *x, const real *dy, real *sums, const Index *shape,
                            uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index o = s->o / s->groups, each = s->groups * s->parts, cuts = (s->n + s->few - 1) / s->few * s->bands;
    const Room r = divided(room, s->few * s->ow * (s->oh / s->bands + 1), s->kh * s->kw * s->c / s->groups);
    for (Index unit = first; unit < last; ++unit) {
        const Index share = unit / each, begin = cuts * share / s->shares, end = cuts * (share + 1) / s->shares;
        for (Index cut = begin; cut < end; ++cut) {
            const Unit u = unit_of(s, cut * each + unit % each, s->oh, o);
            const Index channel = u.group * o + u.channel;
            const Product m = windows(s, &r, x, u);
            Product turned = m;
            turned.height = m.depth, turned.rows = m.columns, turned.to = m.with;
            turned.depth = m.height, turned.columns = m.rows, turned.with = m.to;
            turned.right = dy + u.image * s->oh * s->ow * s->o + channel;
            turned.out = sums + share * m.depth * s->o + channel;
            multiply(&turned, NULL, cut > begin);
        }
    }
}

// Kᵀ: (places, C, O) -> (places, O, C). A unit is SIDE of the O at a place: each line that is read
// goes to as many rows.
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

// dx = col2im(dy @ Kᵀ), where `turned` is Kᵀ, (KH, KW, O, C/G). Pixel (h, w) of dx has a part in
// output pixel (p, q) at place (i, j) if p·s + i·d = h + top, and likewise along the width. With a
// stride these places depend on the remainder of h + top, so the pixels of a remainder are a
// product of their own.
KERNEL void convolve_transpose(Index first, Index last, const real *dy, const real *turned, real *dx,
                               const Index *shape, uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups;
    const Room r = divided(room, s->few * s->w * (s->h / s->bands + 1), s->kh * s->kw * o);
    for (Index number = first; number < last; ++number) {
        const Unit u = unit_of(s, number, s->h, c);
        if (u.begin == u.end) continue;
        const Index top = floored(u.begin + s->top - s->dh * (s->kh - 1), s->sh);
        const Index bottom = floored(u.end - 1 + s->top, s->sh) + 1;
        const Index left = floored(s->left - s->dw * (s->kw - 1), s->sw), right = floored(s->w - 1 + s->left, s->sw) + 1;
        Product m = r.product;
        Index row, image, pixel;
        m.left = part(dy + u.image * s->oh * s->ow * s->o, u.images, s->oh, s->ow, s->o, u.group * o, o, top, bottom, left,
                      right, r.copy, &row, &image, &pixel);
        m.right = turned + u.channel, m.width = u.channels;
        m.out = dx + u.image * s->h * s->w * s->c + u.group * c + u.channel;
        for (Index y = 0; y < s->sh; ++y)
            for (Index x = 0; x < s->sw; ++x) {
                m.height = m.depth = 0;
                for (Index n = 0; n < u.images; ++n)
                    for (Index h = u.begin + (y + s->sh - (u.begin + s->top) % s->sh) % s->sh; h < u.end; h += s->sh)
                        for (Index w = (x + s->sw - s->left % s->sw) % s->sw; w < s->w; w += s->sw, ++m.height) {
                            const Index p = (h + s->top) / s->sh - top, q = (w + s->left) / s->sw - left;
                            m.rows[m.height] = n * image + p * row + q * pixel;
                            m.to[m.height] = ((n * s->h + h) * s->w + w) * s->c;
                        }
                for (Index i = 0; i < s->kh; ++i)
                    for (Index j = 0; j < s->kw; ++j)
                        if (i * s->dh % s->sh == y && j * s->dw % s->sw == x)
                            for (Index k = 0; k < o; ++k, ++m.depth) {
                                m.columns[m.depth] = k - i * s->dh / s->sh * row - j * s->dw / s->sw * pixel;
                                m.with[m.depth] = ((i * s->kw + j) * s->o + u.group * o + k) * c;
                            }
                multiply(&m, NULL, 0);
            }
    }
}

// The same by way of columns, which takes less where a pixel's few channels would leave registers
// empty, or where many windows of the product above reach beyond dy. A unit is some whole images.
KERNEL void convolve_transpose_by_columns(Index first, Index last, const real *dy, const real *weight, real *dx,
                                          const Index *shape, uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups, pixels = s->few * s->oh * s->ow, elements = s->kh * s->kw * c;
    const Room r = divided(room, pixels, o);
    for (Index number = first; number < last; ++number) {
        const Index image = number * s->few, images = least(s->few, s->n - image);
        real *const to = dx + image * s->h * s->w * s->c;
        memset(to, 0, images * s->h * s->w * s->c * sizeof(real));
        for (Index g = 0; g < s->groups; ++g) {
            Product m = r.product;
            m.left = dy + image * s->oh * s->ow * s->o + g * o, m.right = weight + g * o, m.out = r.copy;
            m.height = images * s->oh * s->ow, m.depth = o, m.width = elements, m.right_step = s->o;
            for (Index a = 0; a < m.height; ++a) m.rows[a] = a * s->o, m.to[a] = a * elements;
            for (Index b = 0; b < o; ++b) m.columns[b] = m.with[b] = b;
            multiply(&m, NULL, 0);
            const real *column = r.copy;
            for (Index n = 0; n < images; ++n)
                for (Index p = 0; p < s->oh; ++p)
                    for (Index q = 0; q < s->ow; ++q)
                        for (Index i = 0; i < s->kh; ++i) {
                            const Index h = p * s->sh - s->top + i * s->dh;
                            for (Index j = 0; j < s->kw; ++j, column += c) {
                                const Index w = q * s->sw - s->left + j * s->dw;
                                if (h < 0 || h >= s->h || w < 0 || w >= s->w) continue;
                                real *const pixel = to + ((n * s->h + h) * s->w + w) * s->c + g * c;
                                for (Index k = 0; k < c; ++k) pixel[k] += column[k];
                            }
                        }
        }
    }
}
