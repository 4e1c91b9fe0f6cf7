/* op_check.c - the measured error of a single kernel (op_data.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "fp4.h"
#include "op_data.h"

static size_t checked_rows(size_t m) { return m < OP_CHECKED_ROWS ? m : OP_CHECKED_ROWS; }

int op_same_bits(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels) {
  size_t rows = checked_rows(m);
  memset(d->out, 0, d->out_bytes); /* combine adds */
  op_call(d, kernel, m, panels, 0);
  void *got = allocate(d->out_bytes, 1);
  memcpy(got, d->out, d->out_bytes);
  memset(d->out, 0, d->out_bytes);
  op_work work = op_call(d, op_c_row(kernel->op, kernel->form, &d->shape.desc), rows, panels, 0);
  int same = !memcmp(got, d->out, work.out_bytes);
  free(got);
  return same;
}

/* Sums in double of one row with one panel [k][16] of exact weights. */
static void sums_of(const uint16_t *x, const float *panel, size_t k, double exact[FP4MOE_PANEL],
                    double magnitude[FP4MOE_PANEL]) {
  for (size_t j = 0; j < FP4MOE_PANEL; j++) exact[j] = magnitude[j] = 0;
  for (size_t i = 0; i < k; i++) {
    double a = (double)fp4_from_bf16(x[i]);
    for (size_t j = 0; j < FP4MOE_PANEL; j++) {
      double product = a * (double)panel[i * FP4MOE_PANEL + j];
      exact[j] += product;
      magnitude[j] += fabs(product);
    }
  }
}

/* Panel p as class f32 unpacks it: exact. */
static void exact_panel(const op_data *d, size_t p, float *panel) {
  fp4moe_layer_desc desc = d->shape.desc;
  desc.precision = FP4MOE_PRECISION_F32;
  op_c_row(FP4MOE_OP_UNPACK, FP4MOE_FORM_f32, &desc)
      ->fn.unpack(d->nibbles + p * fp4_panel_bytes(d->k),
                  d->scales + p * fp4_panel_scale_bytes(d->k, d->group), d->k, panel);
}

double op_worst_error(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels) {
  float *panel = allocate(d->k * FP4MOE_PANEL, sizeof *panel);
  double worst = 0, exact[FP4MOE_PANEL], magnitude[FP4MOE_PANEL];
  op_call(d, kernel, m, panels, 0);
  for (size_t p = 0; p < panels; p++) {
    exact_panel(d, p, panel);
    for (size_t r = 0; r < checked_rows(m); r++) {
      const float *y = (const float *)d->out + (r * panels + p) * FP4MOE_PANEL;
      sums_of(d->x + r * d->k, panel, d->k, exact,
              magnitude); /* x is BF16: exact in both classes */
      for (size_t j = 0; j < FP4MOE_PANEL; j++) {
        double err = fabs((double)y[j] - exact[j]) / (0x1p-24 * magnitude[j]);
        worst = isnan(worst) || err <= worst ? worst : err; /* a NaN stays */
      }
    }
  }
  free(panel);
  return worst * 32 / (double)d->k;
}
