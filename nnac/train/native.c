/* The time loop of an LSTM in integers, the elementwise half of its backward step, integer products, requantisation,
   tables and norms; native_layers.c adds what a Conformer has besides.

   The same integers as nnac/arith.py and nnac/ops/lstm.py, bit for bit: tests compare them.  Everything but the
   products is spelled once, in the vectors of GCC and clang, as wide as the processor's: int64 products and arithmetic
   shifts, as there.  Floats are not contracted (-ffp-contract=off), so the gradients, too, are the same bits on every
   processor.

   The products have three spellings, chosen by how this file is compiled (nnac/train/native.py compiles it for the
   processor it finds):
     AVX-512 VNNI   vpdpbusd multiplies unsigned by signed bytes: the operand enters as x + 128, and 128 * (row sum of
                    the weights) is taken off the bias (`fold`)
     AVX2           vpmaddwd on 16-bit values: two exact products, added in 32 bits.  Not vpmaddubsw, which saturates
                    the sum of two at 16 bits
     else           the same pairs in plain C (NEON: smlal)
   A sum is int32: at most 2^14 for a product, so exact up to 131,071 columns.
*/
#include <stdint.h>
#include <string.h>

#if defined(__AVX512VNNI__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define VNNI 1
#define LANES 16 /* 32-bit lanes of a vector */
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define TILE 16 /* cells that are finished together, outputs of a panel; a multiple of LANES */
#define INLINE static inline __attribute__((always_inline))
#define VECTOR(type, lanes) type __attribute__((vector_size(sizeof(type) * (lanes))))

typedef VECTOR(int32_t, LANES) Ints;
typedef VECTOR(float, LANES) Floats;
typedef VECTOR(int16_t, LANES) Shorts;
typedef VECTOR(int8_t, LANES) Bytes;
typedef VECTOR(int32_t, LANES / 2) Half;
typedef VECTOR(int64_t, LANES / 2) Longs;
typedef struct {
    Longs low, high;
} Wide;

typedef struct {
    int64_t steps, batch, cells, width; /* width: of the hidden state that is fed back */
    int64_t separate;                   /* sum16: two requantised sums; else acc32 */
    int64_t fraction, hidden_multiplier, hidden_shift, hidden_low, hidden_high;
    const int32_t *input;                        /* [steps, batch, 4 cells] the input product, without bias */
    const void *weights;                         /* from nnac_pack */
    const int64_t *multiplier, *shift, *bias;    /* [tiles, 4, 16]: the sum's (acc32) or the input product's (sum16) */
    const int64_t *multiplier2, *shift2, *bias2; /* the recurrent product's (sum16) */
    const int32_t *sigmoid, *tanh, *tanh_cell;   /* see look() */
    const int8_t *hidden;                        /* [batch, width] before the first step */
    const int16_t *cell;                         /* [batch, cells] */
    int16_t *pre, *cs;                           /* [steps, batch, 4 cells], [steps, batch, cells] */
    int8_t *hs;                                  /* [steps, batch, cells] */
    uint8_t *uncut, *cut_input, *cut_recurrent;  /* like hs, pre, pre; or null */
    uint8_t *scratch;                            /* nnac_scratch bytes */
} Forward;

/* --------------------------------------------------------------------------------------- vectors, whole or cut off */

/* The first n of them; the other lanes are zero. */
#define LOADED(name, type, element)                                                                                    \
    INLINE type name(const element *p, int n) {                                                                        \
        type v = {0};                                                                                                  \
        memcpy(&v, p, n == LANES ? sizeof v : (size_t)n * sizeof(element));                                            \
        return v;                                                                                                      \
    }
LOADED(ints_at, Ints, int32_t)
LOADED(floats_at, Floats, float)
LOADED(shorts_at, Shorts, int16_t)
LOADED(bytes_at, Bytes, uint8_t)

#define STORED(name, type, element)                                                                                    \
    INLINE void name(element *p, type v, int n) { memcpy(p, &v, n == LANES ? sizeof v : (size_t)n * sizeof(element)); }
STORED(store_ints, Ints, int32_t)
STORED(store_floats, Floats, float)
STORED(store_shorts, Shorts, int16_t)
STORED(store_bytes, Bytes, int8_t)

