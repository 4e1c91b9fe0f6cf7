/* oracle.c - kernel selection (oracle.h): capability, then the table, then the static order. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "oracle.h"
#include "status.h"

static const char *const op_names[FP4MOE_OPS] = {"unpack", "quant",   "gemv", "gemm",
                                                 "act",    "combine", "store"};
const char *fp4moe_op_name(fp4moe_op op) { return op_names[op]; }

const char *fp4moe_source_name(fp4moe_source source) {
  static const char *const names[] = {[FP4MOE_FROM_STATIC] = "static",
                                      [FP4MOE_FROM_NEAREST] = "nearest",
                                      [FP4MOE_FROM_PROVEN] = "proven",
                                      [FP4MOE_FROM_EXACT] = "exact",
                                      [FP4MOE_FROM_FORCED] = "forced"};
  return names[source];
}

/* ---- Request ---- */

enum { GLOB_BYTES = 256 };

/* Takes the first of a list of globs; returns the rest. */
static const char *take_glob(const char *globs, char one[GLOB_BYTES]) {
  size_t n = strcspn(globs, ",");
  snprintf(one, GLOB_BYTES, "%.*s", (int)n, globs);
  return globs + n + (globs[n] == ',');
}

static int globs_match(const char *globs, const char *name) {
  char one[GLOB_BYTES];
  while (*globs) {
    globs = take_glob(globs, one);
    if (!fnmatch(one, name, 0)) return 1;
  }
  return 0;
}

/* The ops whose kernels one glob matches. */
static uint32_t matched_ops(const char *glob) {
  uint32_t ops = 0;
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (!fnmatch(glob, fp4moe_kernels[i].name, 0)) ops |= 1u << fp4moe_kernels[i].op;
  return ops;
}

fp4moe_status fp4moe_request_globs(fp4moe_request *request, const char *globs, const char *origin) {
  char one[GLOB_BYTES];
  if (strlen(globs) >= sizeof request->globs)
    return fp4moe_fail(FP4MOE_INVALID, "%s has %zu characters, at most %zu", origin, strlen(globs),
                       sizeof request->globs - 1);
  for (const char *g = globs; *g;) {
    if (strcspn(g, ",") >= GLOB_BYTES)
      return fp4moe_fail(FP4MOE_INVALID, "%s: a glob has %zu characters, at most %d", origin,
                         strcspn(g, ","), GLOB_BYTES - 1);
    g = take_glob(g, one);
    uint32_t ops = matched_ops(one);
    if (!ops)
      return fp4moe_fail(FP4MOE_INVALID, "%s: \"%s\" matches no kernel (fp4moe explain lists them)",
                         origin, one);
    request->forced |= ops;
  }
  strcpy(request->globs, globs);
  request->origin = origin;
  return FP4MOE_OK;
}

/* ---- Capability ---- */

fp4moe_act_class fp4moe_quant_class_of(fp4moe_precision precision) {
  static const fp4moe_act_class of[] = {[FP4MOE_PRECISION_F32] = FP4MOE_ACT_F32,
                                        [FP4MOE_PRECISION_BF16] = FP4MOE_ACT_BF16,
                                        [FP4MOE_PRECISION_INT8] = FP4MOE_ACT_I8,
                                        [FP4MOE_PRECISION_MXFP8] = FP4MOE_ACT_MXFP8,
                                        [FP4MOE_PRECISION_NVFP4] = FP4MOE_ACT_NVFP4};
  return of[precision];
}

fp4moe_act_class fp4moe_act_class_of(fp4moe_precision precision) {
  return fp4_row_form(fp4moe_quant_class_of(precision));
}

fp4moe_act_class fp4moe_op_class(fp4moe_op op, fp4moe_precision precision) {
  return op == FP4MOE_OP_QUANT ? fp4moe_quant_class_of(precision) : fp4moe_act_class_of(precision);
}

