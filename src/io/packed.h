/* packed.h - packed files: all MoE layers of a checkpoint as records that layers read in place.
 *
 *   head | layer 0 | layer 1 | ... | padding | records of 0 | padding | records of 1 | ...
 *
 * A layer's records [E] lie without gaps from a multiple of 64 KiB, so that each layer is mapped by
 * itself with any page size. Nothing follows the last record. All numbers are little-endian; the
 * checksums form a chain: the head's covers the entries, an entry's the headers of its records, a
 * record's its data. So one glance at the head and the touch of each record's first bytes tells
 * whether everything is there and fits; only `verify` reads the data. What the entries hold is
 * class-independent: precision is the caller's at load time. */
#ifndef FP4MOE_IO_PACKED_H
#define FP4MOE_IO_PACKED_H

#include "io/checkpoint.h"
#include "io/file.h"
#include "layout.h"

#define IO_PACKED_MAGIC UINT64_C(0x314b43415034462e) /* ".F4PACK1" */
enum { IO_PACKED_VERSION = 1, IO_PACKED_ALIGN = 65536, IO_PACKED_LAYERS = 32768 };

struct io_packed_layer {
  uint64_t layer, hidden, intermediate, experts;
  uint64_t top_k;               /* 0: not known */
  uint64_t offset, bytes;       /* of the records in the file; experts * record_bytes */
  uint64_t record_bytes;        /* fp4moe_record_bytes */
  uint64_t headers_sum;         /* fp4moe_io_packed_chain over the records' headers */
  uint64_t source_bytes;        /* of the tensors it was made of */
  uint32_t format, gated, kind; /* fp4moe_format, fp4moe_activation */
  uint32_t router_weight_on_input;
  float alpha, beta, limit, linear_beta;
  float input_scale_gate_up, input_scale_down; /* of all experts; 0: one has none */
  uint32_t reserved[2];                        /* 0 */
  char family[64];                             /* texts end in 0 and are 0 from there on */
  char prefix[320];
};

struct io_packed_head {
  uint64_t magic;
  uint32_t version, layout, record_version, layers;
  uint64_t head_bytes; /* with the entries */
  uint64_t file_bytes;
  uint64_t checksum; /* over head_bytes, this field being 0 */
  uint64_t identity; /* of the weights: over the entries, whatever the source is called */
  uint64_t reserved; /* 0 */
  char source[192];  /* the checkpoint's path, its end if it is too long */
};

_Static_assert(sizeof(struct io_packed_layer) == 512, "an entry of the file");
_Static_assert(sizeof(struct io_packed_head) == 256, "the head of the file");
/* A field that the desc gains must get its place in the entry, or a new version number. */
_Static_assert(sizeof(fp4moe_layer_desc) == 88, "io_packed_layer holds every field but shards");

struct io_packed {
  struct io_file file;
  struct io_packed_head *head;          /* head_bytes of it */
  const struct io_packed_layer *layers; /* [head->layers], behind the head */
  int verify, copy;
};

/* The desc that an entry stands for, class BF16. */
fp4moe_layer_desc fp4moe_io_packed_desc(const struct io_packed_layer *entry);

/* Where the next layer's records may begin. 0: overflow. */
int fp4moe_io_packed_align(uint64_t end, uint64_t *offset);

uint64_t fp4moe_io_packed_chain(uint64_t sum, const void *record);
uint64_t fp4moe_io_packed_checksum(const struct io_packed_head *head);
uint64_t fp4moe_io_packed_identity(const struct io_packed_head *head);

/* *packed NULL: the path is no packed file nor a directory with one. INVALID: it is one and breaks
 * a rule, or a directory has safetensors files too. */
fp4moe_status fp4moe_io_packed_open(const char *path, const fp4moe_open_options *options,
                                    struct io_packed **packed);
void fp4moe_io_packed_close(struct io_packed *packed); /* NULL: nothing */

/* A finished layer: on a map of its own, or a copy. UNSUPPORTED: a part of I, which packing cuts.
 */
fp4moe_status fp4moe_io_packed_load(const struct io_packed *packed,
                                    const struct io_packed_layer *entry, const struct io_part *part,
                                    fp4moe_context *context, fp4moe_layer **layer);

#endif