INLINE Longs longs_at(const int64_t *p) {
    Longs v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE Ints ints(int32_t x) { return x - (Ints){0}; }
INLINE Longs longs(int64_t x) { return x - (Longs){0}; }
INLINE Floats floats(float x) { return x - (Floats){0}; }
/* 0, 1, 2 and so on. */
INLINE Ints count_of_lanes(void) {
    Ints v;
    for (int k = 0; k < LANES; k++) v[k] = k;
    return v;
}
INLINE Ints shorts(const int16_t *p, int n) { return __builtin_convertvector(shorts_at(p, n), Ints); }
INLINE void store_shorts_of(int16_t *p, Ints v, int n) { store_shorts(p, __builtin_convertvector(v, Shorts), n); }
INLINE void store_bytes_of(int8_t *p, Ints v, int n) { store_bytes(p, __builtin_convertvector(v, Bytes), n); }

/* 1 where ``mask`` (0 or -1 in each lane) is set. */
INLINE void store_flags(uint8_t *p, Ints mask, int n) { store_bytes_of((int8_t *)p, mask & 1, n); }

/* product32: exact where both fit 32 bits. */
#if defined(VNNI)
INLINE Ints least(Ints a, Ints b) { return (Ints)_mm512_min_epi32((__m512i)a, (__m512i)b); }
INLINE Ints most(Ints a, Ints b) { return (Ints)_mm512_max_epi32((__m512i)a, (__m512i)b); }
INLINE Longs least64(Longs a, Longs b) { return (Longs)_mm512_min_epi64((__m512i)a, (__m512i)b); }
INLINE Longs most64(Longs a, Longs b) { return (Longs)_mm512_max_epi64((__m512i)a, (__m512i)b); }
INLINE Longs times(Longs x, Longs m) { return x * m; }
INLINE Longs product32(Longs a, Longs b) { return (Longs)_mm512_mul_epi32((__m512i)a, (__m512i)b); }
INLINE Ints gather(const int32_t *table, Ints at) { return (Ints)_mm512_i32gather_epi32((__m512i)at, table, 4); }
INLINE Wide widened(Ints x) {
    return (Wide){(Longs)_mm512_cvtepi32_epi64(_mm512_castsi512_si256((__m512i)x)),
                  (Longs)_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64((__m512i)x, 1))};
}
INLINE Ints narrowed(Wide x) {
    return (Ints)_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32((__m512i)x.low)),
                                    _mm512_cvtepi64_epi32((__m512i)x.high), 1);
}
#elif defined(__AVX2__)
INLINE Ints least(Ints a, Ints b) { return (Ints)_mm256_min_epi32((__m256i)a, (__m256i)b); }
INLINE Ints most(Ints a, Ints b) { return (Ints)_mm256_max_epi32((__m256i)a, (__m256i)b); }
INLINE Longs least64(Longs a, Longs b) { return (Longs)_mm256_blendv_epi8((__m256i)a, (__m256i)b, (__m256i)(a > b)); }
INLINE Longs most64(Longs a, Longs b) { return (Longs)_mm256_blendv_epi8((__m256i)a, (__m256i)b, (__m256i)(a < b)); }
/* The low 64 bits of x m, as x * m gives them, for 0 <= m < 2^32. */
INLINE Longs times(Longs x, Longs m) {
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)x, 32), (__m256i)m);
    return (Longs)_mm256_add_epi64(_mm256_mul_epu32((__m256i)x, (__m256i)m), _mm256_slli_epi64(high, 32));
}
INLINE Longs product32(Longs a, Longs b) { return (Longs)_mm256_mul_epi32((__m256i)a, (__m256i)b); }
INLINE Ints gather(const int32_t *table, Ints at) { return (Ints)_mm256_i32gather_epi32(table, (__m256i)at, 4); }
INLINE Wide widened(Ints x) {
    return (Wide){(Longs)_mm256_cvtepi32_epi64(_mm256_castsi256_si128((__m256i)x)),
                  (Longs)_mm256_cvtepi32_epi64(_mm256_extracti128_si256((__m256i)x, 1))};
}
INLINE Ints narrowed(Wide x) {
    __m256 both = _mm256_shuffle_ps((__m256)x.low, (__m256)x.high, 0x88);
    return (Ints)_mm256_permute4x64_epi64((__m256i)both, 0xD8);
}
#else
INLINE Ints least(Ints a, Ints b) {
    Ints m = a < b;
    return (a & m) | (b & ~m);
}
INLINE Ints most(Ints a, Ints b) {
    Ints m = a > b;
    return (a & m) | (b & ~m);
}
INLINE Longs least64(Longs a, Longs b) {
    Longs m = a < b;
    return (a & m) | (b & ~m);
}
INLINE Longs most64(Longs a, Longs b) {
    Longs m = a > b;
    return (a & m) | (b & ~m);
}
INLINE Longs times(Longs x, Longs m) { return x * m; }
INLINE Longs product32(Longs a, Longs b) { return a * b; }
INLINE Ints gather(const int32_t *table, Ints at) {
    Ints v;
    for (int j = 0; j < LANES; j++) v[j] = table[at[j]];
    return v;
}
INLINE Wide widened(Ints x) {
    Half part[2];
    memcpy(part, &x, sizeof part);
    return (Wide){__builtin_convertvector(part[0], Longs), __builtin_convertvector(part[1], Longs)};
}
INLINE Ints narrowed(Wide x) {
    Half part[2] = {__builtin_convertvector(x.low, Half), __builtin_convertvector(x.high, Half)};
    Ints v;
    memcpy(&v, part, sizeof v);
    return v;
}
#endif

/* x >> s, arithmetic. */
#if defined(__AVX2__) && !defined(VNNI)
INLINE Longs down(Longs x, Longs s) { /* there is no such instruction for 64 bits: the sign is put back */
    Longs sign = (Longs)_mm256_srlv_epi64(_mm256_set1_epi64x(INT64_MIN), (__m256i)s);
    return ((Longs)_mm256_srlv_epi64((__m256i)x, (__m256i)s) ^ sign) - sign;
}
#else
INLINE Longs down(Longs x, Longs s) { return x >> s; }
#endif

INLINE Ints limited(Ints x, int32_t low, int32_t high) { return most(least(x, ints(high)), ints(low)); }
INLINE Longs limited64(Longs x, int64_t low, int64_t high) { return most64(least64(x, longs(high)), longs(low)); }

/* arith.round_shift */
INLINE Longs round_shift(Longs x, Longs s) { return down(x + (longs(1) << (s - 1)), s); }

/* arith.requantise, before saturation: (x + bias) * m, rounded once. */
INLINE Wide requantised(Ints x, const int64_t *bias, const int64_t *m, const int64_t *s) {
    Wide v = widened(x);
    v.low = round_shift(times(v.low + longs_at(bias), longs_at(m)), longs_at(s));
    v.high = round_shift(times(v.high + longs_at(bias + LANES / 2), longs_at(m + LANES / 2)), longs_at(s + LANES / 2));
    return v;
}

/* int64 to int32 with saturation at `low` and `high`. */
INLINE Ints narrow(Wide x, int64_t low, int64_t high) {
    return narrowed((Wide){limited64(x.low, low, high), limited64(x.high, low, high)});
}

/* The same with what is added after all; ``same``: where nothing was cut. */
INLINE Ints cut_off(Wide x, int64_t zero_point, int64_t low, int64_t high, Ints *same) {
    x = (Wide){x.low + zero_point, x.high + zero_point};
    Wide y = {limited64(x.low, low, high), limited64(x.high, low, high)};
    *same = narrowed((Wide){x.low == y.low, x.high == y.high});
    return narrowed(y);
}

/* ------------------------------------------------------------------------------------------- requantisation in doubles

   Where (x + bias) m stays below 2^52 (`Rescale.wide` says no), x m 2^-s + (bias m 2^-s + 1/2) is exact in doubles, and
   its floor is arith.requantise before the zero point and saturation. */

typedef VECTOR(double, LANES / 2) Doubles;
typedef struct {
    Doubles low, high;
} Pair;

/* factor and offset of LANES numbers, and between what is kept: [least, most), less the zero point. */
typedef struct {
    Pair factor, offset;
    double least, most;
    int32_t zero_point;
} Scaling;

