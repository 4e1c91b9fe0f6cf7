/* table_file.h - a selection table of this host in the scratch directory of the running test:
 * saved, changed as text, loaded again. */
#ifndef FP4MOE_TABLE_FILE_H
#define FP4MOE_TABLE_FILE_H

#include "context.h"
#include "scratch.h"

/* Of the table: "<scratch>/a/table", whose directory the writer makes. */
extern fp4moe_host table_host;
extern fp4moe_isa table_isa;
extern char table_path[80];

/* Opens the scratch directory; scratch_close closes it. */
void table_file_open(void);

/* What fails here fails the test. */
void table_file_save(const fp4moe_table *t);
fp4moe_table *table_file_load(void); /* freed by the caller */

/* Loads the file with `from` replaced by `to`, the first one from the text `after` on. */
fp4moe_table *table_file_edited(const char *after, const char *from, const char *to);

#endif
