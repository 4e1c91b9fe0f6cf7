/* check_pack.c - pack against the picture of layout.h, and restore as its inverse. */
#include "check.h"

#include <string.h>

typedef struct source {
  size_t rows, k, group, codes_stride, scales_stride;
  uint8_t *codes, *scales;
} source;

/* Rows of a checkpoint, ending at the guard page. */
static source make_source(int side) {
  source s = {.group = check_below(2) ? 32 : 16};
  s.k = s.group * (1 + check_below(8));
  s.rows = check_below(8) ? 1 + check_below(16) : 0;
  s.codes_stride = s.k / 2 * (1 + check_below(2)) + check_below(3); /* 2: interleaved halves */
  s.scales_stride = s.k / s.group * (1 + check_below(2)) + check_below(3);
  const size_t gaps = s.rows ? s.rows - 1 : 0;
  s.codes = check_buffer(s.rows ? gaps * s.codes_stride + s.k / 2 : 0, side);
  s.scales = check_buffer(s.rows ? gaps * s.scales_stride + s.k / s.group : 0, side);
  return s;
}

static void fill(const source *s) {
  for (size_t row = 0; row < s->rows; row++) {
    for (size_t i = 0; i < s->k / 2; i++)
      s->codes[row * s->codes_stride + i] = (uint8_t)check_random();
    for (size_t i = 0; i < s->k / s->group; i++)
      s->scales[row * s->scales_stride + i] = (uint8_t)check_random();
  }
  check_readonly(s->codes);
  check_readonly(s->scales);
}

static void check_panel(const source *s, const uint8_t *nibbles, const uint8_t *scales,
                        uint8_t pad) {
  for (size_t k = 0; k < s->k; k++)
    for (size_t row = 0; row < 16; row++) {
      const unsigned byte = nibbles[k / 8 * 64 + row * 4 + k % 4];
      const unsigned got = k % 8 < 4 ? byte & 15 : byte >> 4;
      const unsigned disk = row < s->rows ? s->codes[row * s->codes_stride + k / 2] : 0;
      const unsigned want = k % 2 ? disk >> 4 : disk & 15;
      CHECK(got == want, "row %zu, column %zu: code %u, expected %u", row, k, got, want);
    }
  for (size_t i = 0; i < s->k / s->group; i++)
    for (size_t row = 0; row < 16; row++) {
      const uint8_t want = row < s->rows ? s->scales[row * s->scales_stride + i] : pad;
      CHECK(scales[i * 16 + row] == want, "row %zu, block %zu: scale", row, i);
    }
}

static void test_round_trip(void) {
  for (int i = 0; i < 3000; i++) {
    const int side = i % CHECK_SIDES;
    const uint8_t pad = (uint8_t)check_random();
    const source from = make_source(side);
    source back = from;
    fill(&from);
    uint8_t *nibbles = check_buffer(8 * from.k, side);
    uint8_t *scales = check_buffer(from.k / from.group * 16, side);
    fp4moe_pack_panel_c(from.codes, from.codes_stride, from.scales, from.scales_stride, from.rows,
                        from.k, from.group, pad, nibbles, scales);
    check_panel(&from, nibbles, scales, pad);
    check_readonly(nibbles);
    check_readonly(scales);
    const size_t gaps = from.rows ? from.rows - 1 : 0, last = from.rows ? 1 : 0;
    const size_t codes = gaps * from.codes_stride + last * from.k / 2;
    const size_t blocks = gaps * from.scales_stride + last * from.k / from.group;
    back.codes = check_buffer(codes, side);
    back.scales = check_buffer(blocks, side);
    fp4moe_restore_panel_c(nibbles, scales, from.rows, from.k, from.group, back.codes,
                           from.codes_stride, back.scales, from.scales_stride);
    CHECK_SAME(back.codes, from.codes, codes, 1, "codes restored, gaps untouched");
    CHECK_SAME(back.scales, from.scales, blocks, 1, "scales restored, gaps untouched");
    CHECK_RELEASE();
  }
}

/* One lane by hand: columns 0..7 of row 3 hold their own number. */
static void test_lane(void) {
  uint8_t codes[16 * 8], scales[16], nibbles[128], panel_scales[16];
  memset(codes, 0, sizeof codes);
  memset(scales, 0x38, sizeof scales);
  for (size_t i = 0; i < 4; i++) codes[3 * 8 + i] = (uint8_t)(2 * i | (2 * i + 1) << 4);
  fp4moe_pack_panel_c(codes, 8, scales, 1, 16, 16, 16, 0, nibbles, panel_scales);
  static const uint8_t lane[4] = {0x40, 0x51, 0x62, 0x73};
  CHECK_SAME(nibbles + 12, lane, 4, 1, "lane 3");
}

/* BF16 order of a row: nibble i of the two words of a lane is a pair of it. */
static void test_bf16_order(void) {
  for (unsigned at = 0; at < 8; at++) {
    const unsigned k = fp4_bf16_order[at], pair = at / 2, word = at % 2;
    const unsigned byte = k % 4, nibble = byte % 2 * 2 + k / 4; /* of the 16-bit word */
    CHECK(byte / 2 == word && nibble == pair, "place %u of BF16 holds column %u", at, k);
  }
}

void check_pack(void) {
  CU_pSuite suite = check_suite("pack");
  check_test(suite, "lane", test_lane);
  check_test(suite, "bf16 order", test_bf16_order);
  check_test(suite, "round trip", test_round_trip);
}