INLINE Doubles doubles(double x) { return x - (Doubles){0}; }
INLINE Pair pair(double x) { return (Pair){doubles(x), doubles(x)}; }
INLINE Doubles doubles_at(const double *p) {
    Doubles v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE Pair pair_at(const double *p) { return (Pair){doubles_at(p), doubles_at(p + LANES / 2)}; }

/* Of one factor and offset for all; ``low`` and ``high`` are the format's. */
INLINE Scaling scaling(double factor, double offset, int64_t zero_point, int64_t low, int64_t high) {
    double beyond = (double)(high - zero_point + 1);
    /* the largest double below it: floor(v) <= high says v < high + 1 */
    return (Scaling){pair(factor), pair(offset), (double)(low - zero_point), beyond * (1.0 - 0x1p-53),
                     (int32_t)zero_point};
}

#if defined(VNNI)
INLINE Pair doubled(Ints x) {
    return (Pair){(Doubles)_mm512_cvtepi32_pd(_mm512_castsi512_si256((__m512i)x)),
                  (Doubles)_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64((__m512i)x, 1))};
}
/* The floor of v, limited; ``same``: where nothing was cut. */
INLINE Ints floored(Pair v, double least, double most, Ints *same) {
    __m512d low = _mm512_max_pd(_mm512_min_pd((__m512d)v.low, _mm512_set1_pd(most)), _mm512_set1_pd(least));
    __m512d high = _mm512_max_pd(_mm512_min_pd((__m512d)v.high, _mm512_set1_pd(most)), _mm512_set1_pd(least));
    __mmask16 uncut = (__mmask16)(_mm512_cmp_pd_mask(low, (__m512d)v.low, _CMP_EQ_OQ) |
                                  _mm512_cmp_pd_mask(high, (__m512d)v.high, _CMP_EQ_OQ) << 8);
    *same = (Ints)_mm512_movm_epi32(uncut);
    return (Ints)_mm512_inserti64x4(
        _mm512_castsi256_si512(_mm512_cvt_roundpd_epi32(low, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)),
        _mm512_cvt_roundpd_epi32(high, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), 1);
}
#elif defined(__AVX2__)
INLINE Pair doubled(Ints x) {
    return (Pair){(Doubles)_mm256_cvtepi32_pd(_mm256_castsi256_si128((__m256i)x)),
                  (Doubles)_mm256_cvtepi32_pd(_mm256_extracti128_si256((__m256i)x, 1))};
}
INLINE Ints floored(Pair v, double least, double most, Ints *same) {
    __m256d low = _mm256_max_pd(_mm256_min_pd((__m256d)v.low, _mm256_set1_pd(most)), _mm256_set1_pd(least));
    __m256d high = _mm256_max_pd(_mm256_min_pd((__m256d)v.high, _mm256_set1_pd(most)), _mm256_set1_pd(least));
    *same = narrowed((Wide){(Longs)_mm256_cmp_pd(low, (__m256d)v.low, _CMP_EQ_OQ),
                            (Longs)_mm256_cmp_pd(high, (__m256d)v.high, _CMP_EQ_OQ)});
    return (Ints)_mm256_inserti128_si256(_mm256_castsi128_si256(_mm256_cvttpd_epi32(_mm256_floor_pd(low))),
                                         _mm256_cvttpd_epi32(_mm256_floor_pd(high)), 1);
}
#else
INLINE Pair doubled(Ints x) {
    Half part[2];
    memcpy(part, &x, sizeof part);
    return (Pair){__builtin_convertvector(part[0], Doubles), __builtin_convertvector(part[1], Doubles)};
}
INLINE Longs floor_of(Doubles v, double least, double most, Longs *same) {
    Longs under = v < doubles(least), above = v > doubles(most);
    Doubles kept = (Doubles)(((Longs)v & ~(under | above)) | ((Longs)doubles(least) & under) |
                             ((Longs)doubles(most) & above));
    Longs whole = __builtin_convertvector(kept, Longs);                       /* towards zero */
    *same = kept == v;
    return whole + (__builtin_convertvector(whole, Doubles) > kept);
}
INLINE Ints floored(Pair v, double least, double most, Ints *same) {
    Wide y, uncut;
    y.low = floor_of(v.low, least, most, &uncut.low), y.high = floor_of(v.high, least, most, &uncut.high);
    *same = narrowed(uncut);
    return narrowed(y);
}
#endif

/* arith.requantise of x; ``same``: where nothing was cut. */
INLINE Ints rescaled(Ints x, const Scaling *by, Ints *same) {
    Pair v = doubled(x);
    v = (Pair){v.low * by->factor.low + by->offset.low, v.high * by->factor.high + by->offset.high};
    return floored(v, by->least, by->most, same) + by->zero_point;
}

/* arith.lookup.  A table is 512 words: value at the segment's left end in the low half, rise over the segment in the
 * high half. */
INLINE Ints look(const int32_t *table, Ints x, int odd) {
    Ints negative = x >> 31, magnitude = least((x ^ negative) - negative, ints(32767));
    Ints word = gather(table, magnitude >> 6), rest = magnitude & 63;
    Ints y = (word & 0xffff) + (((word >> 16) * rest + 32) >> 6);
    return (y ^ negative) - negative + (negative & (odd ? 0 : 32768));
}

/* -------------------------------------------------------------------------------------------------------- products */

#if defined(VNNI)
typedef uint8_t Operand;
typedef int8_t Weight;
enum { GROUP = 4, SIDES = 4, MOST = 6, SHIFTED = 128 };
#else
typedef int16_t Operand;
typedef int16_t Weight;
enum { GROUP = 2, SIDES = 1, MOST = 4, SHIFTED = 0 };
#endif
enum { WIDE = SIDES * TILE }; /* outputs of a panel */

/* rows operands [rows, pitch] times a panel [pitch / GROUP][WIDE outputs][GROUP] into out [rows, next]. */
INLINE void panel(const Operand *x, int64_t pitch, const Weight *w, int64_t groups, int32_t *out, int64_t next,
                  const int rows) {
#if defined(VNNI)
    __m512i sum[MOST][SIDES];
    for (int b = 0; b < rows; b++)
        for (int s = 0; s < SIDES; s++) sum[b][s] = _mm512_setzero_si512();
    for (int64_t k = 0; k < groups; k++, w += WIDE * GROUP) {
        __m512i v[SIDES];
        for (int s = 0; s < SIDES; s++) v[s] = _mm512_loadu_si512(w + TILE * GROUP * s);
        for (int b = 0; b < rows; b++) {
            int32_t four;
            memcpy(&four, x + b * pitch + GROUP * k, 4);
            for (int s = 0; s < SIDES; s++) sum[b][s] = _mm512_dpbusd_epi32(sum[b][s], _mm512_set1_epi32(four), v[s]);
        }
    }
    for (int b = 0; b < rows; b++)
        for (int s = 0; s < SIDES; s++) _mm512_storeu_si512(out + b * next + TILE * s, sum[b][s]);
#elif defined(__AVX2__)
    __m256i sum[MOST][2];
    for (int b = 0; b < rows; b++)
        for (int h = 0; h < 2; h++) sum[b][h] = _mm256_setzero_si256();
    for (int64_t k = 0; k < groups; k++, w += WIDE * GROUP) {
        __m256i low = _mm256_loadu_si256((const __m256i *)w), high = _mm256_loadu_si256((const __m256i *)(w + TILE));
        for (int b = 0; b < rows; b++) {
            int32_t two;
            memcpy(&two, x + b * pitch + GROUP * k, 4);
            __m256i v = _mm256_set1_epi32(two);
            sum[b][0] = _mm256_add_epi32(sum[b][0], _mm256_madd_epi16(v, low));
            sum[b][1] = _mm256_add_epi32(sum[b][1], _mm256_madd_epi16(v, high));
        }
    }
    for (int b = 0; b < rows; b++)
        for (int h = 0; h < 2; h++) _mm256_storeu_si256((__m256i *)(out + b * next + 8 * h), sum[b][h]);
#else
    int32_t sum[MOST][TILE];
    for (int b = 0; b < rows; b++)
        for (int j = 0; j < TILE; j++) sum[b][j] = 0;
    for (int64_t k = 0; k < groups; k++, w += WIDE * GROUP)
        for (int b = 0; b < rows; b++) {
            const Operand *two = x + b * pitch + GROUP * k;
            for (int j = 0; j < TILE; j++) sum[b][j] += (int32_t)two[0] * w[2 * j] + (int32_t)two[1] * w[2 * j + 1];
        }
    for (int b = 0; b < rows; b++)
        for (int j = 0; j < TILE; j++) out[b * next + j] = sum[b][j];
#endif
}

