/* mapped.c - packed records that are kept outside of a layer: made, copied in, used in place.
 *
 * A record is self-contained (layout.h) and the same for every class and ISA, so experts can be
 * packed once and kept in a file. A layer over such records reads them where they lie, which may
 * be memory that nobody can write; what must fit is in each record's header and is tested. */
#include <string.h>

#include "layer.h"
#include "status.h"

static fp4moe_status take_shape(const fp4moe_layer_desc *desc, fp4moe_layer_desc *own,
                                fp4moe_shape *shape) {
  fp4moe_status status = fp4moe_take_struct(own, sizeof *own, desc, "fp4moe_layer_desc");
  if (!status) status = fp4moe_layer_desc_check(own);
  if (!status) fp4moe_shape_of(own, shape);
  return status;
}

size_t fp4moe_record_bytes(const fp4moe_layer_desc *desc) {
  fp4moe_layer_desc own;
  fp4moe_shape shape;
  return take_shape(desc, &own, &shape) ? 0 : shape.bytes;
}

static fp4moe_status check_address(const void *record) {
  if (record && (uintptr_t)record % FP4MOE_ALIGN == 0) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "records at %p, expected a multiple of %d", record,
                     (int)FP4MOE_ALIGN);
}

fp4moe_status fp4moe_record_write(const fp4moe_layer_desc *desc,
                                  const fp4moe_expert_weights *weights, void *record) {
  fp4moe_layer_desc own;
  fp4moe_expert_weights w;
  fp4moe_shape shape;
  fp4moe_status status = take_shape(desc, &own, &shape);
  if (!status) status = fp4moe_take_struct(&w, sizeof w, weights, "fp4moe_expert_weights");
  if (!status) status = check_address(record);
  return status ? status : fp4moe_record_pack(&own, &shape, &w, record);
}

fp4moe_status fp4moe_layer_set_record(fp4moe_layer *layer, size_t e, const void *record) {
  fp4moe_status status = check_address(record);
  if (!status) status = fp4moe_layer_claim(layer, e);
  if (status) return status;
  status = fp4moe_record_verify(&layer->desc, &layer->shape, record);
  if (!status) fp4moe_shards_copy(layer, e, record);
  atomic_store(&layer->state[e], status ? 0 : 2);
  return status;
}

static fp4moe_status check_records(const fp4moe_layer *layer, const fp4moe_records *records) {
  fp4moe_status status = check_address(records->data);
  if (status) return status;
  if (records->bytes != fp4moe_layer_bytes(layer))
    return fp4moe_fail(FP4MOE_INVALID, "records of %zu bytes, but %zu experts of %zu are %zu",
                       records->bytes, layer->desc.experts, layer->shape.bytes,
                       fp4moe_layer_bytes(layer));
  for (size_t e = 0; e < layer->desc.experts && !status; e++) {
    const uint8_t *record = (const uint8_t *)records->data + e * layer->shape.bytes;
    status = (records->verify ? fp4moe_record_verify : fp4moe_record_check)(&layer->desc,
                                                                            &layer->shape, record);
    if (status) fp4moe_fail_in("expert %zu", e);
  }
  return status;
}

fp4moe_status fp4moe_layer_map(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                               const fp4moe_records *records, fp4moe_layer **out) {
  fp4moe_layer *layer;
  fp4moe_records r;
  fp4moe_status status = fp4moe_take_struct(&r, sizeof r, records, "fp4moe_records");
  if (!status) status = fp4moe_layer_new(ctx, desc, out ? &layer : NULL);
  if (status) return status;
  if (layer->desc.shards > 1)
    status =
        fp4moe_fail(FP4MOE_INVALID, "shards is %zu, mapped records make one", layer->desc.shards);
  if (!status) status = check_records(layer, &r);
  if (!status) {
    layer->shard[0].records = (uint8_t *)(uintptr_t)r.data;
    for (size_t e = 0; e < layer->desc.experts; e++) atomic_store(&layer->state[e], 2);
    status = fp4moe_layer_finish(layer);
  }
  if (status) {
    layer->shard[0].records = NULL;
    fp4moe_layer_destroy(layer);
    return status;
  }
  layer->mapped = r;
  *out = layer;
  return FP4MOE_OK;
}
