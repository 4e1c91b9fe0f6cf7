/* ceilings.c - runs every loop that the CPU has and keeps the best of each kind (ceilings.h).
 *
 * Reads: all threads take 1 MiB pieces of a window of 8 last-level caches, so that a thread that
 * the host delays does not delay the others; windows rotate through 32 caches, because a cache that
 * is read in a circle of 8 still serves some of it (here 7% too much bandwidth). Dots: all threads
 * count their steps until a common time is over. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ceilings.h"
#include "pool.h"

enum { READ, INT8, BF16, F32, KINDS };

typedef struct loop {
  int kind;
  fp4moe_isa isa;
  ceiling_loop *run;
  double step_ops; /* dots: operations of one step */
} loop;

/* Operations: 2 * lanes * products of a lane * chains. */
#define OPS(lanes, products, chains) (2.0 * (lanes) * (products) * (chains))

static const loop loops[] = {
    {READ, FP4MOE_ISA_c, ceiling_read_c, 0},
    {INT8, FP4MOE_ISA_c, ceiling_int8_c, OPS(1, 1, CEILING_CHAINS)},
    {F32, FP4MOE_ISA_c, ceiling_f32_c, OPS(1, 1, CEILING_CHAINS)},
#if defined(__x86_64__)
    {READ, FP4MOE_ISA_avx2, ceiling_read_avx2, 0},
    {READ, FP4MOE_ISA_avx512, ceiling_read_ahead_avx512, 0},
    {READ, FP4MOE_ISA_avx512, ceiling_read_4_avx512, 0},
    {INT8, FP4MOE_ISA_avx2, ceiling_int8_avx2, OPS(16, 2, CEILING_PAIRS *CEILING_PRODUCTS)},
    {INT8, FP4MOE_ISA_avxvnni, ceiling_int8_avxvnni, OPS(8, 4, CEILING_YMM)},
    {INT8, FP4MOE_ISA_avx512, ceiling_int8_avx512, OPS(32, 2, CEILING_CHAINS)},
    {INT8, FP4MOE_ISA_avx512vnni, ceiling_int8_avx512vnni, OPS(16, 4, CEILING_CHAINS)},
    {BF16, FP4MOE_ISA_avx512bf16, ceiling_bf16_avx512bf16, OPS(16, 2, CEILING_CHAINS)},
    {F32, FP4MOE_ISA_avx2, ceiling_f32_avx2, OPS(8, 1, CEILING_YMM)},
    {F32, FP4MOE_ISA_avx512, ceiling_f32_avx512, OPS(16, 1, CEILING_CHAINS)},
#elif defined(__aarch64__)
    {READ, FP4MOE_ISA_neon, ceiling_read_neon, 0},
    {INT8, FP4MOE_ISA_neon, ceiling_int8_neon, OPS(8, 1, CEILING_NEON)},
    {INT8, FP4MOE_ISA_dotprod, ceiling_int8_dotprod, OPS(4, 4, CEILING_NEON)},
    {INT8, FP4MOE_ISA_i8mm, ceiling_int8_i8mm, OPS(4, 8, CEILING_NEON)},
    {BF16, FP4MOE_ISA_bf16neon, ceiling_bf16_bf16neon, OPS(4, 4, CEILING_NEON)},
    {F32, FP4MOE_ISA_neon, ceiling_f32_neon, OPS(4, 1, CEILING_NEON)},
#endif
};

enum {
  REPEATS = 2,         /* of each loop in a round */
  WINDOW_CACHES = 8,   /* the least that counts as memory */
  PIECE = 1 << 20,     /* bytes that a thread reads at a time */
  HUGE_PAGE = 2 << 20, /* bytes */
  UNIT = 2000,         /* steps between two looks at the clock: some 10 us */
  BURST_NS = 3000000,  /* of dots */
  SPIN_NS = 50000,     /* of idle threads */
};

struct ceilings_meter {
  fp4moe_pool *pool;
  fp4moe_isa cap;
  size_t threads;
  void *map;       /* MAP_FAILED: the windows are the caller's */
  uint8_t *buffer; /* in map, on a huge page */
  size_t map_bytes, window_bytes;
  const uint8_t *windows[CEILING_WINDOWS];
  unsigned turn; /* windows read so far */
  /* the present job */
  const loop *loop;
  const uint8_t *window;
  uint64_t start;
  atomic_size_t next;    /* byte to read; steps done */
  _Atomic uint64_t sink; /* results, so that loops are not void */
};