uint32_t fp4moe_judge(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                      const fp4moe_kernel *k) {
  const fp4moe_activation *a = &desc->activation;
  uint32_t why = 0;
  if (!fp4moe_cpu_has(k->isa)) why |= FP4MOE_NO_ISA;
  if (k->isa > s->request->cap) why |= FP4MOE_NO_CAP;
  if (k->format != FP4MOE_ANY && k->format != (int)desc->format) why |= FP4MOE_NO_FORMAT;
  if (k->act != FP4MOE_ANY && k->act != (int)fp4moe_op_class(k->op, desc->precision))
    why |= FP4MOE_NO_CLASS;
  if (k->kind != FP4MOE_ANY && (k->kind != (int)a->kind || k->gated != a->gated))
    why |= FP4MOE_NO_ACTIVATION;
  if ((s->request->forced >> k->op & 1) && !globs_match(s->request->globs, k->name))
    why |= FP4MOE_NO_FORCED;
  return why;
}

/* Is a gemv row the better one for `rows` rows, of two that stand in static order? */
static int is_better(const fp4moe_kernel *k, const fp4moe_kernel *best, size_t rows) {
  int waits = fp4moe_tile_waits(best, rows) - fp4moe_tile_waits(k, rows);
  return waits > 0 || (!waits && best->mr < rows && k->mr > best->mr);
}

/* The first eligible kernel of an op; of gemv rows of its ISA the first that suits `rows`: with a
 * tile that does not wait, then with mr >= rows or the largest mr. NULL: none. */
static const fp4moe_kernel *first_kernel(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                         fp4moe_op op, size_t rows) {
  const fp4moe_kernel *best = NULL;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (k->op != op || fp4moe_judge(s, desc, k)) continue;
    if (best && (op != FP4MOE_OP_GEMV || k->isa != best->isa)) break;
    if (!best || is_better(k, best, rows)) best = k;
  }
  return best;
}

/* The first eligible gemm whose panels some eligible unpack row writes, and that row. What is
 * missing is NULL: both only where there is no gemm. */
static void first_pair(const fp4moe_selector *s, const fp4moe_layer_desc *desc, fp4moe_recipe *r) {
  r->gemm = r->unpack = NULL;
  for (size_t i = 0; i < fp4moe_kernel_count && !r->unpack; i++) {
    const fp4moe_kernel *gemm = &fp4moe_kernels[i];
    if (gemm->op != FP4MOE_OP_GEMM || fp4moe_judge(s, desc, gemm)) continue;
    r->gemm = gemm;
    for (size_t j = 0; j < fp4moe_kernel_count && !r->unpack; j++)
      if (fp4moe_recipe_joins(&fp4moe_kernels[j], gemm) &&
          !fp4moe_judge(s, desc, &fp4moe_kernels[j]))
        r->unpack = &fp4moe_kernels[j];
  }
}

/* Lists the kernels of these ops that would serve, were they not constrained. */
static void list_serving(const fp4moe_selector *s, const fp4moe_layer_desc *desc, uint32_t ops,
                         char *text, size_t cap) {
  size_t used = 0;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    uint32_t why = fp4moe_judge(s, desc, k) & ~(uint32_t)FP4MOE_NO_FORCED;
    if (!(ops >> k->op & 1) || why || used + strlen(k->name) + 2 >= cap) continue;
    used += (size_t)snprintf(text + used, cap - used, " %s", k->name);
  }
  if (!used) snprintf(text, cap, " none");
}

static fp4moe_status no_kernel(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                               fp4moe_op op) {
  char serve[256];
  list_serving(s, desc, 1u << op, serve, sizeof serve);
  return fp4moe_fail(FP4MOE_UNSUPPORTED, "no %s kernel for this layer under \"%s\"; these serve:%s",
                     op_names[op], s->request->globs, serve);
}

/* An override that does nothing is an error: each glob has a kernel that can serve the layer. */
static fp4moe_status check_globs(const fp4moe_selector *s, const fp4moe_layer_desc *desc) {
  char one[GLOB_BYTES], serve[256];
  for (const char *g = s->request->globs; *g;) {
    int used = 0;
    g = take_glob(g, one);
    for (size_t i = 0; i < fp4moe_kernel_count && !used; i++)
      used = !fnmatch(one, fp4moe_kernels[i].name, 0) && !fp4moe_judge(s, desc, &fp4moe_kernels[i]);
    if (used) continue;
    list_serving(s, desc, matched_ops(one), serve, sizeof serve);
    return fp4moe_fail(FP4MOE_UNSUPPORTED,
                       "%s: \"%s\" matches no kernel that can serve this layer here; these can:%s",
                       s->request->origin, one, serve);
  }
  return FP4MOE_OK;
}

