/* check_profile.c - what a profiler sees of a call: every kernel under a symbol of its own, frame
 * pointers from inside of it to the application, workers with names.
 *
 * Each row runs in a layer, in memory that faults. At a fault, which is a sample taken within the
 * row, the frames are walked as perf does: the row must stand among them under its name, then the
 * call, and last the frame of the test. The page is opened and the row goes on to its next fault.
 */
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include "layer_call.h"
#include "pool.h"

/* ---- Symbols of this program ---- */

typedef struct symbol {
  uintptr_t at, end;
  const char *name;
} symbol;
static symbol *symbols;
static size_t symbol_count;

static int first_object(struct dl_phdr_info *info, size_t size, void *base) {
  (void)size;
  *(uintptr_t *)base = info->dlpi_addr;
  return 1;
}

/* The table of functions of an ELF file in memory, which stays: names point into it. */
static void take_symbols(const uint8_t *file) {
  const ElfW(Ehdr) *head = (const void *)file;
  const ElfW(Shdr) *section = (const void *)(file + head->e_shoff);
  uintptr_t base = 0;
  dl_iterate_phdr(first_object, &base);
  for (size_t i = 0; i < head->e_shnum; i++) {
    if (section[i].sh_type != SHT_SYMTAB) continue;
    const ElfW(Sym) *s = (const void *)(file + section[i].sh_offset);
    const char *names = (const char *)file + section[section[i].sh_link].sh_offset;
    size_t n = section[i].sh_size / sizeof *s;
    symbols = malloc(n * sizeof *symbols);
    for (size_t j = 0; j < n; j++)
      if (ELF64_ST_TYPE(s[j].st_info) == STT_FUNC && s[j].st_size)
        symbols[symbol_count++] = (symbol){
            base + s[j].st_value, base + s[j].st_value + s[j].st_size, names + s[j].st_name};
  }
}

static void load_symbols(void) {
  struct stat stat;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (symbol_count || fd < 0 || fstat(fd, &stat)) return;
  const uint8_t *file = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (file != MAP_FAILED) take_symbols(file);
}

/* "" where there is none. */
static const char *name_at(uintptr_t at) {
  for (size_t i = 0; i < symbol_count; i++)
    if (at >= symbols[i].at && at < symbols[i].end) return symbols[i].name;
  return "";
}

/* One function has the row's name, no clone of it does, and no other has its address. */
static void one_symbol(const fp4moe_kernel *row) {
  uintptr_t at = (uintptr_t)check_kernel(row->name)->fn.quant;
  size_t n = strlen(row->name), named = 0;
  load_symbols();
  for (size_t i = 0; i < symbol_count; i++) {
    int own = !strcmp(symbols[i].name, row->name);
    named += own && symbols[i].at == at;
    CHECK(own || strncmp(symbols[i].name, row->name, n) || symbols[i].name[n] != '.', "clone %s",
          symbols[i].name);
    CHECK(own || symbols[i].at != at, "%s is at the same address", symbols[i].name);
  }
  CHECK(named == 1, "%zu functions of its name at its address", named);
}

/* ---- Frames ---- */

typedef struct frame {
  const struct frame *caller;
  uintptr_t back;
} frame;

enum { AREAS = 3, MAX_FRAMES = 32 };

/* The row under test and its trap. */
static struct {
  const fp4moe_kernel *row;
  const frame *test, *wrapper; /* frames of the test and of what calls the row */
  struct {
    uint8_t *at;
    size_t bytes;
  } area[AREAS];
  int armed;
  size_t samples, foreign, unnamed, lost; /* foreign: within libc, which has no frames */
} trap;

static void protect(int how) {
  for (int i = 0; i < AREAS; i++)
    if (mprotect(trap.area[i].at, trap.area[i].bytes, how)) abort();
}

#if defined(__x86_64__)
static uintptr_t pc_of(const ucontext_t *c) { return (uintptr_t)c->uc_mcontext.gregs[REG_RIP]; }
static const frame *frame_of(const ucontext_t *c) {
  return (const void *)c->uc_mcontext.gregs[REG_RBP];
}
#elif defined(__aarch64__)
static uintptr_t pc_of(const ucontext_t *c) { return (uintptr_t)c->uc_mcontext.pc; }
static const frame *frame_of(const ucontext_t *c) { return (const void *)c->uc_mcontext.regs[29]; }
#endif

/* The caller's frame lies above; NULL where the chain has left the stack up to the test. */
static const frame *next_frame(const frame *f) {
  const frame *up = f->caller;
  return up > f && up <= trap.test && !((uintptr_t)up % sizeof(void *)) ? up : NULL;
}

/* Walks from a sample: is the row there or among the frames below the wrapper, the call above it,
 * and does the chain end in the test? (gcc gives a leaf that needs no stack no frame: the walk then
 * misses the leaf's caller, and no more.) */
