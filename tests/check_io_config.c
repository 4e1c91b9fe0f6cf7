/* check_io_config.c - what config.json, or without one the tensors' names, say of a layer: its
 * sizes, top-k and activation; and what the caller may say instead. */
#include <stdio.h>
#include <string.h>

#include "check_io.h"

/* ---- config.json ---- */

/* clang-format off */
static const struct config_case {
  const char *file, *config;
  fp4moe_status status;
  int fp4;
  const char *says;
  size_t top_k;
  fp4moe_activation activation;
} configs[] = {
    {"qwen3_nvfp4_modelopt",
     "{\"hidden_size\":96,\"moe_intermediate_size\":80,\"num_experts\":6,\"num_experts_per_tok\":3,"
     "\"hidden_act\":\"silu\",\"n_routed_experts\":null}", FP4MOE_OK, 1, "", 3, {FP4MOE_SILU, 1, 0,
     0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_size\":64}", FP4MOE_INVALID, 0, "hidden_size is 64", 0,
     {0}},
    {"qwen3_nvfp4_modelopt", "{\"num_local_experts\":8}", FP4MOE_INVALID, 0, "experts 6", 0, {0}},
    {"qwen3_nvfp4_modelopt", "{\"text_config\":{\"moe_intermediate_size\":16},\"num_experts\":6}",
     FP4MOE_INVALID, 0, "moe_intermediate_size is 16", 0, {0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_size\":\"96\"}", FP4MOE_INVALID, 0, "hidden_size", 0, {0}},
    {"qwen3_nvfp4_modelopt", "{\"num_experts_per_tok\":7}", FP4MOE_INVALID, 0,
     "num_experts_per_tok is 7", 0, {0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"quick_gelu\"}", FP4MOE_UNSUPPORTED, 1,
     "hidden_act 'quick_gelu'", 0, {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":7}", FP4MOE_UNSUPPORTED, 1, "'(not a string)'", 0,
     {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"relu2\"}", FP4MOE_UNSUPPORTED, 1, "'relu2'", 0,
     {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"swish\"}", FP4MOE_OK, 1, "", 0, {FP4MOE_SILU, 1, 0,
     0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"gelu\"}", FP4MOE_OK, 1, "", 0, {FP4MOE_GELU, 1, 0, 0,
     0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"gelu_new\"}", FP4MOE_OK, 1, "", 0,
     {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"gelu_tanh\"}", FP4MOE_OK, 1, "", 0,
     {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"gelu\",\"hidden_activation\":\"gelu_pytorch_tanh\"}",
     FP4MOE_OK, 1, "", 0, {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"gelu\",\"swiglu_limit\":7}", FP4MOE_UNSUPPORTED, 1,
     "swiglu_limit is 7, but gelu", 0, {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"situ\",\"activation_situ_beta\":4.0,"
     "\"activation_situ_linear_beta\":25.0}", FP4MOE_OK, 1, "", 0, {FP4MOE_SITU, 1, 0, 4, 0, 25}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"situ\",\"activation_situ_beta\":2,"
     "\"activation_situ_linear_beta\":null}", FP4MOE_OK, 1, "", 0, {FP4MOE_SITU, 1, 0, 2, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"situ\"}", FP4MOE_UNSUPPORTED, 1,
     "hidden_act 'situ': activation.beta is 0", 0, {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"silu\",\"activation_situ_beta\":4}",
     FP4MOE_UNSUPPORTED, 1, "activation_situ_beta is 4, but silu", 0, {FP4MOE_ACTIVATION_UNKNOWN, 1,
     0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"model_type\":\"step3p5\",\"swiglu_limits\":[0,0,null,7.0]}",
     FP4MOE_OK, 1, "", 0, {FP4MOE_SWIGLUSTEP, 1, 0, 0, 7, 0}},
    {"qwen3_nvfp4_modelopt", "{\"model_type\":\"step3p5\",\"swiglu_limits\":[7,7,7,null,7]}",
     FP4MOE_OK, 1, "", 0, {FP4MOE_SILU, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"model_type\":\"step3p5\",\"swiglu_limits\":[7,7]}", FP4MOE_OK, 1, "",
     0, {FP4MOE_SILU, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"swiglu_limits\":[0,0,0,7]}", FP4MOE_UNSUPPORTED, 1, "swiglu_limits",
     0, {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"silu\",\"swiglu_limit\":7.5}", FP4MOE_OK, 1, "", 0,
     {FP4MOE_SILU, 1, 0, 0, 7.5f, 0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"silu\",\"swiglu_alpha\":1.5}", FP4MOE_UNSUPPORTED,
     1, "swiglu_alpha is 1.5, but silu", 0, {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}},
    {"qwen3_nvfp4_modelopt", "{\"swiglu_limit\":-1}", FP4MOE_INVALID, 0, "swiglu_limit", 0, {0}},
    {"qwen3_nvfp4_modelopt", "{\"hidden_act\":\"swigluoai\",\"swiglu_alpha\":1.5}", FP4MOE_OK, 1,
     "", 0, {FP4MOE_SWIGLU_OAI, 1, 1.5f, 1, 7, 0}},
    {"qwen3_nvfp4_modelopt", "{\"model_type\":\"gpt_oss\",\"hidden_act\":\"silu\"}", FP4MOE_OK, 1,
     "", 0, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}},
    {"gemma4_nvfp4_modelopt",
     "{\"text_config\":{\"hidden_activation\":\"gelu_pytorch_tanh\",\"top_k_experts\":2}}",
     FP4MOE_OK, 1, "", 2, {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {"gemma4_nvfp4_modelopt", "{\"top_k_experts\":2}", FP4MOE_OK, 1, "", 2, {FP4MOE_GELU_TANH, 1, 0,
     0, 0, 0}},
    {"gemma4_nvfp4_modelopt", "{\"hidden_act\":\"silu\"}", FP4MOE_OK, 1, "", 0, {FP4MOE_SILU, 1, 0, 0,
     0, 0}},
    {"gptoss_mxfp4", "{\"model_type\":\"gpt_oss\",\"hidden_act\":\"silu\",\"swiglu_limit\":5.0}",
     FP4MOE_OK, 1, "", 0, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 5, 0}},
    {"gptoss_mxfp4", "{\"hidden_act\":\"gelu\"}", FP4MOE_OK, 1, "", 0, {FP4MOE_GELU, 1, 0, 0, 0, 0}},
    {"nemotron_nvfp4_modelopt", "{\"mlp_hidden_act\":\"silu\"}", FP4MOE_OK, 1, "", 0, {FP4MOE_SILU, 0,
     0, 0, 0, 0}},
    {"nemotron_nvfp4_modelopt", "{\"mlp_hidden_act\":\"situ\",\"activation_situ_beta\":4}",
     FP4MOE_UNSUPPORTED, 1, "'situ': activation.gated is 0", 0, {FP4MOE_ACTIVATION_UNKNOWN, 0, 0, 0,
     0, 0}},
    {"dsv4_mxfp4", "{\"hidden_act\":\"silu\",\"hidden_size\":64}", FP4MOE_OK, 1, "", 0,
     {FP4MOE_SILU, 1, 0, 0, 10, 0}},
    {"nemotron_nvfp4_modelopt", "{\"mlp_hidden_act\":\"relu2\",\"mamba_hidden_act\":\"silu\"}",
     FP4MOE_OK, 1, "", 0, {FP4MOE_RELU2, 0, 0, 0, 0, 0}},
    {"nemotron_nvfp4_modelopt", "{\"hidden_size\":7168,\"routed_expert_hidden_size\":64}", FP4MOE_OK,
     1, "", 0, {FP4MOE_RELU2, 0, 0, 0, 0, 0}},
    {"nemotron_nvfp4_modelopt", "{\"hidden_size\":1024,\"moe_latent_size\":64}", FP4MOE_OK, 1, "",
     0, {FP4MOE_RELU2, 0, 0, 0, 0, 0}},
};
/* clang-format on */

static void test_config(void) {
  scratch_open();
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
    const struct config_case *c = &configs[i];
    bundle_copy(c->file);
    scratch_put_text(scratch_at("config.json"), c->config);
    fp4moe_checkpoint *ckpt = io_open_checkpoint(i % 2 ? scratch : scratch_at(MODEL_FILE));
    const fp4moe_checkpoint_layer *l = ckpt ? fp4moe_checkpoint_at(ckpt, 0) : NULL;
    if (l) {
      io_says(l->status, c->status, l->reason, c->says, c->config);
      CHECK(l->fp4 == c->fp4 && io_same_activation(&l->desc.activation, &c->activation),
            "%s: fp4 %d, activation %d limit %g", c->config, l->fp4, (int)l->desc.activation.kind,
            (double)l->desc.activation.limit);
      CHECK(!c->fp4 || l->top_k == c->top_k, "%s: top_k %zu", c->config, l->top_k);
    }
    fp4moe_checkpoint_close(ckpt);
  }
  scratch_put_text(scratch_at("config.json"), "{\"hidden_size\":96,\"hidden_size\":96}");
  fp4moe_checkpoint *ckpt = NULL;
  io_says(fp4moe_checkpoint_open(scratch, &ckpt), FP4MOE_INVALID, fp4moe_error_detail(),
          "config.json", "a duplicate key");
  scratch_close();
}

/* An activation that only the caller can name: one that config.json has and the library has not. */
static void test_load_activation(void) {
  fp4moe_context *ctx = context_of(0);
  fp4moe_layer *layer = NULL;
  scratch_open();
  bundle_copy("gemma4_nvfp4_modelopt");
  scratch_put_text(scratch_at("config.json"), "{\"hidden_activation\":\"quick_gelu\"}");
  fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch);
  fp4moe_layer_desc desc = fp4moe_checkpoint_at(ckpt, 0)->desc;
  io_says(fp4moe_checkpoint_load_layer(ckpt, 0, ctx, NULL, &layer), FP4MOE_UNSUPPORTED,
          fp4moe_error_detail(), "quick_gelu", "no desc");
  io_says(fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &desc, &layer), FP4MOE_UNSUPPORTED,
          fp4moe_error_detail(), "quick_gelu", "a desc that leaves it unknown");
  desc.activation.kind = FP4MOE_GELU_TANH;
  CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &desc, &layer), "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
  scratch_close();
}

/* ---- Names ---- */

/* Every name with the first `from` in it replaced. */
static void rename_all(bundle *m, const char *from, const char *to) {
  static char names[BUNDLE_TENSORS][160];
  for (size_t i = 0; i < m->n; i++) {
    const char *name = m->list[i].name, *at = strstr(name, from);
    snprintf(names[i], sizeof names[i], "%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
    m->list[i].name = names[i];
  }
}

/* What the segment before "experts" tells without config.json, and what it does not. */
static void test_parents(void) {
  static const struct {
    const char *file, *from, *to;
    fp4moe_status status;
    fp4moe_activation_kind kind;
  } cases[] = {
      {"qwen3_nvfp4_modelopt", ".mlp.experts.", ".mlp.experts.", FP4MOE_OK, FP4MOE_SILU},
      {"qwen3_nvfp4_modelopt", ".mlp.experts.", ".experts.", FP4MOE_OK, FP4MOE_GELU_TANH},
      {"qwen3_nvfp4_ct", ".mlp.experts.", ".experts.", FP4MOE_OK, FP4MOE_GELU_TANH},
      {"qwen3_nvfp4_modelopt", ".mlp.experts.", ".block_sparse_moe.experts.", FP4MOE_UNSUPPORTED,
       FP4MOE_ACTIVATION_UNKNOWN},
      {"qwen3_nvfp4_modelopt", ".mlp.experts.", ".moe.experts.", FP4MOE_UNSUPPORTED,
       FP4MOE_ACTIVATION_UNKNOWN},
      {"qwen3_nvfp4_modelopt", "model.layers.3.mlp.experts.", "experts.", FP4MOE_OK, FP4MOE_SILU},
      {"dsv4_mxfp4", ".ffn.experts.", ".experts.", FP4MOE_OK, FP4MOE_SILU},
  };
  static bundle m;
  scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bundle_read(&m, io_data_path(cases[i].file));
    rename_all(&m, cases[i].from, cases[i].to);
    fp4moe_checkpoint *ckpt = bundle_open(&m);
    bundle_free(&m);
    const fp4moe_checkpoint_layer *l = ckpt ? fp4moe_checkpoint_at(ckpt, 0) : NULL;
    if (CHECK(l, "%s: no layer", cases[i].to))
      CHECK(l->fp4 && l->status == cases[i].status && l->desc.activation.kind == cases[i].kind &&
                l->desc.activation.gated,
            "%s: %s, kind %d: %s", l->prefix, fp4moe_status_name(l->status),
            (int)l->desc.activation.kind, l->reason);
    fp4moe_checkpoint_close(ckpt);
  }
  scratch_close();
}

void check_io_config(CU_pSuite suite) {
  check_test(suite, "config", test_config);
  check_test(suite, "load activation", test_load_activation);
  check_test(suite, "parents", test_parents);
}