/* Any number of rows. */
INLINE void panels(const Operand *x, int64_t pitch, int64_t rows, const Weight *w, int64_t groups, int32_t *out,
                   int64_t next) {
    for (; rows >= MOST; rows -= MOST, x += MOST * pitch, out += MOST * next)
        panel(x, pitch, w, groups, out, next, MOST);
    if (rows >= 4) panel(x, pitch, w, groups, out, next, 4), rows -= 4, x += 4 * pitch, out += 4 * next;
    if (rows >= 2) panel(x, pitch, w, groups, out, next, 2), rows -= 2, x += 2 * pitch, out += 2 * next;
    if (rows) panel(x, pitch, w, groups, out, next, 1);
}

INLINE int64_t groups_of(int64_t width) { return (width + GROUP - 1) / GROUP; }
INLINE int64_t tiles_of(int64_t cells) { return (cells + TILE - 1) / TILE; }

/* Bytes of the weights [4 cells, width] packed. */
int64_t nnac_packed(int64_t cells, int64_t width) {
    return tiles_of(cells) * 4 * groups_of(width) * TILE * GROUP * (int64_t)sizeof(Weight);
}

/* Weights [4 cells, width] row by row -> [tile][4 / SIDES][width / GROUP][SIDES gates][16 cells][GROUP], zeros where
   nothing is; fold [4 cells]: what each row's sum has too much of, negated. */
void nnac_pack(const int8_t *w, void *packed, int32_t *fold, int64_t cells, int64_t width) {
    int64_t groups = groups_of(width);
    Weight *out = packed;
    memset(out, 0, (size_t)nnac_packed(cells, width));
    for (int64_t gate = 0; gate < 4; gate++)
        for (int64_t cell = 0; cell < cells; cell++) {
            const int8_t *row = w + (gate * cells + cell) * width;
            int64_t side = gate % SIDES, block = (cell / TILE) * (4 / SIDES) + gate / SIDES;
            Weight *to = out + (block * groups * WIDE + side * TILE + cell % TILE) * GROUP;
            int32_t sum = 0;
            for (int64_t k = 0; k < width; k++) {
                to[(k / GROUP) * WIDE * GROUP + k % GROUP] = row[k];
                sum += row[k];
            }
            fold[gate * cells + cell] = -SHIFTED * sum;
        }
}

#if !defined(VNNI)
enum {
    BLOCK_ROWS = 96,
    BLOCK_COLS = 1024
}; /* operands and a panel of these stay in the second-level cache (measured) */

/* GROUP rows of weights side by side, as a panel has them. */
INLINE void interleave(const int8_t (*row)[WIDE], Weight *to) {
#if defined(__AVX2__)
    __m128i a = _mm_loadu_si128((const __m128i *)row[0]), b = _mm_loadu_si128((const __m128i *)row[1]);
    _mm256_storeu_si256((__m256i *)to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)));
    _mm256_storeu_si256((__m256i *)(to + TILE), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)));
#else
    for (int j = 0; j < WIDE; j++)
        for (int i = 0; i < GROUP; i++) to[j * GROUP + i] = row[i][j];
#endif
}

/* x [count, cols] times w [cols, outputs], both int8, into out int32 [count, outputs]. */
void nnac_product(int64_t count, int64_t cols, int64_t outputs, const int8_t *x, const int8_t *w, int32_t *out) {
    static __thread Operand operands[BLOCK_ROWS * BLOCK_COLS];
    static __thread Weight weights[BLOCK_COLS * WIDE];
    int32_t sums[BLOCK_ROWS * WIDE];
    if (!cols) memset(out, 0, (size_t)(count * outputs) * 4);
    for (int64_t k0 = 0; k0 < cols; k0 += BLOCK_COLS) {
        int64_t width = cols - k0 < BLOCK_COLS ? cols - k0 : BLOCK_COLS, groups = groups_of(width),
                pitch = groups * GROUP;
        for (int64_t first = 0; first < count; first += BLOCK_ROWS) {
            int64_t rows = count - first < BLOCK_ROWS ? count - first : BLOCK_ROWS;
            for (int64_t b = 0; b < rows; b++) {
                const int8_t *from = x + (first + b) * cols + k0;
                for (int64_t k = 0; k < width; k++) operands[b * pitch + k] = from[k];
                for (int64_t k = width; k < pitch; k++) operands[b * pitch + k] = 0;
            }
            for (int64_t j0 = 0; j0 < outputs; j0 += WIDE) {
                int64_t live = outputs - j0 < WIDE ? outputs - j0 : WIDE;
                for (int64_t k = 0; k < pitch; k += GROUP) {
                    int8_t row[GROUP][WIDE] = {{0}};
                    for (int i = 0; i < GROUP && k + i < width; i++) {
                        const int8_t *from = w + (k0 + k + i) * outputs + j0;
                        if (live == WIDE) memcpy(row[i], from, WIDE);
                        else memcpy(row[i], from, (size_t)live);
                    }
                    interleave(row, weights + k * WIDE);
                }
                panels(operands, pitch, rows, weights, groups, sums, WIDE);
                for (int64_t b = 0; b < rows; b++) {
                    int32_t *to = out + (first + b) * outputs + j0;
                    for (int64_t j = 0; j < live; j++) to[j] = (k0 ? to[j] : 0) + sums[b * WIDE + j];
                }
            }
        }
    }
}
#endif