/* ---- Recipes ---- */

void fp4moe_phase_shape(const fp4moe_layer_desc *desc, int phase, size_t *n, size_t *k) {
  int down = phase == FP4MOE_DOWN;
  *n = down ? desc->hidden : desc->intermediate * (desc->activation.gated ? 2 : 1);
  *k = down ? desc->intermediate : desc->hidden;
}

static uint32_t multiple_of_both(uint32_t a, uint32_t b) {
  uint32_t n = a;
  while (n % b) n += a;
  return n;
}

/* Panels of a gemm's unit: FP4MOE_USUAL_GEMM_PANELS, or as many as a level-2 cache keeps. */
static uint32_t usual_gemm_panels(const fp4moe_layer_desc *desc, int phase,
                                  const fp4moe_recipe *r) {
  enum { CACHED_BYTES = 512 << 10 };
  static const size_t weight_bytes[] = {
      [FP4MOE_ACT_F32] = 4, [FP4MOE_ACT_BF16] = 2, [FP4MOE_ACT_I8] = 1};
  uint32_t step = fp4moe_panel_step(phase, desc->activation.gated);
  uint32_t least = multiple_of_both(r->gemm->nr / FP4MOE_PANEL, step), panels = least;
  size_t n, k;
  fp4moe_phase_shape(desc, phase, &n, &k);
  size_t bytes = FP4MOE_PANEL * k * weight_bytes[fp4moe_act_class_of(desc->precision)];
  while (panels + least <= FP4MOE_USUAL_GEMM_PANELS && (panels + least) * bytes <= CACHED_BYTES)
    panels += least;
  return panels;
}

void fp4moe_usual_recipe(const fp4moe_layer_desc *desc, int phase, fp4moe_recipe *r) {
  r->k_block = 0;
  r->panels = r->gemv ? FP4MOE_USUAL_GEMV_PANELS : usual_gemm_panels(desc, phase, r);
  r->prefetch = r->gemv ? FP4MOE_USUAL_PREFETCH : 1;
}

/* Ops of the two kinds of recipe. */
enum {
  FEW_ROW_OPS = 1 << FP4MOE_OP_GEMV,
  MANY_ROW_OPS = 1 << FP4MOE_OP_UNPACK | 1 << FP4MOE_OP_GEMM
};

static int is_forced(const fp4moe_selector *s, uint32_t ops) {
  return (s->request->forced & ops) != 0;
}

/* Of AVX-512, where decoding a panel from cache for each pass over 32 rows costs less than writing
 * it out once. */
int fp4moe_is_wide(const fp4moe_kernel *gemv) {
  return gemv->isa >= FP4MOE_ISA_avx512 && gemv->isa <= FP4MOE_ISA_avx512bf16;
}

/* The buckets that have a gemv whatever the gemms are, unless none but gemms are forced. */
static int is_gemv_bucket(const fp4moe_selector *s, const fp4moe_kernel *gemv, int bucket) {
  if (bucket < FP4MOE_GEMV_BUCKETS) return 1;
  return bucket < FP4MOE_WIDE_GEMV_BUCKETS && fp4moe_is_wide(gemv) &&
         (is_forced(s, FEW_ROW_OPS) || !is_forced(s, MANY_ROW_OPS));
}

/* Without a table any m goes by a gemv that takes more than FEW_ROWS at a time, whose decoding
 * hides behind its dots. */
enum { FEW_ROWS = 8 };

static int gemv_is_best(const fp4moe_recipe *r, const fp4moe_kernel *gemv) {
  return gemv->mr > FEW_ROWS || (r->gemm->isa == FP4MOE_ISA_c && gemv->isa != FP4MOE_ISA_c);
}

