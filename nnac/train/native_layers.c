/* What a Conformer is made of besides products and its norms: gates, sums that broadcast, depthwise convolution over a
   ring, scores and weighted sums of attention, and how their gradients come back; the constants of weights and norms,
   which training makes at every step.  Part of native.c, which includes it.

   Values are floats that hold integers; every sum of their products stays below 2^24, so float32 adds them exactly in
   any order.  Gradients are added lane by lane in one order, so they are the same bits on every processor.
*/

/* ----------------------------------------------------------------------------------------------------------- gates */

/* Some of nnac_gate's outputs: a f(b) is at most 2^30, so its product with the multiplier is one of 32 bits each. */
INLINE void some_gates(const float *a, const float *b, const int32_t *table, Longs multiplier, Longs shift,
                       int64_t zero_point, int64_t low, int64_t high, float *out, int16_t *kept, const int n) {
    Ints weight = look(table, __builtin_convertvector(floats_at(b, n), Ints), 0), same;
    Wide y = widened(__builtin_convertvector(floats_at(a, n), Ints) * weight);
    y = (Wide){round_shift(product32(y.low, multiplier), shift), round_shift(product32(y.high, multiplier), shift)};
    store_floats(out, __builtin_convertvector(cut_off(y, zero_point, low, high, &same), Floats), n);
    if (kept) store_shorts_of(kept, weight & same, n);
}

/* Rows of ``width`` outputs a f(b): a and b begin their rows ``pitch`` apart.  kept  f(b) in Q0.15, 0 where the output
   was cut, for the gradient, or null */
void nnac_gate(int64_t count, int64_t width, int64_t pitch, const float *a, const float *b, const int32_t *table,
               int64_t multiplier, int64_t shift, int64_t zero_point, int64_t low, int64_t high, float *out,
               int16_t *kept) {
    Longs m = longs(multiplier), s = longs(shift);
    for (int64_t i = 0; i < count; i++, a += pitch, b += pitch, out += width, kept += kept ? width : 0) {
        int64_t j = 0;
#define GATES(n) some_gates(a + j, b + j, table, m, s, zero_point, low, high, out + j, kept ? kept + j : 0, n)
        for (; j + LANES <= width; j += LANES) GATES(LANES);
        if (j < width) GATES((int)(width - j));
    }
}

INLINE void some_gate_slopes(const float *a, const int16_t *kept, const float *g, float slope, float unit, float *to,
                             float *other, const int n) {
    Floats f = real(shorts(kept, n)), by_a = floats_at(g, n) * f * slope;
    Floats by_b = by_a * (1.0f - f) * floats_at(a, n) * unit;
    if (other) store_floats(to, by_a, n), store_floats(other, by_b, n);
    else store_floats(to, by_a + by_b, n);
}

/* Gradients g of nnac_gate's outputs, to rows of ``pitch``: those of a and of b side by side, or where both are one
   value (``pitch`` is ``width``) their sum.  slope  a's scale over the output's      unit  b's scale */
void nnac_gate_backward(int64_t count, int64_t width, int64_t pitch, const float *a, const int16_t *kept, const float *g,
                        float slope, float unit, float *out) {
    for (int64_t i = 0; i < count; i++, a += pitch, kept += width, g += width, out += pitch) {
        int64_t j = 0;
#define GATE_SLOPES(n)                                                                                                 \
    some_gate_slopes(a + j, kept + j, g + j, slope, unit, out + j, pitch == width ? 0 : out + width + j, n)
        for (; j + LANES <= width; j += LANES) GATE_SLOPES(LANES);
        if (j < width) GATE_SLOPES((int)(width - j));
    }
}

/* ---------------------------------------------------------------------------------------------- gradients of products */

INLINE void some_scaled(int64_t count, int64_t cols, const float *g, const uint8_t *inside, float inverse,
                        const float *factor, float *out, float *total, const int n) {
    Floats sum = floats_at(total, n), by = factor ? floats_at(factor, n) : floats(1.0f);
    for (int64_t i = 0; i < count; i++) {
        Floats d = floats_at(g + i * cols, n) * inverse;
        if (inside) d = where(__builtin_convertvector(bytes_at(inside + i * cols, n), Ints) != 0, d);
        sum += d;
        store_floats(out + i * cols, d * by, n);
    }
    store_floats(total, sum, n);
}

