/* check_record.c - which block scales a record says do not fold into BF16 (2 to 252 do).
 *
 * Tests of whole layers have scales far beyond these ends; here one block of an expert has one just
 * inside or outside of them, in each projection, with weights and without any. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "layout.h"
#include "random_layer.h"

static uint32_t wide_flags(const random_layer *m) {
  const fp4moe_expert_weights w = random_layer_expert(m, 0);
  fp4moe_record header;
  uint8_t *record = aligned_alloc(64, fp4moe_record_bytes(&m->desc));
  CHECK(!fp4moe_record_write(&m->desc, &w, record), "%s", fp4moe_error_detail());
  memcpy(&header, record, sizeof header);
  free(record);
  return header.flags & (FP4MOE_RECORD_WIDE_13 | FP4MOE_RECORD_WIDE_2);
}

static void one_scale(random_layer *m, int p, uint8_t s) {
  const size_t block = check_below(m->n[p] * m->k[p] / 32);
  uint8_t *codes = m->codes[p] + 16 * block, *scale = m->scales[p] + block, old = *scale;
  const uint32_t wide = p == 2 ? FP4MOE_RECORD_WIDE_2 : FP4MOE_RECORD_WIDE_13;
  const uint32_t want = s < 2 || s > 252 ? wide : 0;
  *scale = s;
  memset(codes, 0x80, 16); /* 0 and -0 */
  CHECK(wide_flags(m) == 0, "projection %d, block %zu of scale %d and no weight: wide", p, block,
        s);
  codes[check_below(16)] = check_below(2) ? 0x01 : 0x90;
  const uint32_t got = wide_flags(m);
  CHECK(got == want, "projection %d, block %zu of scale %d: flags %#x, expected %#x", p, block, s,
        got, want);
  *scale = old;
}

static void scales_that_fold(void) {
  static const uint8_t ends[] = {0, 1, 2, 3, 251, 252, 253, 254};
  const fp4moe_layer_desc d = {.struct_size = sizeof d,
                               .hidden = 96,
                               .intermediate = 64,
                               .experts = 1,
                               .activation = {.kind = FP4MOE_SILU, .gated = 1}};
  random_layer *m = random_layer_new(&d, 0, NULL);
  for (int p = 0; p < 3; p++)
    for (size_t i = 0; i < sizeof ends; i++) one_scale(m, p, ends[i]);
  random_layer_free(m);
}

void check_record(void) {
  check_test(check_suite("record"), "scales that fold into BF16", scales_that_fold);
}