fp4moe_status fp4moe_static_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                   int phase, int bucket, fp4moe_recipe *r) {
  const fp4moe_kernel *gemv = first_kernel(s, desc, FP4MOE_OP_GEMV, fp4moe_bucket_rows(bucket));
  if (!gemv) return no_kernel(s, desc, FP4MOE_OP_GEMV);
  memset(r, 0, sizeof *r);
  first_pair(s, desc, r);
  if (!r->gemm) return no_kernel(s, desc, FP4MOE_OP_GEMM);
  if (!r->unpack) return no_kernel(s, desc, FP4MOE_OP_UNPACK);
  if (is_gemv_bucket(s, gemv, bucket) || (gemv_is_best(r, gemv) && !is_forced(s, MANY_ROW_OPS))) {
    r->unpack = r->gemm = NULL;
    r->gemv = gemv;
  }
  fp4moe_usual_recipe(desc, phase, r);
  return FP4MOE_OK;
}

/* A forced kernel is used: the table may not put the other kind of recipe in its buckets. */
static int recipe_is_eligible(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int bucket,
                              const fp4moe_recipe *r) {
  if (is_forced(s, bucket < FP4MOE_GEMV_BUCKETS ? FEW_ROW_OPS : MANY_ROW_OPS) &&
      !r->gemv == (bucket < FP4MOE_GEMV_BUCKETS))
    return 0;
  if (r->gemv) return !fp4moe_judge(s, desc, r->gemv);
  return !fp4moe_judge(s, desc, r->unpack) && !fp4moe_judge(s, desc, r->gemm);
}

/* batch_invariant: the bucket whose recipe serves all m; that of one row, unless only the kernels
 * of many are forced. */
static int key_bucket(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int bucket) {
  if (!s->request->batch_invariant || fp4moe_act_class_of(desc->precision) == FP4MOE_ACT_I8)
    return bucket;
  return is_forced(s, MANY_ROW_OPS) && !is_forced(s, FEW_ROW_OPS) ? FP4MOE_BUCKETS - 1 : 0;
}

void fp4moe_key_text(const fp4moe_recipe_key *key, char text[FP4MOE_KEY_TEXT]) {
  snprintf(
      text, FP4MOE_KEY_TEXT, "phase=%s format=%s class=%s n=%zu k=%zu gated=%d rows=%zu cores=%zu",
      fp4moe_phase_name(key->phase), fp4moe_format_name(key->format), fp4moe_class_name(key->act),
      key->n, key->k, key->gated, fp4moe_bucket_rows(key->bucket), key->cores);
}

static fp4moe_status check_tuned(const fp4moe_selector *s, const fp4moe_choice *c) {
  char key[FP4MOE_KEY_TEXT];
  if (s->request->tuned != FP4MOE_TUNED_REQUIRE || c->match >= FP4MOE_MATCH_PROVEN)
    return FP4MOE_OK;
  fp4moe_key_text(&c->key, key);
  return fp4moe_fail(FP4MOE_UNSUPPORTED,
                     "tuned recipes are required, and the table (%s) has none for exactly %s",
                     s->table ? s->table->path : "none", key);
}

fp4moe_status fp4moe_choose(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase,
                            int bucket, fp4moe_choice *c) {
  size_t first, count;
  bucket = key_bucket(s, desc, bucket);
  memset(c, 0, sizeof *c);
  c->key = (fp4moe_recipe_key){.phase = phase,
                               .format = (int)desc->format,
                               .act = (int)fp4moe_act_class_of(desc->precision),
                               .gated = desc->activation.gated,
                               .bucket = bucket,
                               .cores = s->host->threads};
  fp4moe_phase_shape(desc, phase, &c->key.n, &c->key.k);
  fp4moe_status status = fp4moe_static_recipe(s, desc, phase, bucket, &c->recipe);
  if (status) return status;
  fp4moe_match match = fp4moe_table_find(s->table, &c->key, &first, &count);
  if (match == FP4MOE_MATCH_PROVEN) c->match = match;
  for (size_t i = 0; match && i < count; i++) {
    const fp4moe_recipe_entry *e = &s->table->recipe[first + i];
    if (!recipe_is_eligible(s, desc, bucket, &e->recipe)) continue;
    c->match = match;
    c->entry = e;
    c->recipe = e->recipe;
    break;
  }
  return check_tuned(s, c);
}

