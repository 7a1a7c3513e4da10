// Windows: im2col and col2im on a GPU. The mathematics is in functional/windows.py; here is who does what.
//
//     G groups of C channels   H W image   KH KW kernel   SH SW stride   DH DW dilation   TOP LEFT padding
//     OH OW output             image line pixel: the strides of x, which may be some channels of a larger image

// (N, H, W, G·C) -> (G·N·OH·OW, KH·KW·C). One thread for a pack of the columns, so that neighbours write side by side;
// what they read lies side by side as well, for a row of a window is one run of KW·C numbers.
KERNEL void im2col(const strided real* __restrict__ x, real* __restrict__ columns, Index count, int images,
                   long long image, long long line, long long pixel) {
    FOR_EACH(i, count / PACK) {
        int c = i * PACK % C;
        Index at = i * PACK / C;  // (g, n, p, q, k, j) as one number
        int j = at % KW, k = at / KW % KH, q = at / (KW * KH) % OW, p = at / (KW * KH * OW) % OH;
        int n = at / (KW * KH * OW * OH), g = G > 1 ? n / images : 0;
        int h = p * SH + k * DH - TOP, w = q * SW + j * DW - LEFT;
        Pack<real> numbers = {};
        if (0 <= h && h < H && 0 <= w && w < W)
            numbers = load(x + (n - g * images) * image + h * line + w * pixel + g * C + c);
        store(columns + i * PACK, numbers);
    }
}

// (N·OH·OW, KH·KW·C) -> (N, H, W, C), the other way round: one thread for a pack of x, which looks up the windows that
// saw its pixel. Nobody else writes there, so nothing need be locked, and a sum is taken in the same order each time.
KERNEL void col2im(const real* __restrict__ columns, strided real* __restrict__ x, Index count, long long image,
                   long long line, long long pixel) {
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
                Pack<real> more = load(columns + (row * (KH * KW) + k / DH * KW + j / DW) * C + c);
                for (int u = 0; u < PACK; ++u) sum.at[u] += more.at[u];
            }
        store(x + n * image + h * line + w * pixel + c, sum);
    }
}
