/* The time loop of an LSTM in integers, the elementwise half of its backward step, requantisation and tables.

   The same integers as nnac/arith.py and nnac/ops/lstm.py, bit for bit: tests compare them.  Everything is spelled with int64 products and
   arithmetic shifts, as there; only the recurrent product is special: bytes with the VNNI instructions, in tiles of 16 cells, so
   that the four gates of a cell are finished while they are in registers.

   vpdpbusd multiplies unsigned by signed bytes: the hidden state enters as h + 128, and 128 * (row sum of the weights) is taken off the bias.
*/
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#if !defined(__AVX512VNNI__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "needs AVX-512 with VNNI: the PyTorch spelling is used instead"
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t steps, batch, cells, width;          /* width: of the hidden state that is fed back */
    int64_t separate;                            /* sum16: two requantised sums; else acc32 */
    int64_t fraction, hidden_multiplier, hidden_shift, hidden_low, hidden_high;
    const int32_t *input;                        /* [steps, batch, 4 cells] the input product, without bias */
    const int8_t *weights;                       /* from nnac_pack */
    const int64_t *multiplier, *shift, *bias;    /* [tiles, 4, 16]: the sum's (acc32) or the input product's (sum16) */
    const int64_t *multiplier2, *shift2, *bias2; /* the recurrent product's (sum16) */
    const int32_t *sigmoid, *tanh, *tanh_cell;   /* see look() */
    const int8_t *hidden;                        /* [batch, width] before the first step */
    const int16_t *cell;                         /* [batch, cells] */
    int16_t *pre, *cs;                           /* [steps, batch, 4 cells], [steps, batch, cells] */
    int8_t *hs;                                  /* [steps, batch, cells] */
    uint8_t *uncut, *cut_input, *cut_recurrent;  /* like hs, pre, pre; or null */
    uint8_t *scratch;                            /* [batch, width rounded up to 4] */
} Forward;

/* arith.lookup of 16 inputs.  A table is 512 words: value at the segment's left end in the low half, rise over the segment in the high half. */
INLINE __m512i look(const int32_t *table, __m512i x, int odd) {
    __m512i magnitude = _mm512_min_epi32(_mm512_abs_epi32(x), _mm512_set1_epi32(32767));
    __m512i word = _mm512_i32gather_epi32(_mm512_srli_epi32(magnitude, 6), table, 4), rest = _mm512_and_si512(magnitude, _mm512_set1_epi32(63));
    __m512i low = _mm512_and_si512(word, _mm512_set1_epi32(0xffff)), rise = _mm512_srai_epi32(word, 16);
    __m512i y = _mm512_add_epi32(low, _mm512_srai_epi32(_mm512_add_epi32(_mm512_mullo_epi32(rise, rest), _mm512_set1_epi32(32)), 6));
    return _mm512_mask_sub_epi32(y, _mm512_movepi32_mask(x), _mm512_set1_epi32(odd ? 0 : 32768), y);
}

/* Eight of arith.requantise, before saturation: (x + bias) * m, rounded once. */
INLINE __m512i requantised(__m256i x, const int64_t *bias, const int64_t *m, const int64_t *s) {
    __m512i shift = _mm512_loadu_si512(s), one = _mm512_set1_epi64(1);
    __m512i v = _mm512_mullo_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(x), _mm512_loadu_si512(bias)), _mm512_loadu_si512(m));
    return _mm512_srav_epi64(_mm512_add_epi64(v, _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one))), shift);
}

/* int64 to int32 with saturation: a sum that passes 32 bits stays beyond every limit that follows. */
INLINE __m512i narrow(__m512i low, __m512i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtsepi64_epi32(low)), _mm512_cvtsepi64_epi32(high), 1);
}

INLINE __m512i requantised16(__m512i x, const int64_t *bias, const int64_t *m, const int64_t *s) {
    return narrow(requantised(_mm512_castsi512_si256(x), bias, m, s), requantised(_mm512_extracti64x4_epi64(x, 1), bias + 8, m + 8, s + 8));
}