/* g [count, cols] where nothing was cut (``inside``, or null), times ``inverse``: added row by row to ``total`` [cols],
   and times ``factor`` [cols] (null: 1) into ``out``. */
void nnac_scaled(int64_t count, int64_t cols, const float *g, const uint8_t *inside, float inverse, const float *factor,
                 float *out, float *total) {
#define SCALED(n)                                                                                                      \
    some_scaled(some, cols, g + at + j, inside ? inside + at + j : 0, inverse, factor ? factor + j : 0, out + at + j,  \
                total + j, n)
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t some = count - i < BLOCK ? count - i : BLOCK, at = i * cols, j = 0;
        for (; j + LANES <= cols; j += LANES) SCALED(LANES);
        if (j < cols) SCALED((int)(cols - j));
    }
}

INLINE void some_passed(const float *g, const uint8_t *pass_a, const uint8_t *pass_b, float slope_a, float slope_b,
                        float *out_a, float *out_b, const int n) {
    Floats d = floats_at(g, n);
    store_floats(out_a, where(__builtin_convertvector(bytes_at(pass_a, n), Ints) != 0, d * slope_a), n);
    store_floats(out_b, where(__builtin_convertvector(bytes_at(pass_b, n), Ints) != 0, d * slope_b), n);
}

/* Gradients g of sums, to both terms: where they pass, times their slopes. */
void nnac_passed(int64_t count, const float *g, const uint8_t *pass_a, const uint8_t *pass_b, float slope_a,
                 float slope_b, float *out_a, float *out_b) {
    int64_t i = 0;
#define PASSED(n) some_passed(g + i, pass_a + i, pass_b + i, slope_a, slope_b, out_a + i, out_b + i, n)
    for (; i + LANES <= count; i += LANES) PASSED(LANES);
    if (i < count) PASSED((int)(count - i));
}

/* ------------------------------------------------------------------------------------------- sums that are broadcast */

/* Rows of ``width`` numbers [sizes], each at its own strides of a and of b, 0 where all share a row. */
typedef struct {
    int64_t sizes[3], of_a[3], of_b[3], width;
} Broadcast;

#define EACH_ROW(p)                                                                                                    \
    int64_t row = 0;                                                                                                   \
    for (int64_t i = 0; i < (p)->sizes[0]; i++)                                                                        \
        for (int64_t j = 0; j < (p)->sizes[1]; j++)                                                                    \
            for (int64_t k = 0; k < (p)->sizes[2]; k++, row += (p)->width)
#define PLACE(of) (i * (of)[0] + j * (of)[1] + k * (of)[2])

INLINE Ints some_broadcast(const float *a, const float *b, float low, float high, float *out, uint8_t *inside,
                           const int n) {
    Floats sum = floats_at(a, n) + floats_at(b, n);
    Ints y = limited(__builtin_convertvector(sum, Ints), (int32_t)low, (int32_t)high);
    Floats kept = __builtin_convertvector(y, Floats);
    Ints same = kept == sum;
    store_floats(out, kept, n);
    store_flags(inside, same, n);
    return same + 1;
}

/* sat(a + b) of floats that hold integers, with ``inside``: where nothing was cut.  Returns how often something was. */
int64_t nnac_broadcast(const Broadcast *p, const float *a, const float *b, int64_t low, int64_t high, float *out,
                       uint8_t *inside) {
    Ints cuts = {0}, last = {0};
    EACH_ROW(p) {
        const float *from_a = a + PLACE(p->of_a), *from_b = b + PLACE(p->of_b);
        int64_t d = 0;
#define SUM(n) some_broadcast(from_a + d, from_b + d, (float)low, (float)high, out + row + d, inside + row + d, n)
        for (; d + LANES <= p->width; d += LANES) cuts += SUM(LANES);
        if (d < p->width) last += SUM((int)(p->width - d));
    }
    return count_of(cuts, LANES) + count_of(last, (int)(p->width % LANES));
}

INLINE void some_gathered(const float *g, const uint8_t *inside, float *to_a, float *to_b, const int n) {
    Floats d = floats_at(g, n);
    if (inside) d = where(__builtin_convertvector(bytes_at(inside, n), Ints) != 0, d);
    store_floats(to_a, floats_at(to_a, n) + d, n);
    store_floats(to_b, floats_at(to_b, n) + d, n);
}

