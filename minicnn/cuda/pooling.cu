// Pooling on a GPU: the lesson functional/pooling.py. One thread for PACK channels of each pixel that is written, so
// nothing is written twice and nobody waits; windows overlap, but what one thread has read, its neighbours find in the
// cache.
//
//     C channels   H W image   KH KW window   SH SW stride   DH DW dilation   TOP LEFT padding   OH OW output
//     PADDED       is there padding?
//     ALL          does every pixel of a window win?
//     place        the type of a pixel's number in its window, k·KW + j

// Number i of FOR_EACH is window (p, q) of an image, from channel c on.
struct Window {
    Index image;
    int p, q, c;
};

__device__ Window window_of(Index i) {
    Index at = i * PACK / C;
    return {at / (OW * OH), int(at / OW % OH), int(at % OW), int(i * PACK % C)};
}

// Where in x that window has its pixel (k, j), from channel c on, if it is not `outside`, in the padding.
__device__ Index pixel(Window window, int k, int j, bool& outside) {
    int h = window.p * SH + k * DH - TOP, w = window.q * SW + j * DW - LEFT;
    outside = PADDED && (h < 0 || h >= H || w < 0 || w >= W);
    return ((window.image * H + h) * W + w) * C + window.c;
}

// y = max over each window: (N, H, W, C) -> (N, OH, OW, C). The padding is −∞; a NaN wins.
KERNEL void window_maximum(const real* __restrict__ x, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Window window = window_of(i);
        Pack<real> most;
        for (real& number : most.at) number = log(real(0));  // −∞
        for (int k = 0; k < KH; ++k)
            for (int j = 0; j < KW; ++j) {
                bool outside;
                Index at = pixel(window, k, j, outside);
                if (outside) continue;
                Pack<real> a = load(x + at);
                for (int u = 0; u < PACK; ++u)
                    if (a.at[u] > most.at[u] || a.at[u] != a.at[u]) most.at[u] = a.at[u];
            }
        store(y + i * PACK, most);
    }
}

// For each window the place of the first pixel that is its maximum y; KH·KW if there is none, for a NaN.
KERNEL void winners(const real* __restrict__ x, const real* __restrict__ y, place* __restrict__ winner, Index count) {
    FOR_EACH(i, count / PACK) {
        Window window = window_of(i);
        Pack<real> most = load(y + i * PACK);
        Pack<place> first;
        for (place& number : first.at) number = KH * KW;
        for (int k = KH - 1; k >= 0; --k)  // backwards, so that the first has the last word
            for (int j = KW - 1; j >= 0; --j) {
                bool outside;
                Index at = pixel(window, k, j, outside);
                if (outside) continue;
                Pack<real> a = load(x + at);
                for (int u = 0; u < PACK; ++u)
                    if (a.at[u] == most.at[u]) first.at[u] = k * KW + j;
            }
        store(winner + i * PACK, first);
    }
}

// dx = what each pixel has won: (N, OH, OW, C) -> (N, H, W, C). Each pixel looks up the windows that saw it.
KERNEL void scatter(const real* __restrict__ dy, const place* __restrict__ winner, real* __restrict__ dx, Index count) {
    FOR_EACH(i, count / PACK) {
        int c = i * PACK % C;
        Index at = i * PACK / C, image = at / (W * H);
        int w = at % W + LEFT, h = at / W % H + TOP;  // in the padded image
        int p0 = h < DH * (KH - 1) ? 0 : (h - DH * (KH - 1) + SH - 1) / SH, p1 = h / SH < OH ? h / SH : OH - 1;
        int q0 = w < DW * (KW - 1) ? 0 : (w - DW * (KW - 1) + SW - 1) / SW, q1 = w / SW < OW ? w / SW : OW - 1;
        Pack<real> sum = {};
        for (int p = p0; p <= p1; ++p)
            for (int q = q0; q <= q1; ++q) {
                int k = h - p * SH, j = w - q * SW;  // the place in window (p, q), times the dilation
                if (k % DH || j % DW) continue;
                Index from = ((image * OH + p) * OW + q) * C + c;
                Pack<real> a = load(dy + from);
                Pack<place> won = {};
                if (!ALL) won = load(winner + from);
                for (int u = 0; u < PACK; ++u)
                    if (ALL || won.at[u] == place(k / DH * KW + j / DW)) sum.at[u] += a.at[u];
            }
        store(dx + i * PACK, sum);
    }
}

// y = x at the winners' places: (N, H, W, C) -> (N, OH, OW, C); the sum of all places, if ALL win.
KERNEL void gather(const real* __restrict__ x, const place* __restrict__ winner, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Window window = window_of(i);
        Pack<place> won = {};
        if (!ALL) won = load(winner + i * PACK);
        Pack<real> sum = {};
        for (int k = 0; k < KH; ++k)
            for (int j = 0; j < KW; ++j) {
                bool outside;
                Index at = pixel(window, k, j, outside);
                if (outside) continue;
                Pack<real> a = load(x + at);
                for (int u = 0; u < PACK; ++u)
                    if (ALL || won.at[u] == place(k * KW + j)) sum.at[u] += a.at[u];
            }
        store(y + i * PACK, sum);
    }
}
