/* activation.h - the activation kinds by name, and which fields each has. What is exported is so
 * for libfp4moe_io only; not part of the public interface. */
#ifndef FP4MOE_ACTIVATION_H
#define FP4MOE_ACTIVATION_H

#include "text.h"

/* "silu", "swiglu_oai", ...; "unknown" for what is no kind. */
FP4MOE_API const char *fp4moe_activation_name(fp4moe_activation_kind kind);

/* UNSUPPORTED: no such kind, or not gated (ungated). INVALID: the field by name and its value. */
FP4MOE_API fp4moe_status fp4moe_activation_check(const fp4moe_activation *a);

/* "swiglu_oai alpha 1.702 beta 1 limit 7", "gelu ungated": the name, and the fields that are not
 * 0. Room for it: */
enum { FP4MOE_ACTIVATION_TEXT = 128 };
void fp4moe_activation_text(const fp4moe_activation *a, char text[FP4MOE_ACTIVATION_TEXT]);

/* " --activation swiglu_oai --alpha 1.70200002 --beta 1 --limit 7": as the programs take it, every
 * field that the kind has, exactly. */
void fp4moe_activation_flags(const fp4moe_activation *a, fp4moe_text *out);

#endif
