/* packed.c - fuzz target: one packed file, written short: the head with its entries, and then the
 * records of the first layer without the padding before them. A checksum of 0 is replaced by the
 * right one, which no fuzzer would find; the file is as long as its head says, if that is little.
 */
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "io/packed.h"

static void fix_sums(struct io_packed_head *head, size_t bytes) {
  if (head->checksum || bytes < sizeof *head ||
      head->layers > (bytes - sizeof *head) / sizeof(struct io_packed_layer))
    return;
  head->identity = fp4moe_io_packed_identity(head);
  head->checksum = fp4moe_io_packed_checksum(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static _Alignas(64) uint8_t file[1 << 20];
  struct io_packed_head *head = (void *)file;
  fuzz_status = FP4MOE_OK;
  if (size < sizeof *head || size > sizeof file) return 0;
  memcpy(file, data, size);
  head->magic = IO_PACKED_MAGIC;
  fix_sums(head, size);
  size_t first = head->head_bytes < size ? (size_t)head->head_bytes : size;
  const char *path = fuzz_file(file, first);
  if (pwrite(fuzz_file_number(), file + first, size - first, IO_PACKED_ALIGN) < 0) return 0;
  if (head->file_bytes < 1 << 24 && ftruncate(fuzz_file_number(), (off_t)head->file_bytes))
    return 0;
  for (int copy = 0; copy < 2; copy++) {
    const fp4moe_open_options options = {sizeof options, copy, copy};
    fuzz_checkpoint(path, &options);
  }
  return 0;
}
