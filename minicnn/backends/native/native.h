// What every .c file begins with. `real` is float or double; the compiler is called once for each.
//
// A kernel does the work of the units [first, last), such as images or elements, so that threads
// share it: KERNEL void name(Index first, Index last, …). Arrays are contiguous, but for those that
// are declared `strided`. `restrict` says that what a kernel writes is not what it reads.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef ptrdiff_t Index;
#define EXPORTED __attribute__((visibility("default")))
#define KERNEL static  // it is called through its wrapper, which declarations.py writes
#define strided
#define INLINE static inline __attribute__((always_inline))

// The widest registers that the compiler may use: how many bytes, how many numbers, how many
// registers.
#if defined(__AVX512F__)
#define BYTES 64
#define REGISTERS 32
#elif defined(__AVX2__)
#define BYTES 32
#define REGISTERS 16
#elif defined(__aarch64__)
#define BYTES 16
#define REGISTERS 32
#else
#define BYTES 16
#define REGISTERS 16
#endif
#define WIDTH ((Index)(BYTES / sizeof(real)))

// A register full of numbers. Arithmetic on it is elementwise. It may lie anywhere in memory.
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
INLINE vec load(const real *at) { return *(const vec *)at; }
INLINE void store(real *at, vec v) { *(vec *)at = v; }
INLINE Index least(Index a, Index b) { return a < b ? a : b; }
INLINE Index most(Index a, Index b) { return a > b ? a : b; }

// As many integers, each as wide as a number. A comparison of two vecs has −1 where it holds, and 0
// elsewhere.
#ifdef REAL_IS_FLOAT
typedef int32_t integer;
typedef uint32_t uinteger;
#else
typedef int64_t integer;
typedef uint64_t uinteger;
#endif
typedef integer ints __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
typedef uinteger uints __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));

// The numbers where a comparison holds, and 0 elsewhere.
INLINE vec where(ints holds, vec a) { return (vec)(holds & (ints)a); }

// The numbers at `places` of a and b, which are counted one after the other
INLINE vec chosen(vec a, vec b, ints places) {
#ifdef __clang__
    vec v;
    for (Index u = 0; u < WIDTH; ++u) v[u] = places[u] < WIDTH ? a[places[u]] : b[places[u] - WIDTH];
    return v;
#else
    return __builtin_shuffle(a, b, places);
#endif
}

// max(v, 0), where a NaN stays one, and −0 becomes 0
INLINE vec positive(vec v) { return where(~(v <= 0), v); }

// At most 63 bytes, for which a call of memcpy takes longer.
INLINE void copy_few(void *to, const void *from, Index size) {
    char *target = to;
    const char *source = from;
    for (Index piece = 32; piece > 0; piece /= 2)
        if (size & piece) {
            memcpy(target, source, (size_t)piece);
            target += piece, source += piece;
        }
}
