#!/usr/bin/env bash
# check_rules.sh - gathers what tests/rules.awk judges, from what was built: the files that each source
# includes (the compiler's dependency files), its symbols and variables (the objects), the instruction
# sets that a file's name can ask for (isas.mk). NM and SIZE name the tools.
#
#   tests/check_rules.sh BUILD
set -uo pipefail
build=${1:?usage: tests/check_rules.sh BUILD}
nm=${NM:-nm} size=${SIZE:-size}

# Objects of sources that are still there.
mapfile -t sources < <(cd "$build" && find kernels src autotune tests -name '*.o' | sort | sed 's/\.o$/.c/' |
  while read -r source; do [ ! -e "${OLDPWD}/$source" ] || echo "$source"; done)
mapfile -t objects < <(printf "$build/%s\n" "${sources[@]/%.c/.o}")

{
  sed -nE 's/^ISA_([a-z0-9]+) .*/isa \1/p' "$build/isas.mk"
  printf 'source %s\n' "${sources[@]}"
  $nm -D --defined-only "$build/libfp4moe.so" | awk '{sub(/@.*/, ""); print "exported", $NF}'
  $nm -A "${objects[@]}" | awk -v build="$build/" '{
    source = substr($1, length(build) + 1)
    sub(/[.]o:.*/, ".c", source)
    print "symbol", source, $(NF - 1), $NF}'
  $size -A "${objects[@]}" | awk -v build="$build/" '
    / +:$/ {source = substr($1, length(build) + 1); sub(/[.]o$/, ".c", source)}
    /^[.]/ && $2 > 0 {print "section", source, $1}'
  awk -v build="$build/" '
    FNR == 1 {whole = 0; source = substr(FILENAME, length(build) + 1); sub(/[.]d$/, ".c", source)}
    !whole {for (i = 1; i <= NF; i++) if ($i ~ /^[a-z]+\/.*[.](h|inc)$/) print "include", source, $i}
    !/\\$/ {whole = 1}' "${objects[@]/%.o/.d}"
} >"$build/rules"
awk -f tests/rules.awk "$build/rules"
