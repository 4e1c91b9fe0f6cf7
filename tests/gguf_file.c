/* gguf_file.c - GGUF files byte by byte (gguf_file.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_file.h"

/* ---- Writing ---- */

gguf_bytes gguf;

void gguf_put(const void *data, size_t bytes) {
  if (gguf.n + bytes > gguf.room) {
    gguf.room = 2 * (gguf.n + bytes);
    gguf.bytes = realloc(gguf.bytes, gguf.room);
    if (!gguf.bytes) abort();
  }
  memcpy(gguf.bytes + gguf.n, data, bytes);
  gguf.n += bytes;
}

void gguf_le(uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) gguf_put(&(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

void gguf_text(const char *text) {
  gguf_le(strlen(text), 8);
  gguf_put(text, strlen(text));
}

void gguf_zeros(size_t bytes) {
  while (bytes--) gguf_put(&(uint8_t){0}, 1);
}

void gguf_key_text(const char *key, const char *value) {
  gguf_text(key);
  gguf_le(GGUF_STRING, 4);
  gguf_text(value);
}

void gguf_key_u32(const char *key, uint32_t value) {
  gguf_text(key);
  gguf_le(GGUF_U32, 4);
  gguf_le(value, 4);
}

/* ---- Tensors ---- */

gguf_tensor gguf_tensors[GGUF_MOST];
size_t gguf_count;

size_t gguf_aligned(size_t n) { return (n + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT; }

gguf_tensor *gguf_add(const char *name, uint32_t type, size_t bytes, uint64_t d0, uint64_t d1,
                      uint64_t d2) {
  gguf_tensor *t = &gguf_tensors[gguf_count++];
  if (gguf_count > GGUF_MOST) abort();
  *t = (gguf_tensor){.dims = {d0, d1, d2},
                     .rank = d2   ? 3u
                             : d1 ? 2u
                                  : 1u,
                     .type = type,
                     .bytes = bytes,
                     .data = calloc(1, bytes + 1)};
  snprintf(t->name, sizeof t->name, "%s", name);
  return t;
}

void gguf_free(void) {
  while (gguf_count) free(gguf_tensors[--gguf_count].data);
}

/* Architecture, alignment, some that the reader steps over, and top-k. */
static void put_keys(const char *architecture, size_t experts) {
  static const struct {
    int type;
    size_t bytes;
  } others[] = {{0, 1}, {1, 1}, {2, 2}, {3, 2}, {5, 4}, {6, 4}, {10, 8}, {11, 8}, {12, 8}};
  char key[80];
  gguf_key_text("general.architecture", architecture);
  gguf_key_u32("general.alignment", GGUF_ALIGNMENT);
  gguf_text("tokenizer.ggml.tokens");
  gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_STRING, 4), gguf_le(3, 8);
  gguf_text("a"), gguf_text(""), gguf_text("\xff\xfe");
  gguf_text("tokenizer.ggml.scores");
  gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_FLOAT, 4), gguf_le(3, 8), gguf_zeros(12);
  gguf_text("some.flag");
  gguf_le(GGUF_BOOL, 4), gguf_le(1, 1);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    snprintf(key, sizeof key, "some.type_%d", others[i].type);
    gguf_text(key);
    gguf_le((uint64_t)others[i].type, 4), gguf_le(0xfedcba9876543210, others[i].bytes);
  }
  snprintf(key, sizeof key, "%s.expert_used_count", architecture);
  gguf_key_u32(key, 2);
  snprintf(key, sizeof key, "%s.expert_count", architecture);
  gguf_key_u32(key, (uint32_t)experts);
}
enum { KEYS = 16 };

static void put_info(const gguf_tensor *t, size_t offset) {
  gguf_text(t->name);
  gguf_le(t->rank, 4);
  for (size_t i = 0; i < t->rank; i++) gguf_le(t->dims[i], 8);
  gguf_le(t->type, 4);
  gguf_le(offset, 8);
}