/* Gradients g of such sums where nothing was cut (``inside``, or null), added to those of a and b. */
void nnac_broadcast_backward(const Broadcast *p, const float *g, const uint8_t *inside, float *to_a, float *to_b) {
    EACH_ROW(p) {
        float *own_a = to_a + PLACE(p->of_a), *own_b = to_b + PLACE(p->of_b);
        int64_t d = 0;
#define GATHERED(n) some_gathered(g + row + d, inside ? inside + row + d : 0, own_a + d, own_b + d, n)
        for (; d + LANES <= p->width; d += LANES) GATHERED(LANES);
        if (d < p->width) GATHERED((int)(p->width - d));
    }
}

/* ------------------------------------------------------------------------------------------------------ convolution */

INLINE int64_t some_channels(int64_t count, int64_t step, int64_t channels, int64_t taps, const float *past,
                             const float *w, const Scaling *exact, const int64_t *bias, const int64_t *multiplier,
                             const int64_t *shift, int64_t zero_point, int64_t low, int64_t high, float *out,
                             uint8_t *inside, const int n) {
    Ints cuts = {0}, same;
    for (int64_t i = 0; i < count; i++) {
        Floats sum = {0};
        for (int64_t k = 0; k < taps; k++)
            sum += floats_at(w + k * channels, n) * floats_at(past + i * channels + k * step, n);
        Ints x = __builtin_convertvector(sum, Ints);
        Ints y = exact ? rescaled(x, exact, &same)
                       : cut_off(requantised(x, bias, multiplier, shift), zero_point, low, high, &same);
        cuts += same + 1;
        store_floats(out + i * channels, __builtin_convertvector(y, Floats), n);
        store_flags(inside + i * channels, same, n);
    }
    return count_of(cuts, n);
}

/* Depthwise convolution of past [taps - 1 + frames, batch, channels] with w [taps, channels], requantised, into out and
   inside (1 where nothing was cut) [frames, batch, channels]: by factors and offsets, or where those are null by bias,
   multiplier and shift.  Returns how many were cut. */
int64_t nnac_depthwise(int64_t frames, int64_t batch, int64_t channels, int64_t taps, const float *past, const float *w,
                       const double *factor, const double *offset, const int64_t *bias, const int64_t *multiplier,
                       const int64_t *shift, int64_t zero_point, int64_t low, int64_t high, float *out,
                       uint8_t *inside) {
    int64_t cut = 0;
    Scaling by = scaling(0.0, 0.0, zero_point, low, high);
#define CHANNELS(exact, n)                                                                                             \
    some_channels(frames *batch, batch *channels, channels, taps, past + c, w + c, exact, b, m, s, zero_point, low,    \
                  high, out + c, inside + c, n)
    for (int64_t c = 0; c < channels; c += LANES) {
        int n = channels - c >= LANES ? LANES : (int)(channels - c);
        int64_t b[LANES] = {0}, m[LANES] = {0}, s[LANES];
        for (int k = 0; k < LANES; k++) s[k] = 1;
        if (factor) {
            double f[LANES] = {0}, o[LANES] = {0};
            memcpy(f, factor + c, (size_t)n * 8), memcpy(o, offset + c, (size_t)n * 8);
            by.factor = pair_at(f), by.offset = pair_at(o);
            cut += n == LANES ? CHANNELS(&by, LANES) : CHANNELS(&by, n);
        } else {
            memcpy(b, bias + c, (size_t)n * 8), memcpy(m, multiplier + c, (size_t)n * 8);
            memcpy(s, shift + c, (size_t)n * 8);
            cut += CHANNELS(0, n);
        }
    }
    return cut;
}

INLINE void some_taps(int64_t count, int64_t step, int64_t channels, int64_t taps, const float *past, const float *w,
                      const float *g, float *to_past, float *to_w, const int n) {
    for (int64_t i = 0; i < count; i++) {
        Floats d = floats_at(g + i * channels, n);
        for (int64_t k = 0; k < taps; k++) {
            int64_t at = i * channels + k * step;
            store_floats(to_past + at, floats_at(to_past + at, n) + d * floats_at(w + k * channels, n), n);
            store_floats(to_w + k * channels, floats_at(to_w + k * channels, n) + d * floats_at(past + at, n), n);
        }
    }
}

