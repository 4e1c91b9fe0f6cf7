/* slice.c - one rank's part of a layer (fp4moe_io.h).
 *
 * Experts divide as evenly as they can, for a rank with one more costs nothing but its memory. I
 * divides evenly or not at all, and never within a group that shares a scale: its down matrix is
 * cut along K. */
#include "fp4moe_io.h"
#include "layout.h"
#include "status.h"

static fp4moe_status slice_experts(const fp4moe_slice *slice, fp4moe_layer_desc *part,
                                   size_t *first) {
  size_t experts = part->experts;
  if (experts < slice->ranks)
    return fp4moe_fail(FP4MOE_INVALID, "%zu ranks, but the layer has %zu experts", slice->ranks,
                       experts);
  *first = slice->rank * experts / slice->ranks;
  part->experts = (slice->rank + 1) * experts / slice->ranks - *first;
  return FP4MOE_OK;
}

static fp4moe_status slice_intermediate(const fp4moe_slice *slice, fp4moe_layer_desc *part,
                                        size_t *first) {
  size_t whole = part->intermediate, group = fp4_group(part->format);
  if (whole % slice->ranks || whole / slice->ranks % group || whole < slice->ranks)
    return fp4moe_fail(
        FP4MOE_INVALID,
        "intermediate %zu / %zu ranks = %zu remainder %zu: not a multiple of the %zu "
        "that share a scale",
        whole, slice->ranks, whole / slice->ranks, whole % slice->ranks, group);
  part->intermediate = whole / slice->ranks;
  *first = slice->rank * part->intermediate;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_slice_desc(const fp4moe_slice *slice, const fp4moe_layer_desc *whole,
                                fp4moe_layer_desc *part, size_t *first) {
  fp4moe_slice own;
  fp4moe_layer_desc desc;
  size_t from = 0;
  if (!slice || !whole || !part)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_slice_desc: NULL argument");
  fp4moe_status status = fp4moe_take_struct(&own, sizeof own, slice, "fp4moe_slice");
  if (status == FP4MOE_OK)
    status = fp4moe_take_struct(&desc, sizeof desc, whole, "fp4moe_layer_desc");
  if (status != FP4MOE_OK) return status;
  if (own.split > FP4MOE_SPLIT_INTERMEDIATE)
    return fp4moe_fail(FP4MOE_INVALID, "slice.split is %d", (int)own.split);
  if (own.split != FP4MOE_SPLIT_NONE && own.rank >= own.ranks)
    return fp4moe_fail(FP4MOE_INVALID, "slice.rank is %zu of %zu ranks", own.rank, own.ranks);
  if (own.split == FP4MOE_SPLIT_EXPERTS) status = slice_experts(&own, &desc, &from);
  if (own.split == FP4MOE_SPLIT_INTERMEDIATE) status = slice_intermediate(&own, &desc, &from);
  if (status != FP4MOE_OK) return status;
  *part = desc;
  if (first) *first = from;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_slice_expert_map(const fp4moe_slice *slice, const fp4moe_layer_desc *whole,
                                      int32_t *map) {
  fp4moe_layer_desc part;
  size_t first;
  if (!map) return fp4moe_fail(FP4MOE_INVALID, "fp4moe_slice_expert_map: NULL argument");
  fp4moe_status status = fp4moe_slice_desc(slice, whole, &part, &first);
  if (status != FP4MOE_OK) return status;
  if (slice->split != FP4MOE_SPLIT_EXPERTS) first = 0;
  for (size_t e = 0; e < whole->experts; e++)
    map[e] = e >= first && e - first < part.experts ? (int32_t)(e - first) : -1;
  return FP4MOE_OK;
}
