// e^x in vectors, and what softmax and cross-entropy make of it: one row of numbers at a time.

// e^x is 2^n e^r, where n is the whole number nearest to x / log 2, so |r| ≤ log(2) / 2. Taylor's
// series of e^r ends where the next term is below half a last bit; the result is right to two.
// n log 2 is taken away in two parts: the first of log 2 has so few bits that its product is exact.
// Beyond LOWEST and HIGHEST, e^x is 0 and ∞.
#ifdef REAL_IS_FLOAT
#define TERMS 7
#define LOG2 0.693359375f, -2.12194440e-4f
#define LOWEST -104
#define HIGHEST 89
#define ROUNDER 0x1.8p23f  // x + ROUNDER is rounded to an integer, in whose bits it ends
#define MANTISSA 23
#define BIAS 127
#else
#define TERMS 13
#define LOG2 6.93145751953125e-1, 1.42860682030941723212e-6
#define LOWEST -746
#define HIGHEST 710
#define ROUNDER 0x1.8p52
#define MANTISSA 52
#define BIAS 1023
#endif

INLINE vec choose(ints holds, vec a, vec b) { return (vec)((holds & (ints)a) | (~holds & (ints)b)); }
INLINE vec all(real a) {
    vec v;
    for (int k = 0; k < WIDTH; ++k) v[k] = a;
    return v;
}
INLINE vec power_of_2(ints n) { return (vec)((n + BIAS) << MANTISSA); }

INLINE vec exponential(vec x) {
    static const real log2[] = {LOG2};
    static const real series[] = {1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320.,
                                  1 / 362880., 1 / 3628800., 1 / 39916800., 1 / 479001600., 1 / 6227020800.};
    x = choose(x < all(LOWEST), all(LOWEST), x);  // NaN stays
    x = choose(x > all(HIGHEST), all(HIGHEST), x);
    vec shifted = x * (real)1.4426950408889634 + ROUNDER, whole = shifted - ROUNDER;
    vec r = x - whole * log2[0] - whole * log2[1], sum = all(series[TERMS]);
    for (int k = TERMS - 1; k >= 0; --k) sum = sum * r + series[k];
    ints n = (ints)shifted - (ints)all(ROUNDER), half = n >> 1;  // 2^n may be less than any number
    return sum * power_of_2(half) * power_of_2(n - half);
}

// The last numbers of a row, at most as many as a register holds, and −∞ behind them.
INLINE vec few(const real *x, Index count) {
    real rest[WIDTH];
    for (Index c = 0; c < WIDTH; ++c) rest[c] = c < count ? x[c] : -INFINITY;
    return load(rest);
}

INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

// The largest of a row. If it holds NaN, it is any other: the sum of the exponentials will be NaN.
INLINE real largest(const real *x, Index count) {
    vec m[4];
    Index i = 0;
    for (int k = 0; k < 4; ++k) m[k] = all(-INFINITY);
    for (; i + 4 * WIDTH <= count; i += 4 * WIDTH)
        for (int k = 0; k < 4; ++k) m[k] = larger(load(x + i + k * WIDTH), m[k]);
    for (; i < count; i += WIDTH) m[0] = larger(i + WIDTH <= count ? load(x + i) : few(x + i, count - i), m[0]);
    real lanes[WIDTH];
    store(lanes, larger(larger(m[0], m[1]), larger(m[2], m[3])));
    _Pragma("GCC unroll 8") for (int half = WIDTH / 2; half > 0; half /= 2)
        _Pragma("GCC unroll 8") for (int c = 0; c < half; ++c)
            lanes[c] = lanes[c] > lanes[c + half] ? lanes[c] : lanes[c + half];
    return lanes[0];
}

INLINE double added(vec v) {
    double lanes[WIDTH];
    for (int c = 0; c < WIDTH; ++c) lanes[c] = v[c];
    _Pragma("GCC unroll 8") for (int half = WIDTH / 2; half > 0; half /= 2)
        _Pragma("GCC unroll 8") for (int c = 0; c < half; ++c) lanes[c] += lanes[c + half];
    return lanes[0];
}

// Σ e^(x − m) of a row, where m is its largest number, so that none overflows and one is 1. The
// exponentials are written to e unless it is 0. At most 64 are added before the sum is in double.
INLINE double exponentials(const real *x, Index count, real m, real *e) {
    double total = 0;
    Index i = 0, whole = count / WIDTH * WIDTH;
    while (i < whole) {
        vec sum = all(0);
        for (Index end = least(i + 64 * WIDTH, whole); i < end; i += WIDTH) {
            vec v = exponential(load(x + i) - m);
            if (e) store(e + i, v);
            sum += v;
        }
        total += added(sum);
    }
    if (i < count) {
        vec v = exponential(few(x + i, count - i) - m);
        for (Index c = 0; e && c < WIDTH; ++c)
            if (c < count - i) e[i + c] = v[c];
        total += added(v);
    }
    return total;
}