INLINE __m512i limited(__m512i x, int32_t low, int32_t high) {
    return _mm512_max_epi32(_mm512_min_epi32(x, _mm512_set1_epi32(high)), _mm512_set1_epi32(low));
}

/* Weights [4 cells, width] row by row -> [tile][width / 4][gate][16 cells][4], zeros where nothing is; sums [4 cells] of each row. */
void nnac_pack(const int8_t *w, int8_t *out, int32_t *sums, int64_t cells, int64_t width) {
    int64_t tiles = (cells + LANES - 1) / LANES, groups = (width + 3) / 4;
    memset(out, 0, (size_t)(tiles * groups * 4 * LANES * 4));
    for (int64_t gate = 0; gate < 4; gate++)
        for (int64_t cell = 0; cell < cells; cell++) {
            const int8_t *row = w + (gate * cells + cell) * width;
            int8_t *to = out + (((cell / LANES) * groups * 4 + gate) * LANES + cell % LANES) * 4;
            int32_t sum = 0;
            for (int64_t k = 0; k < width; k++) sum += row[k];
            sums[gate * cells + cell] = sum;
            for (int64_t k = 0; k < width / 4; k++) memcpy(to + k * 4 * LANES * 4, row + 4 * k, 4);
            for (int64_t k = width & ~3; k < width; k++) to[(k / 4) * 4 * LANES * 4 + k % 4] = row[k];
        }
}

INLINE void products(const uint8_t *h, int64_t pitch, const int8_t *w, int64_t groups, int32_t *acc, const int rows) {
    __m512i sum[6][4];
    for (int b = 0; b < rows; b++) for (int g = 0; g < 4; g++) sum[b][g] = _mm512_setzero_si512();
    for (int64_t k = 0; k < groups; k++, w += 4 * LANES * 4) {
        __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64), w2 = _mm512_loadu_si512(w + 128), w3 = _mm512_loadu_si512(w + 192);
        for (int b = 0; b < rows; b++) {
            int32_t four;
            memcpy(&four, h + b * pitch + 4 * k, 4);
            __m512i x = _mm512_set1_epi32(four);
            sum[b][0] = _mm512_dpbusd_epi32(sum[b][0], x, w0);
            sum[b][1] = _mm512_dpbusd_epi32(sum[b][1], x, w1);
            sum[b][2] = _mm512_dpbusd_epi32(sum[b][2], x, w2);
            sum[b][3] = _mm512_dpbusd_epi32(sum[b][3], x, w3);
        }
    }
    for (int b = 0; b < rows; b++) for (int g = 0; g < 4; g++) _mm512_storeu_si512(acc + (b * 4 + g) * LANES, sum[b][g]);
}

INLINE void store_bits(uint8_t *to, __mmask16 bits, __mmask16 live) {
    _mm_mask_storeu_epi8(to, live, _mm_maskz_set1_epi8(bits, 1));
}

