/* activation.c - the activation kinds by name, and which fields each has (activation.h): one row
 * for each kind, gated or not. What is not in a row is not in the function, so it must be 0: a
 * number that no kernel reads would be dropped. */
#include "activation.h"

#include <math.h>
#include <stdio.h>

#include "status.h"

typedef enum range { NONE, ANY, FROM_0, ABOVE_0 } range;
enum { FIELDS = 4 };
static const char *const field_names[FIELDS] = {"alpha", "beta", "limit", "linear_beta"};

static const struct form {
  const char *name;
  fp4moe_activation_kind kind;
  int gated;
  range field[FIELDS]; /* in the order of field_names */
} forms[] = {
    {"silu", FP4MOE_SILU, 1, {NONE, NONE, FROM_0, NONE}},
    {"silu", FP4MOE_SILU, 0, {NONE, NONE, NONE, NONE}},
    {"swiglu_oai", FP4MOE_SWIGLU_OAI, 1, {ABOVE_0, ANY, FROM_0, NONE}},
    {"relu2", FP4MOE_RELU2, 0, {NONE, NONE, NONE, NONE}},
    {"swiglustep", FP4MOE_SWIGLUSTEP, 1, {NONE, NONE, ABOVE_0, NONE}},
    {"gelu", FP4MOE_GELU, 1, {NONE, NONE, NONE, NONE}},
    {"gelu", FP4MOE_GELU, 0, {NONE, NONE, NONE, NONE}},
    {"gelu_tanh", FP4MOE_GELU_TANH, 1, {NONE, NONE, NONE, NONE}},
    {"gelu_tanh", FP4MOE_GELU_TANH, 0, {NONE, NONE, NONE, NONE}},
    {"situ", FP4MOE_SITU, 1, {NONE, ABOVE_0, NONE, FROM_0}},
};
enum { FORMS = sizeof forms / sizeof *forms };

const char *fp4moe_activation_name(fp4moe_activation_kind kind) {
  for (int i = 0; i < FORMS; i++)
    if (forms[i].kind == kind) return forms[i].name;
  return "unknown";
}

static void get_fields(const fp4moe_activation *a, float field[FIELDS]) {
  field[0] = a->alpha;
  field[1] = a->beta;
  field[2] = a->limit;
  field[3] = a->linear_beta;
}

static const struct form *find_form(const fp4moe_activation *a) {
  for (int i = 0; i < FORMS; i++)
    if (forms[i].kind == a->kind && forms[i].gated == a->gated) return &forms[i];
  return NULL;
}

static int in_range(float x, range r) {
  if (r == NONE) return x == 0;
  return isfinite(x) && (r == ANY || (r == FROM_0 ? x >= 0 : x > 0));
}

fp4moe_status fp4moe_activation_check(const fp4moe_activation *a) {
  static const char *const expected[] = {
      [NONE] = "0: it has none", [ANY] = "finite", [FROM_0] = ">= 0", [ABOVE_0] = "> 0"};
  const char *name = fp4moe_activation_name(a->kind);
  const struct form *form = find_form(a);
  float field[FIELDS];
  if ((unsigned)a->kind > FP4MOE_SITU)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "activation.kind is %d, which this version lacks",
                       (int)a->kind);
  if (!form)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "activation.gated is %d, which %s has no form for",
                       a->gated, name);
  get_fields(a, field);
  for (int i = 0; i < FIELDS; i++)
    if (!in_range(field[i], form->field[i]))
      return fp4moe_fail(FP4MOE_INVALID, "activation.%s is %g, but %s%s needs %s", field_names[i],
                         (double)field[i], name, a->gated ? "" : " ungated",
                         expected[form->field[i]]);
  return FP4MOE_OK;
}

void fp4moe_activation_text(const fp4moe_activation *a, char text[FP4MOE_ACTIVATION_TEXT]) {
  float field[FIELDS];
  int n = snprintf(text, FP4MOE_ACTIVATION_TEXT, "%s%s", fp4moe_activation_name(a->kind),
                   a->gated ? "" : " ungated");
  get_fields(a, field);
  for (int i = 0; i < FIELDS; i++)
    if (field[i] != 0)
      n += snprintf(text + n, FP4MOE_ACTIVATION_TEXT - (size_t)n, " %s %g", field_names[i],
                    (double)field[i]);
}

void fp4moe_activation_flags(const fp4moe_activation *a, fp4moe_text *out) {
  static const char *const flags[FIELDS] = {"alpha", "beta", "limit", "linear-beta"};
  const struct form *form = find_form(a);
  float field[FIELDS];
  get_fields(a, field);
  fp4moe_text_add(out, " --activation %s%s", fp4moe_activation_name(a->kind),
                  a->gated ? "" : " --ungated");
  for (int i = 0; form && i < FIELDS; i++)
    if (form->field[i] != NONE) fp4moe_text_add(out, " --%s %.9g", flags[i], (double)field[i]);
}