/* Gradients g [frames, batch, channels] of the sums of nnac_depthwise, added to those of past and w. */
void nnac_depthwise_backward(int64_t frames, int64_t batch, int64_t channels, int64_t taps, const float *past,
                             const float *w, const float *g, float *to_past, float *to_w) {
    int64_t c = 0;
#define TAPS(n)                                                                                                        \
    some_taps(frames *batch, batch *channels, channels, taps, past + c, w + c, g + c, to_past + c, to_w + c, n)
    for (; c + LANES <= channels; c += LANES) TAPS(LANES);
    if (c < channels) TAPS((int)(channels - c));
}

/* -------------------------------------------------------------------------------------------------------- attention */

/* Attention of chunks: each step's queries hear the ``rows`` rows that end with their own chunk. */
typedef struct {
    int64_t steps, batch, heads, head, chunk, rows;
} Attention;

INLINE int64_t padded(int64_t n) { return (n + TILE - 1) / TILE * TILE; }

/* Rows of keys or values that there are. */
INLINE int64_t all_rows(const Attention *a) { return a->rows + (a->steps - 1) * a->chunk; }

/* Floats of scratch that the functions below need: one head's rows turned, what a vector reads beyond them, and numbers
   of every query and row. */
int64_t nnac_attention_scratch(const Attention *a) {
    return a->head * (all_rows(a) + padded(a->rows)) + a->chunk * padded(a->rows);
}

/* rows [n, pitch] of which ``head`` columns are turned into to [head, next], with zeros at the end.  Row by row: where
   the pitch is a power of two, all rows share a few places of the cache. */
INLINE void turn(const float *rows, int64_t n, int64_t pitch, int64_t head, int64_t next, float *to) {
    for (int64_t j = 0; j < n; j++)
        for (int64_t d = 0; d < head; d++) to[d * next + j] = rows[j * pitch + d];
    for (int64_t d = 0; d < head; d++)
        for (int64_t j = n; j < next; j++) to[d * next + j] = 0.0f;
}

enum { TOGETHER = 4 }; /* queries that share what is read of a row */

/* sums [queries, padded(n)] = x [queries, head], each ``step`` apart, times turned rows [head, next]. */
INLINE void some_inner(const float *x, int64_t step, const float *turned, int64_t n, int64_t head, int64_t next,
                       float *sums, const int queries) {
    for (int64_t j = 0; j < n; j += LANES) {
        Floats sum[TOGETHER];
        for (int c = 0; c < queries; c++) sum[c] = floats(0.0f);
        for (int64_t d = 0; d < head; d++) {
            Floats row = floats_at(turned + d * next + j, LANES);
            for (int c = 0; c < queries; c++) sum[c] += x[c * step + d] * row;
        }
        for (int c = 0; c < queries; c++) store_floats(sums + c * padded(n) + j, sum[c], LANES);
    }
}

INLINE void inner(const float *x, int64_t step, const float *turned, int64_t n, int64_t head, int64_t next, float *sums,
                  int64_t queries) {
    int64_t c = 0;
    for (; c + TOGETHER <= queries; c += TOGETHER)
        some_inner(x + c * step, step, turned, n, head, next, sums + c * padded(n), TOGETHER);
    for (; c < queries; c++) some_inner(x + c * step, step, turned, n, head, next, sums + c * padded(n), 1);
}

/* What one head of one utterance works on, and each step of it. */
#define SIZES int64_t width = a->heads * a->head, every = a->heads * a->rows, stride = a->batch * width
#define EACH_HEAD                                                                                                      \
    for (int64_t b = 0; b < a->batch; b++)                                                                             \
        for (int64_t h = 0; h < a->heads; h++)
#define EACH_STEP for (int64_t t = 0; t < a->steps; t++)
#define RING(x) ((x) + (t * a->chunk * a->batch + b) * width + h * a->head)  /* the oldest row that is heard */
#define FRAME(c) ((t * a->chunk + (c)) * a->batch + b)
/* F(from, number): all queries of a chunk, some together. */
#define EACH_QUERY(F)                                                                                                  \
    do {                                                                                                               \
        int64_t c = 0;                                                                                                 \
        for (; c + TOGETHER <= a->chunk; c += TOGETHER) F(c, TOGETHER);                                                \
        for (; c < a->chunk; c++) F(c, 1);                                                                             \
    } while (0)

