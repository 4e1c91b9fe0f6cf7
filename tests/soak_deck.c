/* soak_deck.c - cards, tables and references of a soak (soak_deck.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fp4moe_io.h"
#include "soak_deck.h"
#include "table.h"

/* ---- Tables ---- */

static fp4moe_recipe_entry entries[SOAK_CARDS * FP4MOE_PHASES * FP4MOE_BUCKETS];

static int serves(const fp4moe_kernel *k, fp4moe_op op, const fp4moe_recipe_entry *e) {
  return k->op == op && fp4moe_cpu_has(k->isa) &&
         (k->format == FP4MOE_ANY || k->format == e->format) &&
         (k->act == FP4MOE_ANY || k->act == e->act);
}

/* Rows stand with the highest ISA first, C last: the last gemv row, or the first pair of unpack and
 * gemm. */
static void choose(fp4moe_recipe_entry *e, int gemm) {
  fp4moe_recipe *r = &e->recipe;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (!gemm && serves(k, FP4MOE_OP_GEMV, e)) r->gemv = k;
    if (!gemm || r->gemm || !serves(k, FP4MOE_OP_GEMM, e)) continue;
    for (size_t j = 0; j < fp4moe_kernel_count && !r->gemm; j++)
      if (serves(&fp4moe_kernels[j], FP4MOE_OP_UNPACK, e) &&
          fp4moe_recipe_joins(&fp4moe_kernels[j], k))
        r->gemm = k, r->unpack = &fp4moe_kernels[j];
  }
  r->panels = gemm ? 4 : 2;
}

static void save_table(const soak_deck *deck, int which) {
  fp4moe_isa isa = fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1));
  fp4moe_host host;
  fp4moe_table t = {.recipe = entries};
  fp4moe_host_read(&host);
  memset(entries, 0, sizeof entries);
  for (size_t c = 0; c < deck->count; c++)
    for (int i = 0; i < FP4MOE_PHASES * FP4MOE_BUCKETS; i++) {
      const fp4moe_layer_desc *d = &deck->card[c].weights->desc;
      fp4moe_recipe_entry *e = &entries[t.recipes++];
      *e = (fp4moe_recipe_entry){.phase = i % 2,
                                 .format = (int)d->format,
                                 .act = (int)fp4moe_act_class_of(d->precision),
                                 .gated = d->activation.gated,
                                 .bucket = i / 2,
                                 .cores = host.threads,
                                 .ns = 1};
      fp4moe_phase_shape(d, i % 2, &e->n, &e->k);
      choose(e, which == 2);
    }
  fp4moe_table_sort(&t);
  if (which == 0) host.cpu.stepping++; /* not this host's: refused */
  CHECK(!fp4moe_table_save(deck->table[which], &host, isa, &t), "%s", fp4moe_error_detail());
}

fp4moe_status soak_context(const soak_deck *deck, int table, size_t threads, fp4moe_context **ctx) {
  const fp4moe_context_desc d = {
      .struct_size = sizeof d, .table = deck->table[table], .max_threads = threads};
  return fp4moe_context_create(&d, ctx);
}

/* ---- Cards ---- */

static soak_card *add_card(soak_deck *deck, const char *name, random_layer *weights, size_t tokens,
                           size_t top_k) {
  soak_card *card = &deck->card[deck->count];
  if (!CHECK(deck->count < SOAK_CARDS, "too many cards")) return NULL;
  deck->count++;
  snprintf(card->name, sizeof card->name, "%s %zux%zu", name, weights->desc.hidden,
           weights->desc.intermediate);
  card->weights = weights;
  card->call = draw(&weights->desc, tokens, top_k, 1);
  return card;
}

static void add_random(soak_deck *deck, const class_word *word, int size) {
  static const struct {
    size_t hidden, intermediate, experts, tokens, top_k;
  } sizes[] = {{64, 96, 4, 1, 2}, {160, 128, 8, 7, 3}, {288, 192, 16, 40, 2}};
  fp4moe_layer_desc d =
      class_desc(word, sizes[size].hidden, sizes[size].intermediate, sizes[size].experts);
  if (size == 1) d.activation = (fp4moe_activation){.kind = FP4MOE_RELU2};
  if (size == 2) d.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  add_card(deck, word->name, random_layer_new(&d, size == 2, NULL), sizes[size].tokens,
           sizes[size].top_k);
}

/* A file of tests/data, packed into a directory of its own; its weights are what the packed layer
 * has. */