static void cells_of_a_tile(const Forward *p, int64_t step, int64_t b, int64_t tile, const int32_t *acc, const int16_t *before, __mmask16 live) {
    int64_t H = p->cells, at = (step * p->batch + b) * 4 * H + tile * LANES, out = (step * p->batch + b) * H + tile * LANES;
    __m512i gate[4];
    for (int g = 0; g < 4; g++) {
        int64_t row = (tile * 4 + g) * LANES;
        __m512i x = _mm512_maskz_loadu_epi32(live, p->input + at + g * H), a = _mm512_loadu_si512(acc + g * LANES);
        if (!p->separate) {
            gate[g] = limited(requantised16(_mm512_add_epi32(x, a), p->bias + row, p->multiplier + row, p->shift + row), -32768, 32767);
        } else {
            __m512i v = requantised16(x, p->bias + row, p->multiplier + row, p->shift + row), lv = limited(v, -32768, 32767);
            __m512i w = requantised16(a, p->bias2 + row, p->multiplier2 + row, p->shift2 + row), lw = limited(w, -32768, 32767);
            store_bits(p->cut_input + at + g * H, _mm512_cmpneq_epi32_mask(v, lv), live);
            store_bits(p->cut_recurrent + at + g * H, _mm512_cmpneq_epi32_mask(w, lw), live);
            gate[g] = limited(_mm512_add_epi32(lv, lw), -32768, 32767);
        }
        _mm256_mask_storeu_epi16(p->pre + at + g * H, live, _mm512_cvtepi32_epi16(gate[g]));
    }
    __m512i in = look(p->sigmoid, gate[0], 0), forget = look(p->sigmoid, gate[1], 0), new = look(p->tanh, gate[2], 1);
    __m512i output = look(p->sigmoid, gate[3], 0), old = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(live, before));
    int shift = 30 - (int)p->fraction;
    __m512i kept = _mm512_srai_epi32(_mm512_add_epi32(_mm512_mullo_epi32(forget, old), _mm512_set1_epi32(1 << 14)), 15);
    __m512i came = _mm512_sra_epi32(_mm512_add_epi32(_mm512_mullo_epi32(in, new), _mm512_set1_epi32(1 << (shift - 1))), _mm_cvtsi32_si128(shift));
    __m512i c = limited(_mm512_add_epi32(kept, came), -32768, 32767);
    _mm256_mask_storeu_epi16(p->cs + out, live, _mm512_cvtepi32_epi16(c));
    __m512i product = _mm512_mullo_epi32(output, look(p->tanh_cell, c, 1)), m = _mm512_set1_epi64(p->hidden_multiplier);
    __m512i half = _mm512_set1_epi64((int64_t)1 << (p->hidden_shift - 1));
    __m128i s = _mm_cvtsi64_si128(p->hidden_shift);
    __m512i left = _mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(product)), m);
    __m512i right = _mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(product, 1)), m);
    __m512i free = narrow(_mm512_sra_epi64(_mm512_add_epi64(left, half), s), _mm512_sra_epi64(_mm512_add_epi64(right, half), s));
    __m512i h = limited(free, (int32_t)p->hidden_low, (int32_t)p->hidden_high);
    _mm_mask_storeu_epi8(p->hs + out, live, _mm512_cvtepi32_epi8(h));
    if (p->uncut) store_bits(p->uncut + out, _mm512_cmpeq_epi32_mask(h, free), live);
}

void nnac_forward(const Forward *p) {
    int64_t H = p->cells, B = p->batch, groups = (p->width + 3) / 4, pitch = groups * 4, tiles = (H + LANES - 1) / LANES;
    int32_t acc[6 * 4 * LANES];
    memset(p->scratch, 128, (size_t)(B * pitch));
    for (int64_t step = 0; step < p->steps; step++) {
        const int8_t *h = step ? p->hs + (step - 1) * B * H : p->hidden;
        for (int64_t b = 0; b < B; b++) for (int64_t k = 0; k < p->width; k++) p->scratch[b * pitch + k] = (uint8_t)(h[b * p->width + k] + 128);
        const int16_t *before = step ? p->cs + (step - 1) * B * H : p->cell;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int8_t *w = p->weights + tile * groups * 4 * LANES * 4;
            int64_t n = H - tile * LANES;
            __mmask16 live = n >= LANES ? 0xffff : (__mmask16)((1 << n) - 1);
            for (int64_t b = 0; b < B;) {
                const uint8_t *u = p->scratch + b * pitch;
                int64_t rows = B - b;
                if (rows >= 6) rows = 6, products(u, pitch, w, groups, acc, 6);
                else if (rows >= 4) rows = 4, products(u, pitch, w, groups, acc, 4);
                else if (rows >= 2) rows = 2, products(u, pitch, w, groups, acc, 2);
                else products(u, pitch, w, groups, acc, 1);
                for (int64_t r = 0; r < rows; r++) {
                    const int16_t *c = before + (b + r) * H + tile * LANES;
                    cells_of_a_tile(p, step, b + r, tile, acc + r * 4 * LANES, c, live);
                }
                b += rows;
            }
        }
    }
}

INLINE __m512 real(__m512i q15) { return _mm512_mul_ps(_mm512_cvtepi32_ps(q15), _mm512_set1_ps(1.0f / 32768.0f)); }

