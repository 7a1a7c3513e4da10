// Windows: im2col and col2im on a GPU. The mathematics is in functional/windows.py.
//
//     G groups of C channels   H W image   OH OW output
//     KH KW kernel   SH SW stride   DH DW dilation   TOP LEFT padding
//     ROW                the length of a row of columns: KH·KW·C elements, then zeros
//     image LINE PIXEL   the strides of x, which may be some channels of a larger image
//     RUN                how many neighboring windows a thread of im2col looks through
//     READ               how many elements it reads at once: a pack where pixels are whole packs,
//                        else one

// (N, H, W, C) -> (N·OH·OW, KH·KW·C), of one group: one thread for each element of the columns.
extern "C" __global__ void im2col_naive(const strided real* x, real* columns, Index count,
                                        long long image) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int c = i % C, j = i / C % KW, k = i / C / KW % KH;  // which element of the row
    Index row = i / C / KW / KH;                         // window (p, q) of image n
    int q = row % OW, p = row / OW % OH, n = row / OW / OH;
    int h = p * SH + k * DH - TOP, w = q * SW + j * DW - LEFT;
    bool inside = 0 <= h && h < H && 0 <= w && w < W;
    columns[i] = inside ? x[n * image + (long long)h * LINE + (long long)w * PIXEL + c] : 0;
}

// What changes: a thread makes the same pack of columns for RUN windows side by side. Why: where
// these columns come from is then found out once for all of them, in 7 instructions an element
// where pixels are not whole packs, as with three colors. When each element had a thread of its own
// there were 61, and they, not memory, took the time: 410 µs for AlexNet's conv1 on an H200, whose
// memory needs 151. Neighbors still write side by side.
//
// (N, H, W, G·C) -> (G·N·OH·OW, ROW)
KERNEL void im2col(const strided real* __restrict__ x, real* __restrict__ columns, Index count, int images,
                   long long image) {
    FOR_EACH(i, count) {
        int column = i % (ROW / PACK) * PACK;
        Index run = i / (ROW / PACK), line = run / ((OW + RUN - 1) / RUN);  // of all runs; (g, n, p) as one number
        int q = run % ((OW + RUN - 1) / RUN) * RUN, p = line % OH, n = line / OH, g = G != 1 ? n / images : 0;
        long long from[PACK];  // where in x the first window's part of these columns begins,
        int w[PACK];           // and at which pixel of its line; W if there is nothing to copy
        for (int u = 0; u < PACK; u += READ) {
            int c = (column + u) % C, j = (column + u) / C % KW, k = (column + u) / (C * KW), h = p * SH + k * DH - TOP;
            w[u] = q * SW + j * DW - LEFT;
            from[u] = (n - g * images) * image + (long long)h * LINE + (long long)w[u] * PIXEL + g * C + c;
            if (k >= KH || h < 0 || h >= H) w[u] = W;
        }
        real* to = columns + (line * OW + q) * ROW + column;
        UNROLL(RUN)
        for (int t = 0; t < RUN; ++t) {
            Pack<real> numbers = {};
            for (int u = 0; u < PACK; u += READ) {
                if (unsigned(w[u] + t * SW) >= unsigned(W)) continue;
                if (READ == 4) numbers = load(x + from[u] + (long long)(t * SW) * PIXEL);
                else numbers.at[u] = x[from[u] + (long long)(t * SW) * PIXEL];
            }
            // equivalent (%): where all runs are whole, no window is beyond the last
            if (OW % RUN == 0 || q + t < OW) store(to + (long long)t * ROW, numbers);
        }
    }
}

// (N·OH·OW, ROW) -> (N, H, W, C), the other way round: one thread for a pack of x, which looks up
// the windows that saw its pixel. It has no naive version: except for the pack, it is one itself.
// No other thread writes there, so no lock is needed, and each sum is taken in the same order each
// time.
KERNEL void col2im(const real* __restrict__ columns, strided real* __restrict__ x, Index count, long long image) {
    FOR_EACH(i, count / PACK) {
        int c = i * PACK % C;
        Index at = i * PACK / C;  // (n, h, w) as one number
        int n = at / (H * W), h = at / W % H, w = at % W;
        int y = h + TOP, z = w + LEFT;  // in the padded image
        Windows down = windows_at(y, KH, SH, DH, OH), along = windows_at(z, KW, SW, DW, OW);
        Pack<real> sum = {};
        for (int p = down.first; p <= down.last; ++p)
            for (int q = along.first; q <= along.last; ++q) {
                int k = y - p * SH, j = z - q * SW;  // the place in window (p, q), times the dilation
                if (k % DH || j % DW) continue;
                Index row = (Index(n) * OH + p) * OW + q;
                Pack<real> more = load(columns + row * ROW + (k / DH * KW + j / DW) * C + c);
                for (int u = 0; u < PACK; ++u) sum.at[u] += more.at[u];
            }
        store(x + n * image + (long long)h * LINE + (long long)w * PIXEL + c, sum);
    }
}