/* Some scores from sums of products. */
INLINE void some_scores(const float *sums, const int32_t *bias, const Scaling *exact, Longs m, Longs s, int64_t low,
                        int64_t high, float *y, uint8_t *inside, const int n) {
    Ints x = __builtin_convertvector(floats_at(sums, LANES), Ints) + ints_at(bias, n), same, kept;
    if (exact) kept = rescaled(x, exact, &same);
    else {
        Wide v = widened(x);
        v = (Wide){round_shift(times(v.low, m), s), round_shift(times(v.high, m), s)};
        kept = cut_off(v, 0, low, high, &same);
    }
    store_floats(y, __builtin_convertvector(kept, Floats), n);
    store_flags(inside, same, n);
}

/* Scores of queries q [steps * chunk, batch, width] and keys k [rows + (steps - 1) * chunk, batch, width] into y and
   inside [steps * chunk, batch, heads * rows].  bias [heads, chunk, rows]; first [steps, batch]: the oldest row that
   was ever written; ``absent`` for those before it.  factor: exact in doubles, or 0 and multiplier and shift say it. */
void nnac_scores(const Attention *a, const float *q, const float *k, const int32_t *bias, const int64_t *first,
                 double factor, int64_t multiplier, int64_t shift, int64_t low, int64_t high, float absent,
                 float *scratch, float *y, uint8_t *inside) {
    SIZES;
    int64_t next = all_rows(a) + padded(a->rows) - a->rows;
    float *sums = scratch + a->head * next;
    Longs m = longs(multiplier), s = longs(shift);
    Scaling by = scaling(factor, 0.5, 0, low, high);
    EACH_HEAD {
        turn(k + b * width + h * a->head, all_rows(a), stride, a->head, next, scratch);
        EACH_STEP {
            int64_t there = first[t * a->batch + b];
            inner(q + FRAME(0) * width + h * a->head, stride, scratch + t * a->chunk, a->rows, a->head, next, sums,
                  a->chunk);
            for (int64_t c = 0; c < a->chunk; c++) {
                int64_t to = FRAME(c) * every + h * a->rows, j = 0;
                const int32_t *own = bias + (h * a->chunk + c) * a->rows;
                const float *sum = sums + c * padded(a->rows);
#define SCORES(exact, n) some_scores(sum + j, own + j, exact, m, s, low, high, y + to + j, inside + to + j, n)
                if (factor != 0.0)
                    for (; j + LANES <= a->rows; j += LANES) SCORES(&by, LANES);
                for (; j < a->rows; j += LANES) {
                    int n = a->rows - j >= LANES ? LANES : (int)(a->rows - j);
                    if (factor != 0.0) SCORES(&by, n);
                    else SCORES(0, n);
                }
                for (j = 0; j < there; j++) y[to + j] = absent, inside[to + j] = 0;
            }
        }
    }
}

/* Slopes d [queries, rows], each ``pitch`` apart, of products of queries and rows: what some columns of queries and rows
   [.., stride apart] get of them. */
INLINE void some_product_slopes(const float *d, int64_t pitch, int64_t rows, int64_t stride, const float *queries,
                                const float *keys, float *to_queries, float *to_keys, const int count, const int n) {
    Floats query[TOGETHER], sum[TOGETHER];
    for (int c = 0; c < count; c++) query[c] = floats_at(queries + c * stride, n), sum[c] = floats(0.0f);
    for (int64_t j = 0; j < rows; j++) {
        Floats key = floats_at(keys + j * stride, n), to = floats_at(to_keys + j * stride, n);
        for (int c = 0; c < count; c++) {
            to += d[c * pitch + j] * query[c];
            sum[c] += d[c * pitch + j] * key;
        }
        store_floats(to_keys + j * stride, to, n);
    }
    for (int c = 0; c < count; c++) store_floats(to_queries + c * stride, sum[c], n);
}

/* Gradients g of nnac_scores' outputs: of q (set), added to those of k and, for the sums, of bias [heads, chunk, rows].
   unit  of a product over that of an output */