static void sample(const ucontext_t *c) {
  uintptr_t pc = pc_of(c);
  const frame *f = frame_of(c);
  int in_row = 0, in_call = 0, above = 0;
  if (!*name_at(pc)) {
    trap.foreign++;
    return;
  }
  trap.samples++;
  if (f > trap.test || (const void *)f < (const void *)&c) {
    trap.lost++;
    return;
  }
  for (int depth = 0; f && f != trap.test && depth < MAX_FRAMES; depth++, f = next_frame(f)) {
    const char *name = name_at(pc);
    in_row |= !above && !strcmp(name, trap.row->name);
    above |= f == trap.wrapper;
    in_call |= above && !strcmp(name, "fp4moe_call_run");
    pc = f->back - 1;
  }
  trap.unnamed += !in_row;
  trap.lost += f != trap.test || !in_call;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)info->si_addr / page * page;
  int known = 0;
  (void)signal;
  for (int i = 0; i < AREAS; i++) known |= at - (uintptr_t)trap.area[i].at < trap.area[i].bytes;
  if (!known || !trap.armed) abort();
  sample(context);
  mprotect((void *)at, page, PROT_READ | PROT_WRITE);
}

/* Each stands for the row in the plan, and shuts all memory before it. */
#define WRAPPER(op, parameters, arguments)                                                         \
  __attribute__((noinline)) static void shut_##op parameters {                                     \
    trap.wrapper = __builtin_frame_address(0);                                                     \
    protect(PROT_NONE);                                                                            \
    trap.row->fn.op arguments;                                                                     \
    protect(PROT_READ | PROT_WRITE);                                                               \
  }
WRAPPER(unpack, (const uint8_t *n, const uint8_t *s, size_t k, void *panel), (n, s, k, panel))
WRAPPER(quant,
        (const void *x, fp4moe_dtype type, size_t k, void *row, size_t k0, size_t row_k, float g),
        (x, type, k, row, k0, row_k, g))
WRAPPER(matmul, (const fp4moe_matmul *t), (t))
WRAPPER(act, (const fp4moe_act_args *a), (a))
WRAPPER(combine, (const fp4moe_combine_args *a), (a))
WRAPPER(store,
        (size_t n, size_t parts, const float *p, size_t s, fp4moe_dtype type, int add, void *y),
        (n, parts, p, s, type, add, y))

static fp4moe_kernel wrapped(const fp4moe_kernel *row) {
  fp4moe_kernel k = *row;
  switch (row->op) {
  case FP4MOE_OP_UNPACK:
    k.fn.unpack = shut_unpack;
    break;
  case FP4MOE_OP_QUANT:
    k.fn.quant = shut_quant;
    break;
  case FP4MOE_OP_ACT:
    k.fn.act = shut_act;
    break;
  case FP4MOE_OP_COMBINE:
    k.fn.combine = shut_combine;
    break;
  case FP4MOE_OP_STORE:
    k.fn.store = shut_store;
    break;
  default:
    k.fn.matmul = shut_matmul;
  }
  return k;
}

/* The plan with `to` wherever it has `from`. */
static void replace(fp4moe_plan *p, const fp4moe_kernel *from, const fp4moe_kernel *to) {
  const fp4moe_kernel **ends[] = {&p->quant, &p->act, &p->combine, &p->store};
  for (int i = 0; i < 4; i++)
    if (*ends[i] == from) *ends[i] = to;
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    for (int b = 0; b < FP4MOE_BUCKETS; b++) {
      fp4moe_recipe *r = &p->recipe[phase][b];
      const fp4moe_kernel **of[] = {&r->gemv, &r->unpack, &r->gemm};
      for (int i = 0; i < 3; i++)
        if (*of[i] == from) *of[i] = to;
    }
}

/* Pages for one of the areas: the trap is shut by whole pages. */
static void *area(int i, size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
  void *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) abort();
  trap.area[i].at = at;
  trap.area[i].bytes = whole;
  return at;
}

/* Every packed byte of the only layer. */
static void *allocate_weights(void *user, size_t bytes, size_t alignment) {
  (void)user, (void)alignment;
  return area(0, bytes);
}
static void keep_weights(void *user, void *memory, size_t bytes) {
  (void)user, (void)memory, (void)bytes;
}