/* Schedules of the exact layer shape. */
static void copy_schedules(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                           fp4moe_plan *plan) {
  for (size_t i = 0; s->table && i < s->table->schedules; i++) {
    const fp4moe_schedule_entry *e = &s->table->schedule[i];
    if (e->format != (int)desc->format || e->act != (int)plan->act_class ||
        e->hidden != desc->hidden || e->intermediate != desc->intermediate ||
        plan->schedules == FP4MOE_SCHEDULES)
      continue;
    plan->schedule[plan->schedules++] = e->schedule;
  }
}

static fp4moe_source source_of(const fp4moe_selector *s, const fp4moe_choice *c) {
  static const fp4moe_source of[] = {[FP4MOE_MATCH_NONE] = FP4MOE_FROM_STATIC,
                                     [FP4MOE_MATCH_NEAREST] = FP4MOE_FROM_NEAREST,
                                     [FP4MOE_MATCH_PROVEN] = FP4MOE_FROM_PROVEN,
                                     [FP4MOE_MATCH_EXACT] = FP4MOE_FROM_EXACT};
  return is_forced(s, c->recipe.gemv ? FEW_ROW_OPS : MANY_ROW_OPS) ? FP4MOE_FROM_FORCED
                                                                   : of[c->match];
}

fp4moe_status fp4moe_select(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            fp4moe_plan *plan) {
  fp4moe_choice choice;
  fp4moe_status status = check_globs(s, desc);
  if (status) return status;
  memset(plan, 0, sizeof *plan);
  plan->batch_invariant = s->request->batch_invariant;
  plan->act_class = fp4moe_act_class_of(desc->precision);
  plan->quant_class = fp4moe_quant_class_of(desc->precision);
  plan->input_global = desc->input_global;
  const struct {
    fp4moe_op op;
    const fp4moe_kernel **at;
  } ops[] = {{FP4MOE_OP_QUANT, &plan->quant},
             {FP4MOE_OP_ACT, &plan->act},
             {FP4MOE_OP_COMBINE, &plan->combine},
             {FP4MOE_OP_STORE, &plan->store}};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (!(fp4moe_is_linear(desc) && ops[i].op == FP4MOE_OP_ACT) &&
        !(*ops[i].at = first_kernel(s, desc, ops[i].op, 0)))
      return no_kernel(s, desc, ops[i].op);
  for (int phase = fp4moe_first_phase(desc); phase < FP4MOE_PHASES; phase++) {
    for (int b = 0; b < FP4MOE_BUCKETS; b++) {
      if ((status = fp4moe_choose(s, desc, phase, b, &choice))) return status;
      plan->recipe[phase][b] = choice.recipe;
      plan->source[phase][b] = (uint8_t)source_of(s, &choice);
    }
    plan->wide[phase].gemv = first_kernel(s, desc, FP4MOE_OP_GEMV, 1);
    plan->wide[phase].panels = plan->recipe[phase][0].gemv
                                   ? plan->recipe[phase][0].panels
                                   : fp4moe_panel_step(phase, desc->activation.gated);
  }
  if (!fp4moe_is_linear(desc)) copy_schedules(s, desc, plan);
  return FP4MOE_OK;
}

static int same_recipe(const fp4moe_recipe *a, const fp4moe_recipe *b) {
  return fp4moe_same_kernels(a, b) && a->panels == b->panels && a->k_block == b->k_block &&
         a->prefetch == b->prefetch;
}

int fp4moe_plan_same(const fp4moe_plan *a, const fp4moe_plan *b) {
  int same = a->act_class == b->act_class && a->quant_class == b->quant_class &&
             a->input_global == b->input_global && a->batch_invariant == b->batch_invariant &&
             a->quant == b->quant && a->act == b->act && a->combine == b->combine &&
             a->store == b->store && a->schedules == b->schedules;
  for (int phase = 0; phase < FP4MOE_PHASES && same; phase++) {
    same = same_recipe(&a->wide[phase], &b->wide[phase]);
    for (int i = 0; i < FP4MOE_BUCKETS && same; i++)
      same = same_recipe(&a->recipe[phase][i], &b->recipe[phase][i]);
  }
  return same && !memcmp(a->schedule, b->schedule, a->schedules * sizeof *a->schedule);
}
