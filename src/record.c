/* record.c - one expert between checkpoint form and the packed layout (layout.h draws it).
 *
 * Packing reads each projection through its strides, panel by panel, and checks what the formats
 * forbid: NaN block scales and globals that are not finite. The record is written whole, header
 * and checksum last. */
#include <math.h>
#include <string.h>

#include "call.h"
#include "checksum.h"
#include "quant.h"
#include "status.h"

void fp4moe_shape_of(const fp4moe_layer_desc *desc, fp4moe_shape *s) {
  size_t h = desc->hidden, i = desc->intermediate;
  memset(s, 0, sizeof *s);
  s->hidden = h;
  s->intermediate = i;
  s->group = fp4_group(desc->format);
  s->gated = desc->activation.gated;
  s->panels13 = fp4moe_is_linear(desc) ? 0 : fp4_panels(i) * (s->gated ? 2 : 1);
  s->panels2 = fp4_panels(h);
  s->shards = 1;
  fp4moe_shape_lay_out(s);
}

void fp4moe_shape_lay_out(fp4moe_shape *s) {
  size_t h = s->hidden, i = s->intermediate;
  s->w13 = fp4_align(sizeof(fp4moe_record));
  s->w2 = s->w13 + s->panels13 * fp4_panel_bytes(h);
  s->s13 = s->w2 + s->panels2 * fp4_panel_bytes(i);
  s->s2 = fp4_align(s->s13 + s->panels13 * fp4_panel_scale_bytes(h, s->group));
  s->globals = fp4_align(s->s2 + s->panels2 * fp4_panel_scale_bytes(i, s->group));
  s->b13 = s->globals + FP4MOE_ALIGN;
  s->b2 = s->b13 + s->panels13 * FP4MOE_PANEL * sizeof(float);
  s->bytes = fp4_align(s->b2 + s->panels2 * FP4MOE_PANEL * sizeof(float));
}

/* Where a projection lies: its first panel, the step between its panels, its rows and columns. */
typedef struct {
  size_t rows, k, first, step, panel_stride, scale_stride;
  size_t weights, scales, bias;
  const char *name;
} place;

static place place_of(const fp4moe_shape *s, int projection) {
  static const char *const names[] = {"gate", "up", "down"};
  place p = {.name = s->panels13 ? names[projection] : "matrix", .step = 1};
  int down = projection == 2;
  p.rows = down ? s->hidden : s->intermediate;
  p.k = down ? s->intermediate : s->hidden;
  if (!down && s->gated) p.step = 2, p.first = (size_t)projection;
  p.panel_stride = fp4_panel_bytes(p.k);
  p.scale_stride = fp4_panel_scale_bytes(p.k, s->group);
  p.weights = (down ? s->w2 : s->w13) + p.first * p.panel_stride;
  p.scales = (down ? s->s2 : s->s13) + p.first * p.scale_stride;
  p.bias = (down ? s->b2 : s->b13) + p.first * FP4MOE_PANEL * sizeof(float);
  return p;
}

static float bias_at(const fp4moe_projection *w, size_t row) {
  size_t stride = w->bias_stride ? w->bias_stride : fp4moe_dtype_bytes(w->bias_dtype);
  return fp4_load((const uint8_t *)w->bias + row * stride, w->bias_dtype, 0);
}

static fp4moe_status check_scales(fp4moe_format format, const place *p, const uint8_t *scales,
                                  size_t stride, size_t blocks) {
  for (size_t r = 0; r < p->rows; r++)
    for (size_t b = 0; b < blocks; b++) {
      uint8_t s = scales[r * stride + b];
      if (format == FP4MOE_MXFP4 ? s == 255 : (s & 0x7f) == 0x7f)
        return fp4moe_fail(FP4MOE_INVALID, "%s scale [%zu][%zu] is NaN (0x%02x)", p->name, r, b, s);
    }
  return FP4MOE_OK;
}

