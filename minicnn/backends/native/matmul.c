// The product of two matrices: the lesson minicnn/ops.py. BLAS is made for large matrices; this is
// for those of a linear layer, where a batch of few rows meets a large matrix of weights. There the
// floor is memory: each weight is read once (or written, in their gradient), 4 bytes for 2 · N
// operations. Each of the three may lie in memory by rows or by columns.

#include "native.h"
#include "product.h"

// out = a b. A unit is some `tall` rows × `broad` columns of the result, and `steps` are the
// distances between rows and columns of a, b and out.
KERNEL void matmul(Index first, Index last, strided const real *a, Index a_row, Index a_column,
                   strided const real *b, Index b_row, Index b_column, strided real *out, Index out_row,
                   Index out_column, Index height, Index depth, Index width, Index tall, Index broad, Index deep,
                   uint8_t *room) {
    Index *tables = (Index *)(room + PACKED);
    Product p = {.rows = tables, .to = tables + tall, .columns = tables + 2 * tall, .right_step = b_column};
    p.with = p.columns + deep, p.out_step = out_column, p.packed = (real *)room, p.spare = (real *)(p.with + deep);
    for (Index i = 0; i < tall; ++i) p.rows[i] = i * a_row, p.to[i] = i * out_row;
    for (Index i = 0; i < deep; ++i) p.columns[i] = i * a_column, p.with[i] = i * b_row;
    const Index across = (width + broad - 1) / broad;
    for (Index unit = first; unit < last; ++unit) {
        const Index y = unit / across * tall, x = unit % across * broad;
        p.out = out + y * out_row + x * out_column;
        p.height = least(tall, height - y), p.width = least(broad, width - x);
        // a few rows of b at a time, as wide as the unit, because neighbors in memory are read
        // faster
        for (Index k = 0; k < most(depth, 1); k += deep) {
            p.left = a + y * a_row + k * a_column, p.right = b + k * b_row + x * b_column;
            p.depth = least(deep, depth - k);
            multiply(&p, NULL, k > 0);
        }
    }
}
