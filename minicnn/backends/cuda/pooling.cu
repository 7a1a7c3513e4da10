// Pooling on a GPU: the lesson functional/pooling.py.
//
//     C channels   H W image   KH KW window   SH SW stride   DH DW dilation
//     TOP LEFT padding   OH OW output
//     PADDED       whether there is padding
//     ALL          whether every pixel of a window wins, as in an average
//     place        the type of a pixel's number in its window, k·KW + j

// y = max over each window: (N, H, W, C) -> (N, OH, OW, C). The padding is −∞; a NaN wins. One
// thread for each element of y.
extern "C" __global__ void window_maximum_naive(const real* x, real* y, Index count) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int c = i % C, q = i / C % OW, p = i / C / OW % OH;
    Index image = i / C / OW / OH;
    real most = log(real(0));  // −∞
    for (int k = 0; k < KH; ++k)
        for (int j = 0; j < KW; ++j) {
            int h = p * SH + k * DH - TOP, w = q * SW + j * DW - LEFT;
            if (h < 0 || h >= H || w < 0 || w >= W) continue;
            real number = x[((image * H + h) * W + w) * C + c];
            // equivalent (>): of two equal elements either is the maximum
            if (number > most || number != number) most = number;
        }
    y[i] = most;
}

// What changes: one thread for PACK channels of each pixel that is written, and no question whether
// a pixel is in the image if there is no padding. Why: a thread finds out once where four elements
// come from, and reads them at once. What stays: no element is written by two threads, so none
// has to wait; and windows overlap, but what one thread has read, its neighbors find in the cache.
// On an H200, at AlexNet's first pooling with 128 images, the memory is at 81% of its speed
// (benchmarks/results/gpu.md).

// Number i of FOR_EACH is window (p, q) of an image, from channel c on.
struct Window {
    Index image;
    int p, q, c;
};

__device__ Window window_of(Index i) {
    Index at = i * PACK / C;
    return {at / (OW * OH), int(at / OW % OH), int(at % OW), int(i * PACK % C)};
}

// Calls look(number, at) for each pixel of a window, row by row: its number k·KW + j, and where x
// has it, from channel c on. Pixels in the padding are left out.
template <class Look>
__device__ void each_pixel(Window window, Look look) {
    for (int k = 0; k < KH; ++k)
        for (int j = 0; j < KW; ++j) {
            int h = window.p * SH + k * DH - TOP, w = window.q * SW + j * DW - LEFT;
            if (PADDED && (h < 0 || h >= H || w < 0 || w >= W)) continue;
            look(k * KW + j, ((window.image * H + h) * W + w) * C + window.c);
        }
}

// (N, H, W, C) -> (N, OH, OW, C)
KERNEL void window_maximum(const real* __restrict__ x, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> most;
        for (real& number : most.at) number = log(real(0));  // −∞
        each_pixel(window_of(i), [&](int, Index at) {
            Pack<real> a = load(x + at);
            for (int u = 0; u < PACK; ++u)
                // equivalent (>): of two equal elements either is the maximum
                if (a.at[u] > most.at[u] || a.at[u] != a.at[u]) most.at[u] = a.at[u];
        });
        store(y + i * PACK, most);
    }
}

// For each window the place of the first pixel that is its maximum y; KH·KW if the window has a
// NaN.
KERNEL void winners(const real* __restrict__ x, const real* __restrict__ y, place* __restrict__ winner, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> most = load(y + i * PACK);
        Pack<place> first;
        for (place& number : first.at) number = KH * KW;
        each_pixel(window_of(i), [&](int number, Index at) {
            Pack<real> a = load(x + at);
            for (int u = 0; u < PACK; ++u)
                if (a.at[u] == most.at[u] && first.at[u] == place(KH * KW)) first.at[u] = number;
        });
        store(winner + i * PACK, first);
    }
}

// dx = what each pixel has won: (N, OH, OW, C) -> (N, H, W, C). Each pixel looks up the windows
// that may have seen it. It looks up the same number of them everywhere, and reads in vain where
// there is one less: with loops over the others alone, or with a branch around the reading, each
// window waits for the one before. So AlexNet's first pooling took 100 µs on an H200, whose memory
// needs 45.
KERNEL void scatter(const real* __restrict__ dy, const place* __restrict__ winner, real* __restrict__ dx, Index count) {
    FOR_EACH(i, count / PACK) {
        int c = i * PACK % C;
        Index at = i * PACK / C, image = at / (W * H);
        int w = at % W + LEFT, h = at / W % H + TOP;  // in the padded image
        Windows down = windows_at(h, KH, SH, DH, OH), along = windows_at(w, KW, SW, DW, OW);
        Pack<real> sum = {};
        // equivalent (-, /): more windows are looked up in vain
        for (int a = 0; a <= DH * (KH - 1) / SH; ++a)
            // equivalent (-, /): more windows are looked up in vain
            for (int b = 0; b <= DW * (KW - 1) / SW; ++b) {
                int p = down.first + a, q = along.first + b;
                int k = h - p * SH, j = w - q * SW;  // the place in window (p, q), times the dilation
                bool seen = p <= down.last && q <= along.last && k % DH == 0 && j % DW == 0;
                Index from = seen ? ((image * OH + p) * OW + q) * C + c : 0;
                Pack<real> gradient = load(dy + from);
                Pack<place> won = {};
                if (!ALL) won = load(winner + from);
                for (int u = 0; u < PACK; ++u)
                    if (seen && (ALL || won.at[u] == place(k / DH * KW + j / DW))) sum.at[u] += gradient.at[u];
            }
        store(dx + i * PACK, sum);
    }
}

// y = x at the winners' places: (N, H, W, C) -> (N, OH, OW, C); the sum of all places, if ALL win.
KERNEL void gather(const real* __restrict__ x, const place* __restrict__ winner, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<place> won = {};
        if (!ALL) won = load(winner + i * PACK);
        Pack<real> sum = {};
        each_pixel(window_of(i), [&](int number, Index at) {
            Pack<real> a = load(x + at);
            for (int u = 0; u < PACK; ++u)
                if (ALL || won.at[u] == place(number)) sum.at[u] += a.at[u];
        });
        store(y + i * PACK, sum);
    }
}
