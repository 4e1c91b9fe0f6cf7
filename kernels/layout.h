/* layout.h - the packed layout: one for every kernel, class and ISA.
 *
 * Panel: 16 output rows, K consecutive. One 64-byte vector = 16 rows x 8 k:
 *
 *     byte      0          1          2          3    |   4 ...  7   | ... |  60 ... 63
 *   high    k4 of r0   k5 of r0   k6 of r0   k7 of r0 |  row 1       |     |  row 15
 *   low     k0 of r0   k1 of r0   k2 of r0   k3 of r0 |              |     |
 *           `------------ 32-bit lane 0 ------------' `--- lane 1 ---'
 *
 * A panel is K/8 such vectors (8K bytes). As bytes, the low nibbles of a lane are k0..k3 and the
 * high ones k4..k7: two groups of an int8 dot. As 16-bit words, nibble i (x >> 4i) of a lane's two
 * words gives the pairs (k0,k2) (k4,k6) (k1,k3) (k5,k7): BF16 activations are stored in that order
 * (fp4_bf16_order). Scales of a panel: [K/group][16] bytes, group 32 (MXFP4, E8M0) or 16 (NVFP4,
 * E4M3). Rows past N have code 0 and scale 1 (E8M0 127, E4M3 0x38), in the pack only.
 *
 * Record: one expert, contiguous and self-contained, every part 64-byte aligned:
 *
 *   | header | w13 panels | w2 panels | w13 scales | w2 scales | globals | w13 bias | w2 bias |
 *
 * w13 panels alternate gate 0, up 0, gate 1, up 1, ... (ungated: up 0, up 1, ...), whatever the
 * order on disk, and so do their scales and biases. w2 panels are the output columns 0..15, ...
 * Globals: FP32 gate, up, down, and from FP4MOE_INPUT_SCALES on the expert's input scales of
 * gate/up and down, 0 where it has none. Biases: FP32, one a row, 0 where the checkpoint has none.
 *
 * A layer in S shards has S records an expert: shard s has the gate/up panels of a range of whole
 * 32-column groups of h and a range of w2 panels, K undivided, and globals and flags of the whole
 * expert. S = 1 is the whole; files have no others. */
#ifndef FP4MOE_LAYOUT_H
#define FP4MOE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "fp4moe.h"

enum {
  FP4MOE_PANEL = 16,         /* output rows of a panel */
  FP4MOE_ALIGN = 64,         /* of panels, scales, rows, tiles */
  FP4MOE_INPUT_SCALES = 3,   /* index among a record's globals */
  FP4MOE_LAYOUT_ID = 1,      /* this picture */
  FP4MOE_RECORD_VERSION = 1, /* of the header */
};

/* k of a block scale. */
enum { FP4_MX_GROUP = 32, FP4_NV_GROUP = 16 };

static inline size_t fp4_group(fp4moe_format format) {
  return format == FP4MOE_MXFP4 ? FP4_MX_GROUP : FP4_NV_GROUP;
}

#define FP4MOE_RECORD_MAGIC UINT64_C(0x31454f4d34504657) /* "WFP4MOE1" */

static inline size_t fp4_align(size_t bytes) {
  return (bytes + FP4MOE_ALIGN - 1) & ~(size_t)(FP4MOE_ALIGN - 1);
}

/* BF16 activations: the element that stands at each position of 8 k. */
static const uint8_t fp4_bf16_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

static inline size_t fp4_panels(size_t n) { return (n + FP4MOE_PANEL - 1) / FP4MOE_PANEL; }
static inline size_t fp4_panel_bytes(size_t k) { return 8 * k; }
static inline size_t fp4_panel_scale_bytes(size_t k, size_t group) {
  return k / group * FP4MOE_PANEL;
}

/* First 128 bytes of a record. Little-endian; offsets in bytes from the record's start. */
typedef struct fp4moe_record {
  uint64_t magic;
  uint32_t version, layout;
  uint32_t format, gated, group, flags; /* group: k per scale; flags: FP4MOE_RECORD_* */
  uint64_t hidden, intermediate;
  uint64_t bytes;    /* of the whole record */
  uint64_t checksum; /* over everything behind the header */
  uint64_t w13, w2, s13, s2, globals, b13, b2;
  uint32_t shard, others; /* of a layer in 1 + others shards; 0, 0: the whole expert */
} fp4moe_record;

enum {
  /* Some non-zero MXFP4 block lies outside 2 <= s <= 252: the scale cannot be folded into BF16. */
  FP4MOE_RECORD_WIDE_13 = 1,
  FP4MOE_RECORD_WIDE_2 = 2,
  FP4MOE_RECORD_BIAS_13 = 4,
  FP4MOE_RECORD_BIAS_2 = 8,
  FP4MOE_RECORD_FLAGS = 15, /* all of them */
};

#endif
