// Stores past the caches, for arrays that are too large to be in a cache when they are read again.
//
// An ordinary store waits for the line that it writes over to be read from memory, and pushes other
// lines out of the caches. One of these writes a whole register, at a multiple of its size,
// straight to memory. Threads see what others have stored once they have waited for them: the
// atomic operations of launch.c hold such stores up as they do all others.

#ifdef __SSE2__
#include <immintrin.h>
#endif

// Bytes of an array from which on it is worth it, even to a kernel that reads the array next: half
// of a usual last-level cache
#define FAR (16 << 20)

// Whether rows of `stride` numbers, `size` in all, are so large, and consist of whole registers
INLINE int is_far(const real *to, Index size, Index stride) {
    return size >= FAR / (Index)sizeof(real) && stride % WIDTH == 0 && (uintptr_t)to % BYTES == 0;
}

INLINE void store_far(real *at, vec v) {
#if BYTES == 64
    _mm512_stream_si512((__m512i *)at, (__m512i)v);
#elif BYTES == 32
    _mm256_stream_si256((__m256i *)at, (__m256i)v);
#elif defined(__SSE2__)
    _mm_stream_si128((__m128i *)at, (__m128i)v);
#else
    store(at, v);
#endif
}