static fp4moe_status check_projection(const fp4moe_layer_desc *desc, const place *p, size_t group,
                                      const fp4moe_projection *w) {
  size_t blocks = p->k / group;
  if (!w->codes || !w->scales)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %s is NULL", p->name, w->codes ? "scales" : "codes");
  if (w->codes_stride && w->codes_stride < p->k / 2)
    return fp4moe_fail(FP4MOE_INVALID, "%s.codes_stride is %zu, a row has %zu bytes", p->name,
                       w->codes_stride, p->k / 2);
  if (w->scales_stride && w->scales_stride < blocks)
    return fp4moe_fail(FP4MOE_INVALID, "%s.scales_stride is %zu, a row has %zu bytes", p->name,
                       w->scales_stride, blocks);
  if (!isfinite(w->global) || (desc->format == FP4MOE_MXFP4 && w->global != 1))
    return fp4moe_fail(FP4MOE_INVALID, "%s.global is %g, expected %s", p->name, (double)w->global,
                       desc->format == FP4MOE_MXFP4 ? "1" : "a finite number");
  if (fp4moe_reads_expert_scales(desc) && !fp4moe_is_input_scale(w->input_scale))
    return fp4moe_fail(FP4MOE_INVALID, "%s.input_scale is %g, expected 2^-100..2^100", p->name,
                       (double)w->input_scale);
  if (w->bias && w->bias_dtype > FP4MOE_BF16)
    return fp4moe_fail(FP4MOE_INVALID, "%s.bias_dtype is %d, expected F32, F16 or BF16", p->name,
                       (int)w->bias_dtype);
  return check_scales(desc->format, p, w->scales, w->scales_stride ? w->scales_stride : blocks,
                      blocks);
}

/* The expert's input scales of gate/up and down, 0 where it has none that serves: the record is the
 * same for every class. */
static void pack_input_scales(const fp4moe_shape *s, const fp4moe_expert_weights *w, float *to) {
  float gate = s->gated ? w->gate.input_scale : w->up.input_scale, up = w->up.input_scale;
  to[0] = fp4moe_is_input_scale(gate) && fp4moe_is_input_scale(up) ? fmaxf(gate, up) : 0;
  to[1] = fp4moe_is_input_scale(w->down.input_scale) ? w->down.input_scale : 0;
}

/* Is a non-zero block of this panel outside the scales that fold into BF16? */
static int panel_is_wide(const place *p, const uint8_t *nibbles, const uint8_t *scales) {
  int wide = 0;
  for (size_t b = 0; b < p->k / 32; b++) {
    const uint8_t *s = scales + b * FP4MOE_PANEL, *v = nibbles + b * 4 * 64;
    for (size_t r = 0; r < FP4MOE_PANEL; r++) {
      if (s[r] >= 2 && s[r] <= 252) continue;
      uint32_t any = 0, lane;
      for (size_t i = 0; i < 4; i++) {
        memcpy(&lane, v + i * 64 + r * 4, sizeof lane);
        any |= lane & 0x77777777;
      }
      wide |= any != 0;
    }
  }
  return wide;
}

static uint32_t pack_projection(const fp4moe_shape *s, const place *p, const fp4moe_projection *w,
                                uint8_t *record) {
  size_t cs = w->codes_stride ? w->codes_stride : p->k / 2;
  size_t ss = w->scales_stride ? w->scales_stride : p->k / s->group;
  uint8_t one = s->group == 32 ? 127 : 0x38;
  uint32_t wide = 0;
  for (size_t i = 0, row = 0; row < p->rows; i++, row += FP4MOE_PANEL) {
    size_t rows = p->rows - row < FP4MOE_PANEL ? p->rows - row : FP4MOE_PANEL;
    uint8_t *nibbles = record + p->weights + i * p->step * p->panel_stride;
    uint8_t *scales = record + p->scales + i * p->step * p->scale_stride;
    float *bias = (float *)(void *)(record + p->bias) + i * p->step * FP4MOE_PANEL;
    fp4moe_pack_panel_c((const uint8_t *)w->codes + row * cs, cs,
                        (const uint8_t *)w->scales + row * ss, ss, rows, p->k, s->group, one,
                        nibbles, scales);
    if (s->group == 32) wide |= (uint32_t)panel_is_wide(p, nibbles, scales);
    for (size_t r = 0; r < FP4MOE_PANEL; r++)
      bias[r] = w->bias && r < rows ? bias_at(w, row + r) : 0;
  }
  return wide;
}

