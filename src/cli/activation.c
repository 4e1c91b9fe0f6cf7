/* activation.c - the activation on the command line: a kind's name, then its numbers (cli.h). */
#include <stdio.h>
#include <string.h>

#include "activation.h"
#include "cli.h"

/* The numbers that models use. */
static const fp4moe_activation usual[] = {
    {.kind = FP4MOE_SILU, .gated = 1},
    {.kind = FP4MOE_SWIGLU_OAI, .gated = 1, .alpha = 1.702f, .beta = 1, .limit = 7},
    {.kind = FP4MOE_SWIGLUSTEP, .gated = 1, .limit = 7},
    {.kind = FP4MOE_GELU, .gated = 1},
    {.kind = FP4MOE_GELU_TANH, .gated = 1},
    {.kind = FP4MOE_SITU, .gated = 1, .beta = 4, .linear_beta = 25},
    {.kind = FP4MOE_RELU2},
};
enum { KINDS = sizeof usual / sizeof *usual };

static const fp4moe_activation *usual_of(const char *text) {
  char all[128] = "";
  for (int i = 0; i < KINDS; i++) {
    const char *name = fp4moe_activation_name(usual[i].kind);
    if (!strcmp(name, text)) return &usual[i];
    snprintf(all + strlen(all), sizeof all - strlen(all), " %s", name);
  }
  die("--activation %s: not one of%s", text, all);
}

void activation_take(activation_flags *f, int option, const char *name, const char *text) {
  char dashed[32];
  snprintf(dashed, sizeof dashed, "--%s", name);
  if (option == ACTIVATION_NAME)
    f->usual = *usual_of(text);
  else if (option < ACTIVATION_UNGATED)
    f->number[option] = (float)parse_number(dashed, text);
  f->given |= 1u << option;
}

void activation_set(const activation_flags *f, fp4moe_activation *a) {
  float *const fields[] = {[ACTIVATION_ALPHA] = &a->alpha,
                           [ACTIVATION_BETA] = &a->beta,
                           [ACTIVATION_LIMIT] = &a->limit,
                           [ACTIVATION_LINEAR_BETA] = &a->linear_beta};
  if (f->given >> ACTIVATION_NAME & 1) *a = f->usual;
  for (int i = ACTIVATION_ALPHA; i < ACTIVATION_UNGATED; i++)
    if (f->given >> i & 1) *fields[i] = f->number[i];
  if (f->given >> ACTIVATION_UNGATED & 1) a->gated = 0;
}
