/* combine_vector.h - combine and store in vectors, for whichever instruction set includes this; the
 * bits of combine_c.c.
 *
 * A NaN of combine may differ from the specification's in sign and payload, which is why store
 * leaves one kind only.
 *
 * The including file has the vectors of vector_<isa>.h, fp4_load_<isa>, which reads LANES elements
 * of y from number i on, and put, which writes them and makes every NaN that one kind. */
#ifndef FP4MOE_COMBINE_VECTOR_H
#define FP4MOE_COMBINE_VECTOR_H

/* One row. The bias is a branch outside of the loop over columns. */
static inline void combine_row(const fp4moe_combine_args *a, size_t r, int biased) {
  const vec scale = set(a->scale), weight = set(a->weight[r]);
  const float *acc = a->acc + r * a->acc_stride;
  float *y = a->y + a->index[r] * a->y_stride;
  for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += LANES) {
    const vec sum = load(acc + c);
    const vec v = biased ? fmadd(sum, scale, load(a->bias + c)) : mul(sum, scale);
    store(y + c, fmadd(weight, v, load(y + c)));
  }
}

static inline void combine(const fp4moe_combine_args *a) {
  for (size_t r = 0; r < a->m; r++)
    if (a->bias)
      combine_row(a, r, 1);
    else
      combine_row(a, r, 0);
}

typedef vec load_fn(const void *y, fp4moe_dtype dtype, size_t i);

static inline void store_sums(load_fn *get, size_t n, size_t parts, const float *partials,
                              size_t stride, fp4moe_dtype dtype, int accumulate, void *y) {
  for (size_t i = 0; i < n; i += LANES) {
    vec sum = load(partials + i);
    for (size_t p = 1; p < parts; p++) sum = add(sum, load(partials + p * stride + i));
    put(add(accumulate ? get(y, dtype, i) : set(0), sum), dtype, y, i);
  }
}

/* The rows of one instruction set. */
#define COMBINE_ROWS(isa)                                                                          \
  void fp4moe_combine_##isa(const fp4moe_combine_args *a) { combine(a); }                          \
  void fp4moe_store_##isa(size_t n, size_t parts, const float *partials, size_t stride,            \
                          fp4moe_dtype dtype, int accumulate, void *y) {                           \
    store_sums(fp4_load_##isa, n, parts, partials, stride, dtype, accumulate, y);                  \
  }

#endif