static fp4moe_record header_of(const fp4moe_layer_desc *desc, const fp4moe_shape *s) {
  fp4moe_record h = {.magic = FP4MOE_RECORD_MAGIC,
                     .version = FP4MOE_RECORD_VERSION,
                     .layout = FP4MOE_LAYOUT_ID,
                     .format = (uint32_t)desc->format,
                     .gated = (uint32_t)s->gated,
                     .group = (uint32_t)s->group,
                     .hidden = s->hidden,
                     .intermediate = s->intermediate,
                     .bytes = s->bytes,
                     .w13 = s->w13,
                     .w2 = s->w2,
                     .s13 = s->s13,
                     .s2 = s->s2,
                     .globals = s->globals,
                     .b13 = s->b13,
                     .b2 = s->b2,
                     .shard = s->shard,
                     .others = s->shards - 1};
  return h;
}

static void zero_gaps(const fp4moe_shape *s, uint8_t *record) {
  size_t s13_end = s->s13 + s->panels13 * fp4_panel_scale_bytes(s->hidden, s->group);
  size_t s2_end = s->s2 + s->panels2 * fp4_panel_scale_bytes(s->intermediate, s->group);
  memset(record, 0, s->w13);
  memset(record + s13_end, 0, s->s2 - s13_end);
  memset(record + s2_end, 0, s->b13 - s2_end);
  memset(record + s->b2, 0, s->bytes - s->b2);
}

static void close_record(const fp4moe_shape *s, fp4moe_record *header, uint8_t *record) {
  header->checksum = fp4moe_checksum(record + s->w13, s->bytes - s->w13);
  memcpy(record, header, sizeof *header);
}

fp4moe_status fp4moe_record_pack(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                 const fp4moe_expert_weights *weights, uint8_t *record) {
  const fp4moe_projection *w[3] = {&weights->gate, &weights->up, &weights->down};
  fp4moe_record header = header_of(desc, shape);
  int first = !shape->panels13 ? 2 : shape->gated ? 0 : 1;
  if (!shape->gated && (weights->gate.codes || weights->gate.scales))
    return fp4moe_fail(FP4MOE_INVALID, "gate: given, but the layer is not gated");
  for (int i = first; i < 3; i++) {
    place p = place_of(shape, i);
    fp4moe_status status = check_projection(desc, &p, shape->group, w[i]);
    if (status) return status;
  }
  zero_gaps(shape, record);
  float *globals = (float *)(void *)(record + shape->globals);
  pack_input_scales(shape, weights, globals + FP4MOE_INPUT_SCALES);
  for (int i = first; i < 3; i++) {
    place p = place_of(shape, i);
    globals[i] = w[i]->global;
    if (pack_projection(shape, &p, w[i], record))
      header.flags |= i == 2 ? FP4MOE_RECORD_WIDE_2 : FP4MOE_RECORD_WIDE_13;
    if (w[i]->bias) header.flags |= i == 2 ? FP4MOE_RECORD_BIAS_2 : FP4MOE_RECORD_BIAS_13;
  }
  close_record(shape, &header, record);
  return FP4MOE_OK;
}

/* Neighbouring bytes of the whole record and of a shard's. */
typedef struct {
  size_t whole, part, bytes;
} span;
enum { SPANS = 7 };

static void find_spans(const fp4moe_shape *w, const fp4moe_shard *shard, span out[SPANS]) {
  const fp4moe_shape *s = &shard->shape;
  const struct {
    size_t whole, part, first, panels, bytes; /* of a panel */
  } parts[SPANS] = {
      {w->w13, s->w13, shard->first13, s->panels13, fp4_panel_bytes(s->hidden)},
      {w->w2, s->w2, shard->first2, s->panels2, fp4_panel_bytes(s->intermediate)},
      {w->s13, s->s13, shard->first13, s->panels13, fp4_panel_scale_bytes(s->hidden, s->group)},
      {w->s2, s->s2, shard->first2, s->panels2, fp4_panel_scale_bytes(s->intermediate, s->group)},
      {w->globals, s->globals, 0, 1, FP4MOE_ALIGN},
      {w->b13, s->b13, shard->first13, s->panels13, FP4MOE_PANEL * sizeof(float)},
      {w->b2, s->b2, shard->first2, s->panels2, FP4MOE_PANEL * sizeof(float)},
  };
  for (size_t i = 0; i < SPANS; i++)
    out[i] = (span){parts[i].whole + parts[i].first * parts[i].bytes, parts[i].part,
                    parts[i].panels * parts[i].bytes};
}