void nnac_scores_backward(const Attention *a, const float *q, const float *k, const float *g, const uint8_t *inside,
                          float unit, float *scratch, float *to_q, float *to_k, float *to_bias) {
    SIZES;
    EACH_STEP EACH_HEAD {
        for (int64_t c = 0; c < a->chunk; c++) {
            int64_t from = FRAME(c) * every + h * a->rows;
            float *by_bias = to_bias + (h * a->chunk + c) * a->rows;
            for (int64_t j = 0; j < a->rows; j++) {
                float d = inside[from + j] ? g[from + j] : 0.0f;
                by_bias[j] += d, scratch[c * a->rows + j] = d * unit;
            }
        }
#define PRODUCT_SLOPES(c, count)                                                                                       \
    do {                                                                                                               \
        int64_t at = FRAME(c) * width + h * a->head, d = 0;                                                            \
        const float *slopes = scratch + c * a->rows;                                                                   \
        for (; d + LANES <= a->head; d += LANES)                                                                       \
            some_product_slopes(slopes, a->rows, a->rows, stride, q + at + d, RING(k) + d, to_q + at + d,              \
                                RING(to_k) + d, count, LANES);                                                         \
        if (d < a->head)                                                                                               \
            some_product_slopes(slopes, a->rows, a->rows, stride, q + at + d, RING(k) + d, to_q + at + d,              \
                                RING(to_k) + d, count, (int)(a->head - d));                                            \
    } while (0)
        EACH_QUERY(PRODUCT_SLOPES);
    }
}

INLINE Ints some_weighted(const float *weights, int64_t every, int64_t rows, const float *v, int64_t stride,
                          const Scaling *by, float *y, uint8_t *inside, const int count, const int n) {
    Floats sum[TOGETHER];
    Ints cuts = {0}, same;
    for (int c = 0; c < count; c++) sum[c] = floats(0.0f);
    for (int64_t j = 0; j < rows; j++) {
        Floats row = floats_at(v + j * stride, n);
        for (int c = 0; c < count; c++) sum[c] += weights[c * every + j] * row;
    }
    for (int c = 0; c < count; c++) {
        Ints kept = rescaled(__builtin_convertvector(sum[c], Ints), by, &same);
        store_floats(y + c * stride, __builtin_convertvector(kept, Floats), n);
        store_flags(inside + c * stride, same, n);
        cuts += same + 1;
    }
    return cuts;
}

/* Sums of values v [rows + (steps - 1) * chunk, batch, width] weighed by p [steps * chunk, batch, heads * rows],
   requantised, into y and inside [steps * chunk, batch, width].  Returns how many were cut. */
int64_t nnac_weighted_sum(const Attention *a, const float *p, const float *v, double factor, int64_t low, int64_t high,
                          float *y, uint8_t *inside) {
    SIZES;
    Ints cuts = {0}, last = {0};
    Scaling by = scaling(factor, 0.5, 0, low, high);
    EACH_STEP EACH_HEAD {
#define WEIGHTED(count, n)                                                                                             \
    some_weighted(weights, a->batch * every, a->rows, RING(v) + d, stride, &by, y + to + d, inside + to + d, count, n)
#define WEIGHTED_SUMS(c, count)                                                                                        \
    do {                                                                                                               \
        const float *weights = p + FRAME(c) * every + h * a->rows;                                                     \
        int64_t to = FRAME(c) * width + h * a->head, d = 0;                                                            \
        for (; d + LANES <= a->head; d += LANES) cuts += WEIGHTED(count, LANES);                                       \
        if (d < a->head) last += WEIGHTED(count, (int)(a->head - d));                                                  \
    } while (0)
        EACH_QUERY(WEIGHTED_SUMS);
    }
    return count_of(cuts, LANES) + count_of(last, (int)(a->head % LANES));
}

/* What some columns of rows get of gradients g [queries, stride apart], weighed by p [queries, every apart]. */
INLINE void some_spread(const float *p, int64_t every, int64_t rows, int64_t stride, const float *g, float *to,
                        const int count, const int n) {
    Floats by[TOGETHER];
    for (int c = 0; c < count; c++) by[c] = floats_at(g + c * stride, n);
    for (int64_t j = 0; j < rows; j++) {
        Floats sum = floats_at(to + j * stride, n);
        for (int c = 0; c < count; c++) sum += p[c * every + j] * by[c];
        store_floats(to + j * stride, sum, n);
    }
}

