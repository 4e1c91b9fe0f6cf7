# rules.awk - the rules between the rooms (tests/check_rules.sh gathers the facts; make rules).
#
# Dependence runs one way: kernels <- src <- src/io <- src/cli, autotune <- tests. kernels/ is pure: no
# memory of its own, threads, files or variables, and a file's functions end in its instruction set.
# src/forward.c decides nothing and allocates nothing. Each other library belongs to few files. A source
# passes, or each breach is a line.

BEGIN {
  # Room, and the files that its files may include, directly or not.
  include["kernels"] = "^(kernels/|include/fp4moe[.]h)"
  include["src"] = "^(src/[^/]*$|kernels/|include/fp4moe[.]h)"
  include["src/io"] = "^(src/io/|src/(status|checksum|activation|input_scale|cpu|text)[.]h|kernels/|include/)"
  include["src/cli"] = "^(src/|kernels/|include/|autotune/(measure|ceilings|presets|counters)[.]h)"
  include["autotune"] = "^(autotune/|src/|kernels/|include/)"
  include["tests"] = "."

  # Room, and the files whose functions it may call. "exported": the functions that libfp4moe.so has
  # for others, all that libfp4moe_io.so can have of it.
  call["kernels"] = "^kernels/"
  call["src"] = "^(src/[^/]*$|kernels/)"
  call["src/io"] = "^(src/io/|exported)"
  call["src/cli"] = "^(src/|kernels/|autotune/)"
  call["autotune"] = "^(autotune/|src/|kernels/)"
  call["tests"] = "."
  decides = "^src/(oracle|table|table_find|table_write|registry|report|host|environment)[.]c"

  # Functions of no file here, and the files that may call them.
  library["^json_"] = "^(src/(io|cli)|autotune|tests)/"
  library["^hwloc_"] = "^(autotune/(topology|places)[.]c|tests/)"
  library["^pfm_"] = "^autotune/counters[.]c"
  library["^numa_"] = "^src/numa[.]c"
  library["^CU_"] = "^tests/"
  of_kernels = "^(mem(set|cpy|move|cmp)|fmaf|nearbyintf|_GLOBAL_OFFSET_TABLE_)$"
  allocates = "^((m|c|re|aligned_)alloc|free|mmap|munmap)$"

  # Where a file's name may end in an instruction set, which gives it the compiler's flags.
  isa_files = "^(kernels/|autotune/ceiling_|tests/evex_)"
}

function room(path) {
  return match(path, /^src\/(io|cli)\//) ? substr(path, 1, RLENGTH - 1) : substr(path, 1, index(path, "/") - 1)
}

function breach(source, what) {
  print source " " what
  bad[source] = 1
}

function suffix(path) {
  sub(/[.]c$/, "", path)
  return path ~ /_/ ? substr(path, match(path, /_[^_]*$/) + 1) : ""
}

$1 == "isa" {isa[$2] = 1}
$1 == "exported" {exported[$2] = 1}

$1 == "source" {
  sources++
  if ($2 ~ /^kernels\// && !(suffix($2) in isa)) breach($2, "has no instruction set's suffix")
  if ($2 !~ isa_files && suffix($2) in isa) breach($2, "would be compiled for " suffix($2))
}

$1 == "include" && $3 !~ include[room($2)] {
  breach($2, "includes " $3 "; files of " room($2) " may include " include[room($2)])
}

$1 == "section" && $2 ~ /^kernels\// && $3 ~ /^[.]t?(data|bss)/ && $3 !~ /^[.]data[.]rel[.]ro/ {
  breach($2, "has variables (" $3 "), a kernel has none")
}

$1 == "symbol" && $3 == "U" {calls[++called] = $2 " " $4}
$1 == "symbol" && $3 ~ /[A-TV-Z]/ {
  home[$4] = $2
  if ($2 ~ /^kernels\// && $4 !~ "_" suffix($2) "(_[a-z0-9]+)?$") breach($2, "defines " $4 ", not of its instruction set")
}

# A call of a function that is here.
function judge(source, name, from,    may) {
  may = call[room(source)]
  if (source == "src/forward.c" && from ~ decides) breach(source, "calls " name " of " from ", where is decided")
  if (from == source || from ~ may || name in exported && "exported" ~ may) return
  breach(source, "calls " name " of " from "; " room(source) " may call " may)
}

# A call of another library's.
function judge_library(source, name,    l) {
  if (source ~ /^kernels\// && name !~ of_kernels) breach(source, "calls " name ", a kernel calls " of_kernels)
  if (source == "src/forward.c" && name ~ allocates) breach(source, "calls " name ", a call allocates nothing")
  for (l in library)
    if (name ~ l && source !~ library[l]) breach(source, "calls " name ", which is for " library[l])
}

END {
  for (i = 1; i <= called; i++) {
    split(calls[i], c, " ")
    if (c[2] in home) judge(c[1], c[2], home[c[2]])
    else judge_library(c[1], c[2])
  }
  for (source in bad) failed++
  printf "%d passed, %d failed, 0 skipped\n", sources - failed, failed
  exit failed || !sources
}