/* Where a 16-bit integer does not stand at a limit of its format. */
INLINE __mmask16 free16(__m512i x) {
    return _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(32767)) & _mm512_cmpgt_epi32_mask(x, _mm512_set1_epi32(-32768));
}

INLINE __m512i shorts(__mmask16 live, const int16_t *p) { return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(live, p)); }

/* One backward step without its product.  dh: d loss / d hidden integer from the later step; dc: d loss / d cell, real: both read, dc replaced.
   dz [batch, 4 cells]: d loss / d real pre-activation. */
void nnac_backward(int64_t batch, int64_t cells, float inverse, float unit, const float *dy, const float *dh, float *dc, float *dz,
                   const int16_t *pre, const int16_t *after, const int16_t *before, const uint8_t *uncut, const int32_t *sigmoid,
                   const int32_t *tanh, const int32_t *tanh_cell) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t j = 0; j < cells; j += LANES) {
            __mmask16 live = cells - j >= LANES ? 0xffff : (__mmask16)((1 << (cells - j)) - 1);
            const int16_t *p = pre + b * 4 * cells + j;
            int64_t at = b * cells + j;
            float *z = dz + b * 4 * cells + j;
            __m512i pi = shorts(live, p), pf = shorts(live, p + cells), pg = shorts(live, p + 2 * cells), po = shorts(live, p + 3 * cells);
            __m512i pc = shorts(live, after + at);
            __m512 i = real(look(sigmoid, pi, 0)), f = real(look(sigmoid, pf, 0)), g = real(look(tanh, pg, 1)), o = real(look(sigmoid, po, 0));
            __m512 t = real(look(tanh_cell, pc, 1)), old = _mm512_mul_ps(_mm512_cvtepi32_ps(shorts(live, before + at)), _mm512_set1_ps(unit));
            __m512 d = _mm512_mul_ps(_mm512_add_ps(_mm512_maskz_loadu_ps(live, dy + at), _mm512_maskz_loadu_ps(live, dh + at)),
                                     _mm512_set1_ps(inverse));
            if (uncut) d = _mm512_maskz_mov_ps(_mm512_test_epi32_mask(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(live, uncut + at)),
                                                                      _mm512_set1_epi32(1)), d);
            __m512 d_out = _mm512_mul_ps(d, t);
            __m512 d_cell = _mm512_maskz_add_ps(free16(pc), _mm512_maskz_loadu_ps(live, dc + at),
                                                _mm512_mul_ps(_mm512_mul_ps(d, o), _mm512_fnmadd_ps(t, t, one)));
            __m512 gi = _mm512_mul_ps(i, _mm512_sub_ps(one, i)), gf = _mm512_mul_ps(f, _mm512_sub_ps(one, f));
            __m512 gg = _mm512_fnmadd_ps(g, g, one), go = _mm512_mul_ps(o, _mm512_sub_ps(one, o));
            _mm512_mask_storeu_ps(z, live, _mm512_maskz_mul_ps(free16(pi), _mm512_mul_ps(d_cell, g), gi));
            _mm512_mask_storeu_ps(z + cells, live, _mm512_maskz_mul_ps(free16(pf), _mm512_mul_ps(d_cell, old), gf));
            _mm512_mask_storeu_ps(z + 2 * cells, live, _mm512_maskz_mul_ps(free16(pg), _mm512_mul_ps(d_cell, i), gg));
            _mm512_mask_storeu_ps(z + 3 * cells, live, _mm512_maskz_mul_ps(free16(po), d_out, go));
            _mm512_mask_storeu_ps(dc + at, live, _mm512_mul_ps(d_cell, f));
        }
    }
}

/* Requantise accumulators [count, rows] with constants [rows] to floats that hold the integers.  inside [count, rows] is 1 where nothing was
   cut.  Returns how many were cut. */