/* Gradients g of the sums of nnac_weighted_sum: of p (set), and added to those of v. */
void nnac_weighted_sum_backward(const Attention *a, const float *p, const float *v, const float *g, float *scratch,
                                float *to_p, float *to_v) {
    SIZES;
    int64_t next = all_rows(a) + padded(a->rows) - a->rows;
    float *sums = scratch + a->head * next;
    EACH_HEAD {
        turn(v + b * width + h * a->head, all_rows(a), stride, a->head, next, scratch);
        EACH_STEP {
            inner(g + FRAME(0) * width + h * a->head, stride, scratch + t * a->chunk, a->rows, a->head, next, sums,
                  a->chunk);
            for (int64_t c = 0; c < a->chunk; c++)
                memcpy(to_p + FRAME(c) * every + h * a->rows, sums + c * padded(a->rows), (size_t)a->rows * 4);
#define SPREAD(count, n) some_spread(weights, a->batch * every, a->rows, stride, g + at + d, RING(to_v) + d, count, n)
#define SPREADS(c, count)                                                                                              \
    do {                                                                                                               \
        const float *weights = p + FRAME(c) * every + h * a->rows;                                                     \
        int64_t at = FRAME(c) * width + h * a->head, d = 0;                                                            \
        for (; d + LANES <= a->head; d += LANES) SPREAD(count, LANES);                                                 \
        if (d < a->head) SPREAD(count, (int)(a->head - d));                                                            \
    } while (0)
            EACH_QUERY(SPREADS);
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------- weights */

/* The largest magnitude of n floats as its bits, which order magnitudes; what is no number is the largest. */
INLINE int32_t largest_bits(const float *x, int64_t n) {
    Ints found = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) found = most(found, ints_at((const int32_t *)(x + j), LANES) & INT32_MAX);
    if (j < n) found = most(found, ints_at((const int32_t *)(x + j), (int)(n - j)) & INT32_MAX);
    int32_t largest = 0;
    for (int k = 0; k < LANES; k++) largest = found[k] > largest ? found[k] : largest;
    return largest;
}

/* Codes of some weights, rounded half to even; returns them. */
INLINE Ints some_codes(const float *w, float over_unit, int32_t top, float *codes, int8_t *bytes, const int n) {
    const Floats whole = floats(12582912.0f); /* 3 2^22: next to it floats are integers */
    Floats q = floats_at(w, n) * over_unit + whole - whole;
    Ints code = limited(__builtin_convertvector(q, Ints), -top, top);
    store_floats(codes, __builtin_convertvector(code, Floats), n);
    store_bytes_of(bytes, code, n);
    return code;
}

/* arith.multiplier_and_shift of a positive number; 0 where the shift is none. */
INLINE int multiplier_of(double scale, int64_t bits, int64_t *multiplier, int64_t *shift) {
    uint64_t word;
    memcpy(&word, &scale, 8);
    int64_t exponent = (int64_t)(word >> 52) - 1022;
    if (exponent == -1022 || exponent > 1023) return 0;
    word = (word & (((uint64_t)1 << 52) - 1)) | (uint64_t)1022 << 52;
    double fraction;
    memcpy(&fraction, &word, 8);
    int64_t m = (int64_t)(fraction * (double)((int64_t)1 << bits) + 0.5), over = m == (int64_t)1 << bits;
    *multiplier = m >> over, *shift = bits - exponent - over;
    return *shift >= 1 && *shift <= 62;
}

typedef struct {
    int64_t rows, cols, top, multiplier_bits, in_zero;
    double in_scale, out_scale, products, most, most_bias; /* what products and biases may come to */
    const float *w, *bias;                                 /* [rows, cols]; [rows] or null */
    float *codes, *unit, *acc_scale;
    int8_t *bytes, *turned;                /* [rows, cols]; [cols, rows], or null */
    double *factor, *offset;
    int64_t *multiplier, *shift, *biases;  /* [rows], as what is above */
    int64_t largest_bias, largest_multiplier;
} Weights;

/* A matrix on grids of its rows' largest magnitudes, with what `bind.linear_scales` and `Rescale.of` say of it.
   Returns 0 where a number does not fit: then they say which, or what becomes of it. */
int64_t nnac_weights(Weights *p) {
    double least_unit = 0.0, bias_magnitude = 0.0;
    for (int64_t r = 0; r < p->rows; r++) {
        int32_t bits = largest_bits(p->w + r * p->cols, p->cols);
        if (bits >= 0x7f800000) return 0;
        float reach;
        memcpy(&reach, &bits, 4);
        float unit = reach / (float)p->top;
        p->unit[r] = unit = unit < 0x1p-18f ? 0x1p-18f : unit;
        if (!r || unit < least_unit) least_unit = unit;
        if (p->bias) {
            double b = p->bias[r] < 0 ? -(double)p->bias[r] : (double)p->bias[r];
            if (!(b <= 3.5e38)) return 0;
            if (b > bias_magnitude) bias_magnitude = b;
        }
    }
    double least = least_unit * p->in_scale;
    if (!(bias_magnitude / least + p->products < p->most && bias_magnitude / least < p->most_bias)) return 0;
    p->largest_bias = p->largest_multiplier = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        float unit = p->unit[r], over_unit = 1.0f / unit;
        Ints sums = {0};
        int64_t at = r * p->cols, j = 0, sum = 0;
        for (; j + LANES <= p->cols; j += LANES)
            sums += some_codes(p->w + at + j, over_unit, (int32_t)p->top, p->codes + at + j, p->bytes + at + j, LANES);
        if (j < p->cols)
            sums += some_codes(p->w + at + j, over_unit, (int32_t)p->top, p->codes + at + j, p->bytes + at + j,
                               (int)(p->cols - j));
        for (int k = 0; k < LANES; k++) sum += sums[k];
        p->acc_scale[r] = unit * (float)p->in_scale;
        double acc = (double)unit * p->in_scale, b = p->bias ? (double)p->bias[r] / acc + 0.5 : 0.5;
        int64_t m, s, whole = (int64_t)b;
        if (!multiplier_of(acc / p->out_scale, p->multiplier_bits, &m, &s)) return 0;
        whole -= (double)whole > b;
        whole -= p->in_zero * sum;
        uint64_t power = (uint64_t)(1023 - s) << 52;
        double scale;
        memcpy(&scale, &power, 8);
        p->multiplier[r] = m, p->shift[r] = s, p->biases[r] = whole;
        p->factor[r] = (double)m * scale, p->offset[r] = p->factor[r] * (double)whole + 0.5;
        whole = whole < 0 ? -whole : whole;
        if (whole > p->largest_bias) p->largest_bias = whole;
        if (m > p->largest_multiplier) p->largest_multiplier = m;
    }
    if (p->turned)
        for (int64_t r = 0; r < p->rows; r += TILE)
            for (int64_t k = 0; k < p->cols; k++)
                for (int64_t i = r; i < r + TILE && i < p->rows; i++)
                    p->turned[k * p->rows + i] = p->bytes[i * p->cols + k];
    return 1;
}

/* What `bind.layer_norm` says of gain and bias [width]: integers, as many as are a multiple of TILE, zeros at the end,
   multiplier and shift.  most_bias: the greatest bias.  Returns 0 where a number does not fit: then it says which. */
int64_t nnac_norm_constants(int64_t width, const float *gain, const float *bias, double out_scale,
                            int64_t multiplier_bits, double most_bias, int64_t *gains, int64_t *biases,
                            int64_t *multiplier, int64_t *shift) {
    int32_t bits = largest_bits(gain, width), bias_bits = largest_bits(bias, width);
    if (bits >= 0x7f800000 || bias_bits >= 0x7f800000) return 0;
    float largest, largest_bias;
    memcpy(&largest, &bits, 4), memcpy(&largest_bias, &bias_bits, 4);
    double gain_scale = (double)largest / 32767, by_bias = (double)largest_bias * 4096.0 / most_bias;
    if (gain_scale < 1e-6 / 32767) gain_scale = 1e-6 / 32767;
    if (gain_scale < by_bias) gain_scale = by_bias;
    double unit = gain_scale * 0x1p-12;
    if (!multiplier_of(unit / out_scale, multiplier_bits, multiplier, shift)) return 0;
    for (int64_t j = 0; j < width; j++) {
        double g = (double)gain[j] / gain_scale + 0.5, b = (double)bias[j] / unit + 0.5;
        if (!(b >= -most_bias && b < most_bias + 1.0)) return 0;
        gains[j] = (int64_t)g, biases[j] = (int64_t)b;
        gains[j] -= (double)gains[j] > g, biases[j] -= (double)biases[j] > b;
    }
    for (int64_t j = width; j % TILE; j++) gains[j] = biases[j] = 0;
    return 1;
}
