/* library.c - tables of the public functions (library.h). A file is loaded beside this program with
 * its symbols to itself; the version that its symbols bear must be this program's. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

#define TEXT(word)    #word
#define TEXT_OF(word) TEXT(word)
/* src/fp4moe.map */
static const char interface[] = "FP4MOE_" TEXT_OF(FP4MOE_VERSION_MAJOR);

#define OWN(name) .name = fp4moe_##name,
const library own_library = {LIBRARY_FUNCTIONS(OWN)};

#define PLACE(name) {"fp4moe_" #name, offsetof(library, name)},
static const struct {
  const char *name;
  size_t offset;
} functions[] = {LIBRARY_FUNCTIONS(PLACE)};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

int library_is_file(const char *against) {
  size_t n = strlen(against);
  return strchr(against, '/') || (n >= 3 && !strcmp(against + n - 3, ".so"));
}

/* Of a name without a / the file here, not one of the system's directories. */
static void *load(const char *path) {
  size_t bytes = strlen(path) + 3;
  char *here = allocate(bytes, 1);
  snprintf(here, bytes, "%s%s", strchr(path, '/') ? "" : "./", path);
  void *handle = dlopen(here, RTLD_NOW | RTLD_LOCAL);
  if (!handle) die("--against: %s", dlerror());
  free(here);
  return handle;
}

static void *find(const library *l, void *handle, const char *name) {
  void *function = dlvsym(handle, name, interface);
  if (function) return function;
  if (dlsym(handle, name)) die("--against %s: its %s is not of %s", l->path, name, interface);
  die("--against %s: it has no %s: no libfp4moe.so, or of another version", l->path, name);
}

library library_open(const char *path) {
  library l = {.path = path};
  void *handle = load(path);
  for (int i = 0; i < FUNCTIONS; i++) {
    void *function = find(&l, handle, functions[i].name);
    memcpy((char *)&l + functions[i].offset, &function, sizeof function);
  }
  return l;
}

void library_require(const library *l, fp4moe_status status, const char *what) {
  if (!l->path) require(status, what);
  if (status)
    die("--against %s: %s: %s: %s", l->path, what, l->status_name(status), l->error_detail());
}
