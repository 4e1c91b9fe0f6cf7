/* check_io_modes.c - checkpoints loaded by a caller in a floating-point mode of its own (modes.h):
 * the same descs, records and floats. Reciprocal globals are divided, numbers of config.json are
 * parsed, and tensors are multiplied out on the way. */
#include <stdlib.h>
#include <string.h>

#include "check_io.h"
#include "io/floats.h"
#include "modes.h"

static void load(const void *path, scene_notes *notes) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_layer *layer = NULL;
  IN_MODE(fp4moe_checkpoint_open(path, &ckpt));
  const fp4moe_activation *activation = &fp4moe_checkpoint_at(ckpt, 0)->desc.activation;
  scene_note(notes, activation, sizeof *activation);
  IN_MODE(fp4moe_checkpoint_load_layer(ckpt, 0, ctx, NULL, &layer));
  uint8_t *records = whole_records(layer);
  scene_note(notes, records, layer->desc.experts * layer->shape.bytes);
  free(records);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
}

static void layers_loaded_in_modes(void) {
  static const char *const files[] = {"gptoss_mxfp4",          "dsv4_mxfp4",
                                      "qwen3_nvfp4_modelopt",  "qwen3_nvfp4_ct",
                                      "llama4_nvfp4_modelopt", "gemma4_nvfp4_modelopt"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[160];
    strcpy(path, io_data_path(files[i]));
    play_in_modes(files[i], load, path);
  }
}

/* Numbers that no FP32 has, beside a layer. */
static void config_in_modes(void) {
  char path[160];
  scratch_open();
  bundle_copy("gptoss_mxfp4");
  scratch_put_text(scratch_at("config.json"), "{\"model_type\":\"gpt_oss\",\"swiglu_limit\":6.9,"
                                              "\"num_experts_per_tok\":2}");
  strcpy(path, scratch);
  play_in_modes("config.json", load, path);
  scratch_close();
}

/* ---- Tensors as floats ---- */

static void read_floats(const void *arg, scene_notes *notes) {
  const fp4moe_tensors *set = arg;
  const char *name = strstr(fp4moe_tensors_at(set, 0)->file, "_ct")
                         ? "experts.1.up_proj.weight_packed"
                         : "experts.1.up_proj.weight";
  char full[160];
  for (size_t i = 0; i < fp4moe_tensors_count(set); i++) {
    const char *found = strstr(fp4moe_tensors_at(set, i)->name, name);
    if (found && strlen(found) == strlen(name)) strcpy(full, fp4moe_tensors_at(set, i)->name);
  }
  for (int dtype = 0; dtype < 3; dtype += 2) { /* F32, BF16 */
    struct io_fp4 f;
    IN_MODE(fp4moe_io_fp4_find(set, full, &f));
    const size_t bytes = fp4moe_io_fp4_count(&f) * (dtype ? 2 : 4);
    void *floats = malloc(bytes);
    IN_MODE(fp4moe_io_fp4_read(set, &f, (fp4moe_dtype)dtype, floats));
    scene_note(notes, floats, bytes);
    free(floats);
    fp4moe_io_fp4_release(&f);
  }
}

static void floats_in_modes(void) {
  static const char *const files[] = {"qwen3_nvfp4_modelopt", "qwen3_nvfp4_ct"};
  for (size_t i = 0; i < 2; i++) {
    fp4moe_tensors *set = NULL;
    if (!CHECK(!fp4moe_tensors_open(io_data_path(files[i]), &set), "%s", fp4moe_error_detail()))
      return;
    play_in_modes(files[i], read_floats, set);
    fp4moe_tensors_close(set);
  }
}

void check_io_modes(void) {
  CU_pSuite suite = check_suite("modes of loaders");
  check_test(suite, "layers loaded under callers' modes", layers_loaded_in_modes);
  check_test(suite, "config.json under callers' modes", config_in_modes);
  check_test(suite, "floats under callers' modes", floats_in_modes);
}