/* -------------------------------------------------------------------------------------------------------- the LSTM */

/* n cells from `cell` on: their gates from both products, the new cell and hidden state. */
INLINE void some_cells(const Forward *p, int64_t step, int64_t b, int64_t cell, const int32_t *acc, const int n) {
    int64_t H = p->cells, at = (step * p->batch + b) * 4 * H + cell, out = (step * p->batch + b) * H + cell;
    const int16_t *before = (step ? p->cs + ((step - 1) * p->batch + b) * H : p->cell + b * H) + cell;
    Ints gate[4];
    for (int g = 0; g < 4; g++) {
        int64_t row = (cell / TILE * 4 + g) * TILE + cell % TILE, to = at + g * H;
        const int64_t *m = p->multiplier + row, *s = p->shift + row, *bias = p->bias + row;
        Ints x = ints_at(p->input + to, n), a = ints_at(acc + g * TILE, LANES);
        if (!p->separate) {
            gate[g] = narrow(requantised(x + a, bias, m, s), -32768, 32767);
        } else {
            Ints v = narrow(requantised(x, bias, m, s), INT32_MIN, INT32_MAX), lv = limited(v, -32768, 32767);
            Ints w =
                narrow(requantised(a, p->bias2 + row, p->multiplier2 + row, p->shift2 + row), INT32_MIN, INT32_MAX);
            Ints lw = limited(w, -32768, 32767);
            store_flags(p->cut_input + to, v != lv, n);
            store_flags(p->cut_recurrent + to, w != lw, n);
            gate[g] = limited(lv + lw, -32768, 32767);
        }
        store_shorts_of(p->pre + to, gate[g], n);
    }
    Ints in = look(p->sigmoid, gate[0], 0), forget = look(p->sigmoid, gate[1], 0), new = look(p->tanh, gate[2], 1);
    Ints output = look(p->sigmoid, gate[3], 0), old = shorts(before, n);
    int shift = 30 - (int)p->fraction;
    Ints kept = (forget * old + (1 << 14)) >> 15, came = (in * new + (1 << (shift - 1))) >> shift;
    Ints c = limited(kept + came, -32768, 32767);
    store_shorts_of(p->cs + out, c, n);
    Wide product = widened(output * look(p->tanh_cell, c, 1));
    Longs m = longs(p->hidden_multiplier), s = longs(p->hidden_shift);
    Wide rounded = {round_shift(times(product.low, m), s), round_shift(times(product.high, m), s)};
    Ints free = narrow(rounded, INT32_MIN, INT32_MAX),
         h = limited(free, (int32_t)p->hidden_low, (int32_t)p->hidden_high);
    store_bytes_of(p->hs + out, h, n);
    if (p->uncut) store_flags(p->uncut + out, h == free, n);
}

/* Bytes that nnac_forward needs: the hidden state as operands, and the sums of one tile. */
int64_t nnac_scratch(int64_t batch, int64_t width) {
    return batch * (groups_of(width) * GROUP * (int64_t)sizeof(Operand) + 4 * TILE * 4) + 64;
}

void nnac_forward(const Forward *p) {
    int64_t H = p->cells, B = p->batch, groups = groups_of(p->width), pitch = groups * GROUP, tiles = tiles_of(H);
    Operand *x = (Operand *)p->scratch;
    int32_t *acc = (int32_t *)(p->scratch + ((size_t)(B * pitch) * sizeof(Operand) + 63) / 64 * 64);
    for (int64_t k = 0; k < B * pitch; k++) x[k] = SHIFTED;
    for (int64_t step = 0; step < p->steps; step++) {
        const int8_t *h = step ? p->hs + (step - 1) * B * H : p->hidden;
        for (int64_t b = 0; b < B; b++)
            for (int64_t k = 0; k < p->width; k++) x[b * pitch + k] = (Operand)(h[b * p->width + k] + SHIFTED);
        for (int64_t tile = 0; tile < tiles; tile++) {
            for (int g = 0; g < 4; g += SIDES)
                panels(x, pitch, B, (const Weight *)p->weights + (tile * 4 + g) * groups * TILE * GROUP, groups,
                       acc + g * TILE, 4 * TILE);
            for (int64_t b = 0; b < B; b++)
                for (int64_t cell = tile * TILE; cell < H && cell < (tile + 1) * TILE; cell += LANES) {
                    const int32_t *a = acc + b * 4 * TILE + cell % TILE;
                    if (H - cell >= LANES) some_cells(p, step, b, cell, a, LANES);
                    else some_cells(p, step, b, cell, a, (int)(H - cell));
                }
        }
    }
}

INLINE Floats real(Ints q15) { return __builtin_convertvector(q15, Floats) * (1.0f / 32768.0f); }
INLINE Floats where(Ints mask, Floats x) { return (Floats)((Ints)x & mask); }

/* Where a 16-bit integer does not stand at a limit of its format. */
INLINE Ints free16(Ints x) { return (x < 32767) & (x > -32768); }

INLINE void some_slopes(int64_t at, int64_t cells, float inverse, float unit, const float *dy, const float *dh,
                        float *dc, float *z, const int16_t *p, const int16_t *after, const int16_t *before,
                        const uint8_t *uncut, const int32_t *sigmoid, const int32_t *tanh, const int32_t *tanh_cell,
                        const int n) {
    const Floats one = floats(1.0f);
    Ints pi = shorts(p, n), pf = shorts(p + cells, n), pg = shorts(p + 2 * cells, n), po = shorts(p + 3 * cells, n),
         pc = shorts(after + at, n);
    Floats i = real(look(sigmoid, pi, 0)), f = real(look(sigmoid, pf, 0)), g = real(look(tanh, pg, 1)),
           o = real(look(sigmoid, po, 0));
    Floats t = real(look(tanh_cell, pc, 1)), old = __builtin_convertvector(shorts(before + at, n), Floats) * unit;
    Floats d = (floats_at(dy + at, n) + floats_at(dh + at, n)) * inverse;
    if (uncut) d = where(__builtin_convertvector(bytes_at(uncut + at, n), Ints) != 0, d);
    Floats d_cell = where(free16(pc), floats_at(dc + at, n) + d * o * (one - t * t));
    store_floats(z, where(free16(pi), d_cell * g * (i * (one - i))), n);
    store_floats(z + cells, where(free16(pf), d_cell * old * (f * (one - f))), n);
    store_floats(z + 2 * cells, where(free16(pg), d_cell * i * (one - g * g)), n);
    store_floats(z + 3 * cells, where(free16(po), d * t * (o * (one - o))), n);
    store_floats(dc + at, d_cell * f, n);
}

