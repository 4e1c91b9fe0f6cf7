/* oracle.c - kernel selection (oracle.h): capability, then the table, then the static order. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "oracle.h"
#include "status.h"
#include "table.h"

static const char *const op_names[FP4MOE_OPS] = {"unpack", "quant",   "gemv", "gemm",
                                                 "act",    "combine", "store"};
const char *fp4moe_op_name(fp4moe_op op) { return op_names[op]; }

/* ---- Request ---- */

/* Does any of the comma-separated globs match? */
static int globs_match(const char *globs, const char *name) {
  char glob[256];
  while (*globs) {
    size_t n = strcspn(globs, ",");
    if (n < sizeof glob) {
      memcpy(glob, globs, n);
      glob[n] = 0;
      if (!fnmatch(glob, name, 0)) return 1;
    }
    globs += n + (globs[n] == ',');
  }
  return 0;
}

/* The ops whose kernels one glob matches. */
static uint32_t matched_ops(const char *glob) {
  uint32_t ops = 0;
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (globs_match(glob, fp4moe_kernels[i].name)) ops |= 1u << fp4moe_kernels[i].op;
  return ops;
}

fp4moe_status fp4moe_request_globs(fp4moe_request *request, const char *globs, const char *origin) {
  if (strlen(globs) >= sizeof request->globs)
    return fp4moe_fail(FP4MOE_INVALID, "%s has %zu characters, at most %zu", origin, strlen(globs),
                       sizeof request->globs - 1);
  for (const char *g = globs; *g;) {
    char one[256];
    size_t n = strcspn(g, ",");
    snprintf(one, sizeof one, "%.*s", (int)n, g);
    uint32_t ops = matched_ops(one);
    if (!ops)
      return fp4moe_fail(FP4MOE_INVALID, "%s: \"%s\" matches no kernel (fp4moe explain lists them)",
                         origin, one);
    request->forced |= ops;
    g += n + (g[n] == ',');
  }
  strcpy(request->globs, globs);
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

/* The first eligible kernel of an op with mr >= rows; else the last of its ISA's, which has the
 * largest mr. NULL: none. */
static const fp4moe_kernel *first_kernel(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                         fp4moe_op op, size_t rows) {
  const fp4moe_kernel *best = NULL;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (k->op != op || fp4moe_judge(s, desc, k)) continue;
    if (best && k->isa != best->isa) break;
    best = k;
    if (op != FP4MOE_OP_GEMV || k->mr >= rows) break;
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

/* Why an op has no kernel: what would serve without the constraint. */
static fp4moe_status no_kernel(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                               fp4moe_op op) {
  char serve[256] = "";
  size_t used = 0;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    uint32_t why = fp4moe_judge(s, desc, k) & ~(uint32_t)FP4MOE_NO_FORCED;
    if (k->op != op || why || used + strlen(k->name) + 2 >= sizeof serve) continue;
    used += (size_t)snprintf(serve + used, sizeof serve - used, " %s", k->name);
  }
  return fp4moe_fail(FP4MOE_UNSUPPORTED, "no %s kernel for this layer under \"%s\"; these serve:%s",
                     op_names[op], s->request->globs, *serve ? serve : " none");
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

fp4moe_status fp4moe_static_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                   int phase, int bucket, fp4moe_recipe *r) {
  enum { GEMV_BUCKETS = 5, GEMV_PANELS = 4, PREFETCH_BYTES = 4096 };
  uint32_t step = fp4moe_panel_step(phase, desc->activation.gated);
  const fp4moe_kernel *gemv = first_kernel(s, desc, FP4MOE_OP_GEMV, fp4moe_bucket_rows(bucket));
  if (!gemv) return no_kernel(s, desc, FP4MOE_OP_GEMV);
  memset(r, 0, sizeof *r);
  first_pair(s, desc, r);
  if (!r->gemm) return no_kernel(s, desc, FP4MOE_OP_GEMM);
  if (!r->unpack) return no_kernel(s, desc, FP4MOE_OP_UNPACK);
  int gemm_is_slow = r->gemm->isa == FP4MOE_ISA_c && gemv->isa != FP4MOE_ISA_c;
  if (bucket < GEMV_BUCKETS || gemm_is_slow) {
    r->unpack = r->gemm = NULL;
    r->gemv = gemv;
    r->panels = GEMV_PANELS;
    r->prefetch = PREFETCH_BYTES;
    return FP4MOE_OK;
  }
  r->panels = multiple_of_both(r->gemm->nr / FP4MOE_PANEL, step);
  r->prefetch = 1;
  return FP4MOE_OK;
}

static int recipe_is_eligible(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                              const fp4moe_recipe *r) {
  if (r->gemv) return !fp4moe_judge(s, desc, r->gemv);
  return !fp4moe_judge(s, desc, r->unpack) && !fp4moe_judge(s, desc, r->gemm);
}

fp4moe_match fp4moe_select_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                  int phase, int bucket, fp4moe_recipe *recipe) {
  fp4moe_recipe_key key = {.phase = phase,
                           .format = (int)desc->format,
                           .act = (int)fp4moe_act_class_of(desc->precision),
                           .gated = desc->activation.gated,
                           .bucket = bucket,
                           .cores = s->host->allowed_cores};
  size_t first, count;
  fp4moe_phase_shape(desc, phase, &key.n, &key.k);
  fp4moe_match match = fp4moe_table_find(s->table, &key, &first, &count);
  for (size_t i = 0; match && i < count; i++) {
    const fp4moe_recipe *r = &s->table->recipe[first + i].recipe;
    if (!recipe_is_eligible(s, desc, r)) continue;
    *recipe = *r;
    return match;
  }
  return FP4MOE_MATCH_NONE;
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

fp4moe_status fp4moe_select(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            fp4moe_plan *plan) {
  fp4moe_status status;
  memset(plan, 0, sizeof *plan);
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
      fp4moe_recipe *r = &plan->recipe[phase][b];
      if ((status = fp4moe_static_recipe(s, desc, phase, b, r))) return status;
      fp4moe_select_recipe(s, desc, phase, b, r);
    }
    plan->wide[phase].gemv = first_kernel(s, desc, FP4MOE_OP_GEMV, 8);
    plan->wide[phase].panels = plan->recipe[phase][0].gemv
                                   ? plan->recipe[phase][0].panels
                                   : fp4moe_panel_step(phase, desc->activation.gated);
  }
  if (!fp4moe_is_linear(desc)) copy_schedules(s, desc, plan);
  return FP4MOE_OK;
}