void gguf_put_all(const char *architecture, size_t experts) {
  size_t offset = 0;
  gguf.n = 0;
  gguf_put("GGUF", 4);
  gguf_le(3, 4), gguf_le(gguf_count, 8), gguf_le(KEYS, 8);
  put_keys(architecture, experts);
  for (size_t i = 0; i < gguf_count; offset += gguf_aligned(gguf_tensors[i++].bytes))
    put_info(&gguf_tensors[i], offset);
  gguf_zeros(gguf_aligned(gguf.n) - gguf.n);
  for (size_t i = 0; i < gguf_count; i++) {
    gguf_put(gguf_tensors[i].data, gguf_tensors[i].bytes);
    gguf_zeros(gguf_aligned(gguf_tensors[i].bytes) - gguf_tensors[i].bytes);
  }
}

void gguf_write(const char *path) { scratch_put(path, gguf.bytes, gguf.n); }

/* ---- A layer as GGUF tensors ---- */

uint8_t gguf_code(const uint8_t *codes, size_t k) {
  return k % 2 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
}

/* Rows of checkpoint codes and scales as blocks: value k of a group is in byte k % half. */
static void put_blocks(const random_layer *m, size_t p, uint8_t *to) {
  const size_t groups = m->group == 32 ? 1 : 4, half = m->group / 2, k = m->k[p];
  for (size_t row = 0; row < m->desc.experts * m->n[p]; row++)
    for (size_t b = 0; b < k / (groups * m->group); b++, to += groups * (1 + half))
      for (size_t g = 0; g < groups; g++) {
        size_t group = b * groups + g;
        to[g] = m->scales[p][row * (k / m->group) + group];
        for (size_t i = 0; i < m->group; i++)
          to[groups + g * half + i % half] |=
              (uint8_t)(gguf_code(m->codes[p] + row * k / 2, group * m->group + i)
                        << (i < half ? 0 : 4));
      }
}

void gguf_add_layer(const random_layer *m) {
  static const char *const names[] = {"gate", "up", "down"};
  const size_t e = m->desc.experts;
  char name[64];
  gguf_add("blk.4.ffn_gate_inp.weight", GGUF_F32, 4 * e * m->desc.hidden, m->desc.hidden, e, 0);
  gguf_add("blk.4.ffn_norm.weight", GGUF_F32, 4 * m->desc.hidden, m->desc.hidden, 0, 0);
  for (size_t p = m->desc.activation.gated ? 0 : 1; p < 3; p++) {
    const size_t values = e * m->n[p] * m->k[p];
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.weight", names[p]);
    put_blocks(m, p,
               gguf_add(name, m->group == 32 ? GGUF_MXFP4 : GGUF_NVFP4,
                        m->group == 32 ? values / 32 * 17 : values / 64 * 36, m->k[p], m->n[p], e)
                   ->data);
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.scale", names[p]);
    if (m->group == 16) memcpy(gguf_add(name, GGUF_F32, 4 * e, e, 0, 0)->data, m->global[p], 4 * e);
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.bias", names[p]);
    if (m->biases)
      memcpy(gguf_add(name, GGUF_F32, 4 * e * m->n[p], m->n[p], e, 0)->data, m->bias[p],
             4 * e * m->n[p]);
  }
}

random_layer *gguf_layer(fp4moe_format format, size_t hidden, size_t intermediate, int biases,
                         int gated, size_t experts) {
  fp4moe_layer_desc desc = {
      .struct_size = sizeof desc,
      .hidden = hidden,
      .intermediate = intermediate,
      .experts = experts,
      .format = format,
      .precision = FP4MOE_PRECISION_BF16,
      .activation = {.kind = gated ? FP4MOE_SILU : FP4MOE_RELU2, .gated = gated}};
  return random_layer_new(&desc, biases, NULL);
}

void gguf_write_layer(const char *path) {
  random_layer *m = gguf_layer(FP4MOE_NVFP4, 64, 128, 0, 1, 3);
  gguf_add_layer(m);
  gguf_put_all("deepseek4", 3);
  gguf_write(path);
  gguf_free();
  random_layer_free(m);
}

void gguf_write_matrix(const char *path, const random_layer *m, const char *name) {
  char full[64];
  snprintf(full, sizeof full, "%s.weight", name);
  put_blocks(m, 1,
             gguf_add(full, GGUF_MXFP4, m->n[1] * m->k[1] / 32 * 17, m->k[1], m->n[1], 0)->data);
  gguf_put_all("qwen3moe", m->desc.experts);
  gguf_write(path);
  gguf_free();
}