/* One backward step without its product.  dh: d loss / d hidden integer from the later step; dc: d loss / d cell, real:
   both read, dc replaced. dz [batch, 4 cells]: d loss / d real pre-activation. */
void nnac_backward(int64_t batch, int64_t cells, float inverse, float unit, const float *dy, const float *dh, float *dc,
                   float *dz, const int16_t *pre, const int16_t *after, const int16_t *before, const uint8_t *uncut,
                   const int32_t *sigmoid, const int32_t *tanh, const int32_t *tanh_cell) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t j = 0; j < cells; j += LANES) {
            int64_t at = b * cells + j, row = b * 4 * cells + j;
#define SLOPES(n)                                                                                                      \
    some_slopes(at, cells, inverse, unit, dy, dh, dc, dz + row, pre + row, after, before, uncut, sigmoid, tanh,        \
                tanh_cell, n)
            if (cells - j >= LANES) SLOPES(LANES);
            else SLOPES((int)(cells - j));
        }
}

enum { BLOCK = 16 }; /* rows that are gone through together, so that neither they nor the constants leave the cache */

/* n columns of some rows of nnac_requantise: by ``exact``, or where there is none in int64. */
INLINE Ints some_rows(int64_t count, int64_t rows, const int32_t *acc, const Scaling *exact, const int64_t *bias,
                      const int64_t *multiplier, const int64_t *shift, int64_t zero_point, int64_t low, int64_t high,
                      float *out, uint8_t *inside, const int n) {
    Ints cuts = {0}, same;
    for (int64_t i = 0; i < count; i++) {
        Ints x = ints_at(acc + i * rows, n);
        Ints y = exact ? rescaled(x, exact, &same)
                       : cut_off(requantised(x, bias, multiplier, shift), zero_point, low, high, &same);
        cuts += same + 1;
        store_floats(out + i * rows, __builtin_convertvector(y, Floats), n);
        store_flags(inside + i * rows, same, n);
    }
    return cuts;
}

/* The first n lanes, counted together. */
INLINE int64_t count_of(Ints lanes, int n) {
    int64_t count = 0;
    for (int k = 0; k < n; k++) count += lanes[k];
    return count;
}

/* Requantise accumulators [count, rows] with factors and offsets [rows] to floats that hold the integers.  inside
   [count, rows] is 1 where nothing was cut.  Returns how many were cut. */
int64_t nnac_requantise(int64_t count, int64_t rows, const int32_t *acc, const double *factor, const double *offset,
                        int64_t zero_point, int64_t low, int64_t high, float *out, uint8_t *inside) {
    int64_t cut = 0;
    Scaling by = scaling(0.0, 0.0, zero_point, low, high);
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t some = count - i < BLOCK ? count - i : BLOCK, at = i * rows, j = 0;
        for (; j + LANES <= rows; j += LANES) {
            by.factor = pair_at(factor + j), by.offset = pair_at(offset + j);
            cut += count_of(some_rows(some, rows, acc + at + j, &by, 0, 0, 0, 0, 0, 0, out + at + j, inside + at + j,
                                      LANES), LANES);
        }
        if (j < rows) {
            double f[LANES] = {0}, o[LANES] = {0};
            memcpy(f, factor + j, (size_t)(rows - j) * 8), memcpy(o, offset + j, (size_t)(rows - j) * 8);
            by.factor = pair_at(f), by.offset = pair_at(o);
            cut += count_of(some_rows(some, rows, acc + at + j, &by, 0, 0, 0, 0, 0, 0, out + at + j, inside + at + j,
                                      (int)(rows - j)), (int)(rows - j));
        }
    }
    return cut;
}

/* The same with bias, multiplier and shift [rows], for products that no double holds. */
int64_t nnac_requantise_wide(int64_t count, int64_t rows, const int32_t *acc, const int64_t *bias,
                             const int64_t *multiplier, const int64_t *shift, int64_t zero_point, int64_t low,
                             int64_t high, float *out, uint8_t *inside) {
    int64_t cut = 0;
    for (int64_t j = 0; j < rows; j += LANES) {
        int n = rows - j >= LANES ? LANES : (int)(rows - j);
        int64_t b[LANES] = {0}, m[LANES] = {0}, s[LANES];
        for (int k = 0; k < LANES; k++) s[k] = 1;
        memcpy(b, bias + j, (size_t)n * 8), memcpy(m, multiplier + j, (size_t)n * 8), memcpy(s, shift + j, (size_t)n * 8);
        cut += count_of(some_rows(count, rows, acc + j, 0, b, m, s, zero_point, low, high, out + j, inside + j, n), n);
    }
    return cut;
}

INLINE void some_lookups(const float *x, const int32_t *table, int64_t odd, const Scaling *by, float *out, int16_t *kept,
                         const int n) {
    Ints at = __builtin_convertvector(floats_at(x, n), Ints), y = odd ? look(table, at, 1) : look(table, at, 0), same;
    if (kept) store_shorts_of(kept, y, n);
    store_floats(out, __builtin_convertvector(rescaled(y, by, &same), Floats), n);
}

/* A table of x (floats that hold 16-bit integers), requantised to [low, high]; odd: f(-x) = -f(x), else 1 - f(x).
   kept  the table's own outputs in Q0.15, for the gradient, or null */
void nnac_lookup(int64_t count, const float *x, const int32_t *table, int64_t odd, double factor, double offset,
                 int64_t zero_point, int64_t low, int64_t high, float *out, int16_t *kept) {
    Scaling by = scaling(factor, offset, zero_point, low, high);
    int64_t i = 0;
#define LOOKUPS(n) some_lookups(x + i, table, odd, &by, out + i, kept ? kept + i : 0, n)
    for (; i + LANES <= count; i += LANES) LOOKUPS(LANES);
    if (i < count) LOOKUPS((int)(count - i));
}

INLINE void some_lookup_slopes(const int16_t *kept, const float *g, int64_t odd, float ratio, int64_t smallest,
                               int64_t largest, float *out, const int n) {
    const Floats one = floats(1.0f);
    Ints y = shorts(kept, n);
    Floats t = real(y), slope = odd ? one - t * t : t * (one - t);
    Ints inside = (y >= (int32_t)smallest) & (y <= (int32_t)largest);
    store_floats(out, where(inside, floats_at(g, n) * slope * ratio), n);
}

/* Its gradient: g * ratio * slope, slope 1 - t^2 (odd: tanh) or t (1 - t) (sigmoid) of the table's own output t, none
   where the output is cut: where |multiplier t + ...| leaves [low, high], that is t outside [smallest, largest] (in
   Q0.15). */