static void add_packed(soak_deck *deck, const char *data, const char *name) {
  char source[256], packed[112];
  fp4moe_checkpoint *checkpoint = NULL;
  fp4moe_context *ctx = NULL;
  fp4moe_layer *layer = NULL;
  snprintf(source, sizeof source, "%s/%s.safetensors", data, name);
  snprintf(packed, sizeof packed, "%s/%.32s.fp4moe", deck->directory, name);
  if (!CHECK(!fp4moe_checkpoint_open(source, &checkpoint) &&
                 !fp4moe_checkpoint_pack(checkpoint, packed, NULL) &&
                 !fp4moe_context_create(NULL, &ctx) &&
                 !fp4moe_checkpoint_load_layer(checkpoint, 0, ctx, NULL, &layer),
             "%s: %s", source, fp4moe_error_detail()))
    return;
  soak_card *card = add_card(deck, name, random_layer_restore(layer), 5, 2);
  if (card) memcpy(card->packed, packed, sizeof packed);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  fp4moe_checkpoint_close(checkpoint);
}

fp4moe_status soak_card_layer(const soak_card *card, fp4moe_context *ctx, int copy,
                              fp4moe_layer **layer) {
  const fp4moe_open_options options = {
      .struct_size = sizeof options, .verify = !copy, .copy = copy};
  fp4moe_checkpoint *checkpoint;
  if (!*card->packed) return random_layer_open(card->weights, ctx, layer);
  fp4moe_status status = fp4moe_checkpoint_open_with(card->packed, &options, &checkpoint);
  if (status) return status;
  status = fp4moe_checkpoint_load_layer(checkpoint, 0, ctx, &card->weights->desc, layer);
  fp4moe_checkpoint_close(checkpoint);
  return status;
}

/* ---- References ---- */

static void compute(soak_deck *deck, soak_card *card, int table) {
  const problem *p = &card->call;
  fp4moe_limits limits = {sizeof limits, p->tokens, p->top_k, 8};
  fp4moe_context *ctx = NULL;
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(p);
  b.y = card->y[table] = calloc(p->tokens * p->hidden, sizeof(float));
  if (!CHECK(!soak_context(deck, table, 1, &ctx) && !soak_card_layer(card, ctx, 0, &layer) &&
                 !run(layer, &b),
             "%s: %s", card->name, fp4moe_error_detail()))
    return;
  limits.threads = 1;
  size_t bytes = 8 * fp4moe_workspace_bytes(layer, &limits); /* threads add scratch */
  if (bytes > deck->workspace_bytes) deck->workspace_bytes = bytes;
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  closeness c = random_layer_compare(card->weights, p->tokens, p->top_k, p->x, p->ids, p->weights,
                                     card->y[table]);
  CHECK(is_close(c), "%s, table %d: off by %g, %zu ties of %zu", card->name, table, c.rel_l2,
        c.ties, c.elements);
  if (card->weights->desc.precision == FP4MOE_PRECISION_INT8)
    CHECK(!memcmp(card->y[table], card->y[0], p->tokens * p->hidden * sizeof(float)),
          "%s: table %d moves bits of int8", card->name, table);
}

void soak_deck_open(soak_deck *deck, const char *data) {
  static const char *const packed[] = {"dsv4_mxfp4", "qwen3_nvfp4_modelopt", "gptoss_mxfp4",
                                       "gemma4_nvfp4_modelopt"};
  *deck = (soak_deck){.directory = "/tmp/fp4moe-soak-XXXXXX"};
  if (!CHECK(mkdtemp(deck->directory) != NULL, "mkdtemp")) return;
  for (int i = 0; i < CLASS_WORDS; i++)
    for (int size = 0; size < 3; size++) add_random(deck, &class_words[i], size);
  for (int i = 0; i < 4; i++) add_packed(deck, data, packed[i]);
  for (int t = 0; t < SOAK_TABLES; t++) {
    snprintf(deck->table[t], sizeof *deck->table, "%s/table%d", deck->directory, t);
    save_table(deck, t);
    for (size_t c = 0; c < deck->count; c++) compute(deck, &deck->card[c], t);
  }
}

void soak_deck_close(soak_deck *deck) {
  char lock[96];
  for (int t = 0; t < SOAK_TABLES; t++) {
    snprintf(lock, sizeof lock, "%s.lock", deck->table[t]);
    unlink(lock);
    unlink(deck->table[t]);
  }
  for (size_t c = 0; c < deck->count; c++) {
    soak_card *card = &deck->card[c];
    if (*card->packed) unlink(card->packed);
    random_layer_free(card->weights);
    drop(&card->call);
    for (int t = 0; t < SOAK_TABLES; t++) free(card->y[t]);
  }
  rmdir(deck->directory);
}