/* A layer that the row serves. */
static fp4moe_layer_desc desc_for(const fp4moe_kernel *row) {
  static const fp4moe_precision precisions[] = {
      [FP4MOE_ACT_F32] = FP4MOE_PRECISION_F32,     [FP4MOE_ACT_BF16] = FP4MOE_PRECISION_BF16,
      [FP4MOE_ACT_I8] = FP4MOE_PRECISION_INT8,     [FP4MOE_ACT_MXFP8] = FP4MOE_PRECISION_MXFP8,
      [FP4MOE_ACT_NVFP4] = FP4MOE_PRECISION_NVFP4,
  };
  fp4moe_layer_desc d = {.struct_size = sizeof d, .hidden = 64, .intermediate = 64, .experts = 1};
  d.format = row->format == FP4MOE_ANY ? FP4MOE_MXFP4 : (fp4moe_format)row->format;
  d.precision = row->act == FP4MOE_ANY ? FP4MOE_PRECISION_F32 : precisions[row->act];
  d.activation.kind = row->kind == FP4MOE_ANY ? FP4MOE_SILU : (fp4moe_activation_kind)row->kind;
  d.activation.gated = row->kind == FP4MOE_ANY || row->gated;
  if (d.activation.kind == FP4MOE_SWIGLU_OAI) d.activation.alpha = 1;
  if (d.activation.kind == FP4MOE_SWIGLUSTEP) d.activation.limit = 1;
  if (d.activation.kind == FP4MOE_SITU) d.activation.beta = 1;
  return d;
}

__attribute__((noinline)) static void run_trapped(fp4moe_layer *layer, const fp4moe_plan *plan,
                                                  const fp4moe_batch *b, void *workspace,
                                                  size_t bytes) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, old;
  trap.test = __builtin_frame_address(0);
  trap.armed = 1;
  sigaction(SIGSEGV, &action, &old);
  fp4moe_status status = fp4moe_layer_forward_plan(layer, plan, b, workspace, bytes);
  sigaction(SIGSEGV, &old, NULL);
  trap.armed = 0;
  CHECK(!status, "%s", fp4moe_error_detail());
}

static void trap_row(fp4moe_context *ctx, const fp4moe_kernel *row) {
  fp4moe_layer_desc d = desc_for(row);
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_layer *layer = layer_of(m, ctx);
  if (!layer) return;
  fp4moe_kernel shut = wrapped(row);
  fp4moe_plan plan = *fp4moe_layer_plan(layer);
  replace(&plan, row, &shut);
  problem p = draw(&m->desc, row->op == FP4MOE_OP_GEMV ? 1 : 40, 1, 0);
  size_t bytes = fp4moe_plan_workspace_bytes(layer, &plan, p.tokens, 1, 1, p.tokens);
  fp4moe_batch b = batch_of(&p);
  b.threads = 1;
  b.y = area(2, p.tokens * p.hidden * sizeof(float));
  run_trapped(layer, &plan, &b, area(1, bytes), bytes);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

static void frame_pointers(const fp4moe_kernel *row) {
  if (getenv("CHECK_MEMCHECK")) {
    check_skip("frame pointers", "their traps are errors to memcheck");
    return;
  }
  memset(&trap, 0, sizeof trap);
  trap.row = check_kernel(row->name);
  load_symbols();
  CHECK(symbol_count, "this program has no .symtab");
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.kernels = row->name,
                                                           .max_threads = 1,
                                                           .allocate = allocate_weights,
                                                           .release = keep_weights});
  if (ctx) trap_row(ctx, trap.row);
  CHECK(trap.samples, "no sample in it, %zu in libc", trap.foreign);
  CHECK(trap.unnamed < trap.samples, "none of %zu samples is below the row's symbol", trap.samples);
  CHECK(!trap.lost, "%zu of %zu samples do not lead to the call and to the test", trap.lost,
        trap.samples);
  for (int i = 0; i < AREAS; i++)
    if (trap.area[i].at) munmap(trap.area[i].at, trap.area[i].bytes);
  fp4moe_context_destroy(ctx);
}

/* ---- Threads ---- */

typedef struct names {
  char of[3][16];
} names;

static void ask_name(void *arg, size_t i) {
  names *n = arg;
  pthread_getname_np(pthread_self(), n->of[i], sizeof n->of[i]);
}

static void thread_names(void) {
  names n = {0};
  char before[16], after[16];
  fp4moe_pool *pool = fp4moe_pool_create(3, NULL, 1);
  pthread_getname_np(pthread_self(), before, sizeof before);
  fp4moe_pool_run(pool, 3, ask_name, &n);
  pthread_getname_np(pthread_self(), after, sizeof after);
  CHECK(!strcmp(n.of[1], "fp4moe/1") && !strcmp(n.of[2], "fp4moe/2"), "%s, %s", n.of[1], n.of[2]);
  CHECK(!strcmp(before, after) && !strcmp(n.of[0], before), "the caller was renamed: %s", after);
  fp4moe_pool_destroy(pool);
}

void check_profile(void) {
  CU_pSuite suite = check_suite("profile");
  check_test(suite, "thread names", thread_names);
  for (int op = 0; op < FP4MOE_OPS; op++) {
    check_rows(suite, "one symbol", (fp4moe_op)op, one_symbol);
    check_rows(suite, "frame pointers", (fp4moe_op)op, frame_pointers);
  }
}