void nnac_lookup_backward(int64_t count, const int16_t *kept, const float *g, int64_t odd, float ratio,
                          int64_t smallest, int64_t largest, float *out) {
    int64_t i = 0;
#define LOOKUP_SLOPES(n) some_lookup_slopes(kept + i, g + i, odd, ratio, smallest, largest, out + i, n)
    for (; i + LANES <= count; i += LANES) LOOKUP_SLOPES(LANES);
    if (i < count) LOOKUP_SLOPES((int)(count - i));
}

/* (x + 2^(n-1)) >> n of one number; n = 0 changes nothing. */
INLINE int64_t shifted(int64_t x, int64_t n) { return (x + ((int64_t)1 << n >> 1)) >> n; }

INLINE int64_t cut_to(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/* 1/sqrt(u) = r 2^-(45 + e/2), r in Q30; table [385]: see nnac/arith.py. */
INLINE int64_t reciprocal_root(int64_t u, const int64_t *table, int64_t *exponent) {
    int64_t e = 64 - __builtin_clzll((uint64_t)u) - 30;
    e += e & 1;
    int64_t z = e < 0 ? u << -e : u >> e, at = (z - (1 << 28)) >> 21, rest = z & ((1 << 21) - 1);
    at = cut_to(at, 0, 383);
    int64_t r = table[at] + shifted((table[at + 1] - table[at]) * rest, 21);
    int64_t correction = 3 * ((int64_t)1 << 30) - ((z * r * r) >> 30);
    *exponent = e;
    return (r * correction) >> 16;
}

/* What makes layer norm of one vector x of integers: its sum S, and the sum of the squares of width x - S, which is
   width (width sum x^2 - S^2). */
INLINE void moments(const float *x, int64_t width, int64_t *sum, int64_t *squares) {
    Ints total = {0}, low = {0}, high = {0}; /* x^2 in halves: 32 bits hold the sums of 2^14 vectors */
#define MOMENTS(n)                                                                                                     \
    do {                                                                                                               \
        Ints v = __builtin_convertvector(floats_at(x + j, n), Ints), square = v * v;                                   \
        total += v, low += square & 0xffff, high += square >> 16;                                                      \
    } while (0)
    int64_t j = 0, square = 0;
    for (; j + LANES <= width; j += LANES) MOMENTS(LANES);
    if (j < width) MOMENTS((int)(width - j));
    *sum = 0;
    for (int k = 0; k < LANES; k++) *sum += total[k], square += low[k] + ((int64_t)high[k] << 16);
    *squares = width * (width * square - *sum * *sum);
}

/* The root of moments' squares that n = (width x - sum) q >> s wants: q, below 2^31, and s. */
INLINE int64_t normaliser(int64_t squares, int64_t root_width, const int64_t *table, int64_t *s) {
    int64_t exponent, r = reciprocal_root(squares, table, &exponent);
    *s = 25 + (exponent >> 1);
    return shifted(r * root_width, 16);
}

typedef struct {
    int64_t width, sum, zero_point, low, high;
    Longs q, s, half, multiplier, shift; /* half: of what q's products are shifted by */
} Norm;

/* All operands of products fit 32 bits: d width 2^16 at most, n gain + bias 2^31. */
INLINE Longs normed(Longs d, const Norm *by, const int64_t *gain, const int64_t *bias) {
    Longs n = limited64(down(product32(d, by->q) + by->half, by->s), -32768, 32767);
    return round_shift(product32(product32(n, longs_at(gain)) + longs_at(bias), by->multiplier), by->shift);
}

INLINE Ints some_normed(const float *x, const Norm *by, const int64_t *gain, const int64_t *bias, float *out,
                        uint8_t *inside, const int n) {
    Wide d = widened(__builtin_convertvector(floats_at(x, n), Ints) * (int32_t)by->width - (int32_t)by->sum);
    Wide y = {normed(d.low, by, gain, bias), normed(d.high, by, gain + LANES / 2, bias + LANES / 2)};
    Ints same, kept = cut_off(y, by->zero_point, by->low, by->high, &same);
    store_floats(out, __builtin_convertvector(kept, Floats), n);
    store_flags(inside, same, n);
    return same + 1;
}

/* Layer norm of each of ``count`` vectors of ``width`` floats that hold 16-bit integers, to floats that hold the
   integers.  gain, bias: as many as are a multiple of LANES, zeros at the end.  inside [count, width] is 1 where
   nothing was cut.  Returns how many were cut. */
int64_t nnac_layer_norm(int64_t count, int64_t width, const float *x, const int64_t *gain, const int64_t *bias,
                        int64_t epsilon, int64_t root_width, const int64_t *table, int64_t multiplier, int64_t shift,
                        int64_t zero_point, int64_t low, int64_t high, float *out, uint8_t *inside) {
    Ints cuts = {0}, last = {0};
    Norm by = {.width = width, .zero_point = zero_point, .low = low, .high = high, .multiplier = longs(multiplier),
               .shift = longs(shift)};
    for (int64_t i = 0; i < count; i++, x += width, out += width, inside += width) {
        int64_t squares, s, j = 0;
        moments(x, width, &by.sum, &squares);
        by.q = longs(normaliser(squares + epsilon, root_width, table, &s));
        by.s = longs(s), by.half = longs((int64_t)1 << s >> 1);
        for (; j + LANES <= width; j += LANES) cuts += some_normed(x + j, &by, gain + j, bias + j, out + j, inside + j, LANES);
        if (j < width) last += some_normed(x + j, &by, gain + j, bias + j, out + j, inside + j, (int)(width - j));
    }
    return count_of(cuts, LANES) + count_of(last, (int)(width % LANES));
}

/* The sum of 16 numbers a lane, in one order on every processor: halves on each other. */
INLINE float total_of(const Floats *lanes) {
    VECTOR(float, 8) eight, upper;
    VECTOR(float, 4) four, upper4;
    memcpy(&eight, lanes, sizeof eight), memcpy(&upper, (const char *)lanes + sizeof eight, sizeof upper);
    eight += upper;
    memcpy(&four, &eight, sizeof four), memcpy(&upper4, (const char *)&eight + sizeof four, sizeof upper4);
    four += upper4;
    return (four[0] + four[2]) + (four[1] + four[3]);
}

typedef struct {
    int32_t width, sum;
    float unit, inverse, mean, slope, deviation;
} Slopes;

/* (x - mean) / deviation of some integers. */
INLINE Floats hats(const float *x, const Slopes *by, const int n) {
    Ints d = __builtin_convertvector(floats_at(x, n), Ints) * by->width - by->sum;
    return __builtin_convertvector(d, Floats) * by->unit;
}

INLINE void some_norm_sums(const float *x, const float *g, const uint8_t *inside, const Slopes *by, const float *gain,
                           float *to_gain, float *to_bias, float *out, Floats *plain, Floats *weighed, const int n) {
    Floats hat = hats(x, by, n), d = floats_at(g, n) * by->inverse;
    if (inside) d = where(__builtin_convertvector(bytes_at(inside, n), Ints) != 0, d);
    store_floats(to_gain, floats_at(to_gain, n) + d * hat, n);
    store_floats(to_bias, floats_at(to_bias, n) + d, n);
    Floats own = d * floats_at(gain, n);
    *plain += own, *weighed += own * hat;
    store_floats(out, own, n);
}

INLINE void some_norm_slopes(const float *x, const Slopes *by, float *out, const int n) {
    store_floats(out, (floats_at(out, n) - by->mean - hats(x, by, n) * by->slope) * by->deviation, n);
}

/* Gradients of the real layer norm of the integers x [count, width]: g where nothing was cut (``inside``, or null),
   times ``inverse``.  epsilon: of the variance.  out [count, width]; to_gain and to_bias [width] are added to. */
void nnac_layer_norm_backward(int64_t count, int64_t width, const float *x, const float *g, const uint8_t *inside,
                              float inverse, const float *gain, double epsilon, float *out, float *to_gain,
                              float *to_bias) {
    for (int64_t i = 0; i < count; i++, x += width, g += width, out += width) {
        int64_t sum, squares, j = 0;
        moments(x, width, &sum, &squares);
        double w = (double)width, root = 1.0 / __builtin_sqrt((double)squares / (w * w * w) + epsilon);
        Slopes by = {(int32_t)width, (int32_t)sum, (float)(root / w), inverse, 0.0f, 0.0f, (float)root};
        Floats plain[TILE / LANES] = {{0}}, weighed[TILE / LANES] = {{0}};
        const uint8_t *uncut = inside ? inside + i * width : 0;
#define NORM_SUMS(part, n)                                                                                             \
    some_norm_sums(x + j, g + j, uncut ? uncut + j : 0, &by, gain + j, to_gain + j, to_bias + j, out + j, plain + part,  \
                   weighed + part, n)
        for (; j + TILE <= width;)
            for (int part = 0; part < TILE / LANES; part++, j += LANES) NORM_SUMS(part, LANES);
        for (int part = 0; j < width; part++, j += LANES)
            if (width - j >= LANES) NORM_SUMS(part, LANES);
            else NORM_SUMS(part, (int)(width - j));
        by.mean = total_of(plain) / (float)width, by.slope = total_of(weighed) / (float)width;
        for (j = 0; j + LANES <= width; j += LANES) some_norm_slopes(x + j, &by, out + j, LANES);
        if (j < width) some_norm_slopes(x + j, &by, out + j, (int)(width - j));
    }
}

/* Softmax of each of ``count`` vectors of ``width`` floats that hold integers; table [513] of exp(-x), roots [385]. */
void nnac_softmax(int64_t count, int64_t width, const float *x, const int64_t *table, const int64_t *roots,
                  int64_t multiplier, int64_t shift, int64_t out_multiplier, int64_t out_shift, int64_t zero_point,
                  int64_t low, int64_t high, int64_t *scratch, float *out) {
    int64_t half = (int64_t)1 << shift >> 1, tail = (int64_t)1 << out_shift >> 1;
    for (int64_t i = 0; i < count; i++, x += width, out += width) {
        int32_t most = (int32_t)x[0];
        int64_t sum = 0, exponent;
        for (int64_t j = 1; j < width; j++) most = (int32_t)x[j] > most ? (int32_t)x[j] : most;
        for (int64_t j = 0; j < width; j++) {
            int64_t t = cut_to((((int64_t)most - (int32_t)x[j]) * multiplier + half) >> shift, 0, 32767);
            int64_t at = t >> 6, rest = t & 63;
            sum += scratch[j] = table[at] + (((table[at + 1] - table[at]) * rest + 32) >> 6);
        }
        int64_t r = reciprocal_root(sum, roots, &exponent), inverse = (r * r) >> 32, s = 43 + exponent;
        int64_t whole = (int64_t)1 << s >> 1;
        for (int64_t j = 0; j < width; j++) {
            int64_t p = (scratch[j] * inverse + whole) >> s;
            out[j] = (float)(int32_t)cut_to(((p * out_multiplier + tail) >> out_shift) + zero_point, low, high);
        }
    }
}

/* y[i] = table[x[i] + 32768] of floats that hold 16-bit integers; with g, times g[i]. */
void nnac_gather(int64_t count, const float *x, const float *g, const float *table, float *out) {
    if (g)
        for (int64_t i = 0; i < count; i++) out[i] = g[i] * table[(int32_t)x[i] + 32768];
    else
        for (int64_t i = 0; i < count; i++) out[i] = table[(int32_t)x[i] + 32768];
}

INLINE Ints some_sums(const float *a, const float *b, const Scaling *by, int64_t low, int64_t high, float *out,
                      uint8_t *pass_a, uint8_t *pass_b, const int n) {
    Ints same_a, same_b, z = rescaled(__builtin_convertvector(floats_at(a, n), Ints), by, &same_a);
    z += rescaled(__builtin_convertvector(floats_at(b, n), Ints), by + 1, &same_b);
    Ints sum = limited(z, (int32_t)low, (int32_t)high), whole = z == sum;
    store_floats(out, __builtin_convertvector(sum, Floats), n);
    store_flags(pass_a, whole & same_a, n);
    store_flags(pass_b, whole & same_b, n);
    return (whole & same_a & same_b) + 1;
}

/* sat(requantise(a) + requantise(b)) of floats that hold integers.  pass_a, pass_b: where their gradients pass.  Returns
   how often one does not. */
int64_t nnac_add(int64_t count, const float *a, const float *b, const double *factor, const double *offset, int64_t low,
                 int64_t high, float *out, uint8_t *pass_a, uint8_t *pass_b) {
    Ints cuts = {0}, last = {0};
    int64_t i = 0;
    Scaling by[2];
    for (int k = 0; k < 2; k++) by[k] = scaling(factor[k], offset[k], 0, low, high);
#define SUMS(n) some_sums(a + i, b + i, by, low, high, out + i, pass_a + i, pass_b + i, n)
    for (; i + LANES <= count; i += LANES) cuts += SUMS(LANES);
    if (i < count) last += SUMS((int)(count - i));
    return count_of(cuts, LANES) + count_of(last, (int)(count - i));
}

#include "native_layers.c"