int64_t nnac_requantise(int64_t count, int64_t rows, const int32_t *acc, const int64_t *bias, const int64_t *multiplier, const int64_t *shift,
                        int64_t zero_point, int64_t low, int64_t high, float *out, uint8_t *inside) {
    int64_t cut = 0;
    __m512i zero = _mm512_set1_epi64(zero_point), least = _mm512_set1_epi64(low), most = _mm512_set1_epi64(high), one = _mm512_set1_epi64(1);
    for (int64_t j = 0; j < rows; j += 8) {
        __mmask8 live = rows - j >= 8 ? 0xff : (__mmask8)((1 << (rows - j)) - 1);
        __m512i b = _mm512_maskz_loadu_epi64(live, bias + j), m = _mm512_maskz_loadu_epi64(live, multiplier + j);
        __m512i s = _mm512_mask_loadu_epi64(one, live, shift + j), half = _mm512_sllv_epi64(one, _mm512_sub_epi64(s, one));
        for (int64_t i = 0; i < count; i++) {
            __m512i v = _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(live, acc + i * rows + j)), b);
            v = _mm512_add_epi64(_mm512_srav_epi64(_mm512_add_epi64(_mm512_mullo_epi64(v, m), half), s), zero);
            __m512i y = _mm512_max_epi64(_mm512_min_epi64(v, most), least);
            __mmask8 same = _mm512_cmpeq_epi64_mask(y, v);
            cut += __builtin_popcount((unsigned)(live & ~same));
            _mm256_mask_storeu_ps(out + i * rows + j, live, _mm512_cvtepi64_ps(y));
            _mm_mask_storeu_epi8(inside + i * rows + j, live, _mm_maskz_set1_epi8(same, 1));
        }
    }
    return cut;
}

/* A table of x (floats that hold 16-bit integers), requantised to [low, high]; odd: f(-x) = -f(x), else 1 - f(x). */
void nnac_lookup(int64_t count, const float *x, const int32_t *table, int64_t odd, int64_t multiplier, int64_t shift, int64_t zero_point,
                 int64_t low, int64_t high, float *out) {
    __m512i m = _mm512_set1_epi64(multiplier), half = _mm512_set1_epi64((int64_t)1 << (shift - 1)), zero = _mm512_set1_epi32((int32_t)zero_point);
    __m128i s = _mm_cvtsi64_si128(shift);
    for (int64_t i = 0; i < count; i += LANES) {
        __mmask16 live = count - i >= LANES ? 0xffff : (__mmask16)((1 << (count - i)) - 1);
        __m512i at = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(live, x + i)), y = odd ? look(table, at, 1) : look(table, at, 0);
        __m512i a = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(y)), m), half), s);
        __m512i b = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(y, 1)), m), half), s);
        __m512i v = limited(_mm512_add_epi32(narrow(a, b), zero), (int32_t)low, (int32_t)high);
        _mm512_mask_storeu_ps(out + i, live, _mm512_cvtepi32_ps(v));
    }
}

/* Its gradient: g * ratio * slope, slope 1 - t^2 (odd: tanh) or t (1 - t) (sigmoid) of the table's own output t, none where the output is cut:
   where |multiplier t + ...| leaves [low, high], that is t outside [least, most] (in Q0.15). */
void nnac_lookup_backward(int64_t count, const float *x, const float *g, const int32_t *table, int64_t odd, float ratio, int64_t least,
                          int64_t most, float *out) {
    const __m512 one = _mm512_set1_ps(1.0f), by = _mm512_set1_ps(ratio);
    const __m512i low = _mm512_set1_epi32((int32_t)least), high = _mm512_set1_epi32((int32_t)most);
    for (int64_t i = 0; i < count; i += LANES) {
        __mmask16 live = count - i >= LANES ? 0xffff : (__mmask16)((1 << (count - i)) - 1);
        __m512i at = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(live, x + i)), y = odd ? look(table, at, 1) : look(table, at, 0);
        __m512 t = real(y), slope = odd ? _mm512_fnmadd_ps(t, t, one) : _mm512_mul_ps(t, _mm512_sub_ps(one, t));
        __mmask16 inside = _mm512_cmpge_epi32_mask(y, low) & _mm512_cmple_epi32_mask(y, high);
        _mm512_mask_storeu_ps(out + i, live, _mm512_maskz_mul_ps(inside, _mm512_mul_ps(_mm512_maskz_loadu_ps(live, g + i), slope), by));
    }
}
