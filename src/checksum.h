/* checksum.h - four multiply-xor chains over 8-byte words: guards against rot, not against malice.
 *
 * Any one changed word gives another sum. Exported from the shared library for libfp4moe_io only;
 * not part of the public interface. */
#ifndef FP4MOE_CHECKSUM_H
#define FP4MOE_CHECKSUM_H

#include "fp4moe.h"

/* Of whole 32-byte groups: `bytes` is a multiple of 32. */
FP4MOE_API uint64_t fp4moe_checksum(const void *data, size_t bytes);

#endif