static void read_pieces(void *arg, size_t thread) {
  ceilings_meter *m = arg;
  uint64_t sum = thread;
  for (size_t at; (at = atomic_fetch_add(&m->next, PIECE)) < m->window_bytes;)
    sum += m->loop->run(m->window + at, PIECE);
  m->sink += sum;
}

static void run_dots(void *arg, size_t thread) {
  ceilings_meter *m = arg;
  uint64_t sum = thread;
  do {
    sum += m->loop->run(NULL, UNIT);
    atomic_fetch_add(&m->next, UNIT);
  } while (fp4moe_now_ns() - m->start < BURST_NS);
  m->sink += sum;
}

/* Runs the job of all threads; returns its ns. */
static double time_job(ceilings_meter *m, void (*job)(void *arg, size_t thread)) {
  m->next = 0;
  m->start = fp4moe_now_ns();
  fp4moe_pool_run(m->pool, m->threads, job, m);
  return (double)(fp4moe_now_ns() - m->start);
}

static double read_rate(ceilings_meter *m) {
  m->window = m->windows[m->turn++ % CEILING_WINDOWS];
  return (double)m->window_bytes / time_job(m, read_pieces);
}

static double dot_rate(ceilings_meter *m) {
  double ns = time_job(m, run_dots);
  return (double)m->next * m->loop->step_ops / ns;
}

ceilings ceilings_measure(ceilings_meter *m) {
  double best[KINDS] = {0};
  for (size_t i = 0; i < REPEATS * (sizeof loops / sizeof *loops); i++) {
    m->loop = &loops[i / REPEATS];
    if (m->loop->isa > m->cap || !fp4moe_cpu_has(m->loop->isa)) continue;
    double rate = m->loop->kind == READ ? read_rate(m) : dot_rate(m);
    if (rate > best[m->loop->kind]) best[m->loop->kind] = rate;
  }
  if (best[BF16] < best[F32]) best[BF16] = best[F32];
  return (ceilings){best[READ], best[INT8], best[BF16], best[F32]};
}

/* First use of the pages, by all threads. */
static void fill_pieces(void *arg, size_t thread) {
  ceilings_meter *m = arg;
  (void)thread;
  for (size_t at; (at = atomic_fetch_add(&m->next, HUGE_PAGE)) < CEILING_WINDOWS * m->window_bytes;)
    memset(m->buffer + at, 1, HUGE_PAGE);
}

size_t ceilings_window_bytes(const fp4moe_host *host) {
  return (WINDOW_CACHES * host->llc_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

static int map_buffer(ceilings_meter *m) {
  m->map_bytes = CEILING_WINDOWS * m->window_bytes + HUGE_PAGE;
  m->map = mmap(NULL, m->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m->map == MAP_FAILED) return 0;
  madvise(m->map, m->map_bytes, MADV_HUGEPAGE);
  m->buffer = (uint8_t *)(((uintptr_t)m->map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  for (size_t i = 0; i < CEILING_WINDOWS; i++) m->windows[i] = m->buffer + i * m->window_bytes;
  time_job(m, fill_pieces);
  return 1;
}

ceilings_meter *ceilings_open(const fp4moe_host *host, fp4moe_isa cap, size_t threads,
                              const uint8_t *const windows[CEILING_WINDOWS]) {
  ceilings_meter *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  m->map = MAP_FAILED;
  m->threads = threads;
  m->cap = cap;
  m->pool =
      fp4moe_pool_create(threads, threads <= host->allowed_cores ? host->core_pu : NULL, SPIN_NS);
  m->window_bytes = ceilings_window_bytes(host);
  if (windows) memcpy(m->windows, windows, sizeof m->windows);
  if (!m->pool || (!windows && !map_buffer(m))) {
    ceilings_close(m);
    return NULL;
  }
  return m;
}

void ceilings_close(ceilings_meter *m) {
  if (m->pool) fp4moe_pool_destroy(m->pool);
  if (m->map != MAP_FAILED) munmap(m->map, m->map_bytes);
  free(m);
}