/* A record whose parts are there gets its header, with the flags of another. */
static void head_record(const fp4moe_layer_desc *desc, const fp4moe_shape *s, const uint8_t *other,
                        uint8_t *record) {
  fp4moe_record header = header_of(desc, s), from;
  memcpy(&from, other, sizeof from);
  header.flags = from.flags;
  close_record(s, &header, record);
}

void fp4moe_record_split(const fp4moe_layer_desc *desc, const fp4moe_shape *whole,
                         const uint8_t *record, const fp4moe_shard *shard, uint8_t *out) {
  span spans[SPANS];
  find_spans(whole, shard, spans);
  zero_gaps(&shard->shape, out);
  for (size_t i = 0; i < SPANS; i++)
    memcpy(out + spans[i].part, record + spans[i].whole, spans[i].bytes);
  head_record(desc, &shard->shape, record, out);
}

void fp4moe_layer_whole_record(const fp4moe_layer *layer, size_t e, uint8_t *out) {
  span spans[SPANS];
  zero_gaps(&layer->shape, out);
  for (size_t s = 0; s < layer->shards; s++) {
    const uint8_t *part = fp4moe_layer_record(layer, s, e);
    find_spans(&layer->shape, &layer->shard[s], spans);
    for (size_t i = 0; i < SPANS; i++)
      memcpy(out + spans[i].whole, part + spans[i].part, spans[i].bytes);
  }
  head_record(&layer->desc, &layer->shape, fp4moe_layer_record(layer, 0, e), out);
}

void fp4moe_record_restore(const fp4moe_shape *shape, const uint8_t *record, int projection,
                           uint8_t *codes, uint8_t *scales) {
  place p = place_of(shape, projection);
  size_t cs = p.k / 2, ss = p.k / shape->group;
  for (size_t i = 0, row = 0; row < p.rows; i++, row += FP4MOE_PANEL) {
    size_t rows = p.rows - row < FP4MOE_PANEL ? p.rows - row : FP4MOE_PANEL;
    fp4moe_restore_panel_c(record + p.weights + i * p.step * p.panel_stride,
                           record + p.scales + i * p.step * p.scale_stride, rows, p.k, shape->group,
                           codes + row * cs, cs, scales + row * ss, ss);
  }
}

fp4moe_status fp4moe_record_check(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                  const uint8_t *record) {
  fp4moe_record want = header_of(desc, shape), have;
  memcpy(&have, record, sizeof have);
  want.flags = have.flags & FP4MOE_RECORD_FLAGS;
  want.checksum = have.checksum;
  if (memcmp(&want, &have, sizeof have) == 0) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID,
                     "record header: magic %016llx version %u layout %u flags %x shard %u, %llu "
                     "bytes; expected %016llx version %u layout %u flags %x shard %u, %llu bytes "
                     "of this shape",
                     (unsigned long long)have.magic, have.version, have.layout, have.flags,
                     have.shard, (unsigned long long)have.bytes, (unsigned long long)want.magic,
                     want.version, want.layout, want.flags, want.shard,
                     (unsigned long long)want.bytes);
}

fp4moe_status fp4moe_record_verify(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                   const uint8_t *record) {
  fp4moe_record have;
  fp4moe_status status = fp4moe_record_check(desc, shape, record);
  if (status) return status;
  memcpy(&have, record, sizeof have);
  uint64_t sum = fp4moe_checksum(record + shape->w13, shape->bytes - shape->w13);
  if (sum != have.checksum)
    return fp4moe_fail(FP4MOE_INVALID, "record checksum is %016llx, its data give %016llx",
                       (unsigned long long)have.checksum, (unsigned long long)sum);
  return FP4MOE_OK;
}
