#!/usr/bin/env bash
# What a profiler finds in the built library and program, and what replays a call: a symbol for each
# row of kernels.inc, the probes, `make perf`, the commands of FP4MOE_VERBOSE's lines.
#   tests/check_profile.sh BUILD
set -u
build=$1
fp4moe=$build/fp4moe
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
export FP4MOE_TABLE=none
unset FP4MOE_KERNEL FP4MOE_CPU FP4MOE_TUNED FP4MOE_VERBOSE

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

# ---- Symbols

# one_symbol_each FILE: every row is one function with a size, which shares its address with none
# and has no clones.
one_symbol_each() {
  nm -S "$1" | awk '$3 ~ /^[tT]$/ { print $1, $4 }' >"$scratch/functions"
  awk -v file="$1" '
    NR == FNR { row[$1] = 1; next }
    { at[$1] = at[$1] " " $2; name = $2; sub(/\..*/, "", name) }
    name in row { count[name]++; where[name] = $1 }
    END {
      for (r in row) {
        if (count[r] != 1) { print "FAIL " file ": " r " has " count[r] + 0 " symbols"; bad = 1 }
        else if (split(at[where[r]], others, " ") != 1) { print "FAIL " file ": one address:" at[where[r]]; bad = 1 }
      }
      exit bad
    }' "$scratch/rows" "$scratch/functions" && pass || failed=$((failed + 1))
}

echo '#include "kernel.h"' | ${CC:-cc} -E -P -Iinclude -Ikernels - |
  sed -nE 's/.*fp4moe_[a-z]+_fn (fp4moe_[a-z0-9_]+);.*/\1/p' >"$scratch/rows"
if [ "$(wc -l <"$scratch/rows")" -gt 40 ]; then pass; else fail "kernels.inc has $(wc -l <"$scratch/rows") rows"; fi
one_symbol_each "$build/libfp4moe.so"
one_symbol_each "$fp4moe"

# ---- Probes: name and number of arguments, each behind a semaphore

probes_of() { # file
  readelf -nW "$1" 2>/dev/null | awk '
    /Provider: / { own = $NF == "fp4moe" }
    /^ *Name: / { name = $2 }
    /Semaphore: / { semaphore = $NF != "0x0000000000000000" }
    /Arguments: / { if (own) print name, NF - 1, semaphore }' | sort -u
}

if echo '#include <sys/sdt.h>' | ${CC:-cc} -E - >/dev/null 2>&1; then
  for file in "$build/libfp4moe.so" "$fp4moe"; do
    if [ "$(probes_of "$file" | tr '\n' ' ')" = 'choice 9 1 layer_begin 7 1 layer_end 7 1 ' ]; then pass; else
      fail "$file has the probes: $(probes_of "$file")"
    fi
  done
else
  skip "probes: no sys/sdt.h here"
fi
without=$scratch/without
if make -s USDT=0 B="$without" "$without/src/probes.o" "$without/src/trace.o" >/dev/null &&
  [ -z "$(probes_of "$without/src/probes.o")" ] && ! nm "$without/src/trace.o" | grep -q fp4moe_probe; then
  pass
else
  fail "make USDT=0 leaves probes"
fi

# ---- Replays

# The problem and the kernels of a line, without what differs from run to run.
problem_of() { sed -E 's/.* format=(.*) ms=.*/format=\1/; s/,source=[a-z]+//g'; }

layer=tests/data/layers/gptoss_mxfp4.safetensors
FP4MOE_VERBOSE=$scratch/lines "$fp4moe" run "$layer" --precision int8 --tokens 3 >/dev/null
line=$(grep ' class=int8 .* tokens=3 ' "$scratch/lines" | tail -n 1)
replay=${line##* replay=}
PATH=$(cd "$build" && pwd):$PATH FP4MOE_VERBOSE=$scratch/again bash -c "$replay" >"$scratch/out" 2>&1
status=$?
if [ $status -le 1 ]; then pass; else fail "status $status of $replay: $(tail -n 1 "$scratch/out")"; fi
again=$(grep ' class=int8 .* tokens=3 ' "$scratch/again" | problem_of | sort -u)
if [ -n "$line" ] && [ "$again" = "$(echo "$line" | problem_of)" ]; then pass; else
  fail "a replay of '$line' ran '$again'"
fi

# A linear: its replay is the command itself.
command="fp4moe bench --linear 48,64 --experts 3 --topk 2 --format nvfp4 --biases --precision nvfp4 \
--input-global expert --tokens 2 --threads 1 --batch-invariant \
--kernel fp4moe_quant_nvfp4_c,fp4moe_combine_c,fp4moe_store_c,fp4moe_gemv_nv_bf16_8x16_c"
# shellcheck disable=SC2086 # words
FP4MOE_VERBOSE=$scratch/linear "$fp4moe" ${command#* } >"$scratch/out" 2>&1
got=$(grep ' class=nvfp4 ' "$scratch/linear" | sed 's/.* replay=//' | sort -u)
if [ "$got" = "FP4MOE_TABLE=none $command" ]; then pass; else
  fail "the replay of $command is '$got': $(tail -n 1 "$scratch/out")"
fi

# ---- make perf

mkdir "$scratch/bin"
printf '#!/bin/sh\nexit 1\n' >"$scratch/bin/perf"
chmod +x "$scratch/bin/perf"
said=$(PATH=$scratch/bin:$PATH autotune/perf.sh "$build" --model gpt-oss-20b 2>&1)
if [ $? = 1 ] && [[ $said == *"perf_event_paranoid is "* ]]; then pass; else
  fail "without permission perf.sh says: $said"
fi
if ! command -v perf >/dev/null || ! perf stat -e task-clock:u true 2>&1 | grep -q 'msec task-clock'; then
  skip "make perf: perf measures nothing here"
else
  mkdir "$scratch/build"
  ln -s "$(cd "$build" && pwd)/fp4moe" "$scratch/build/fp4moe"
  autotune/perf.sh "$scratch/build" --hidden 512 --intermediate 512 --experts 8 --topk 4 --format mxfp4 \
    --precision f32 --tokens 256 --threads 2 >"$scratch/out" 2>&1
  share=$(awk '/^ *[0-9.]+%/ { all += $1; if ($3 ~ /^fp4moe_ge/) dots += $1 } END { print (all > 99 && all < 101 && dots > 20) }' "$scratch/out")
  if [ "$share" = 1 ] && grep -q '^# its instructions:  perf annotate .* -s .*ge' "$scratch/out"; then pass; else
    fail "make perf: $(tail -n 15 "$scratch/out")"
  fi
  if perf script -i "$scratch/build/perf.data" -F comm 2>/dev/null | grep -q 'fp4moe/1'; then pass; else
    fail "no sample of a thread fp4moe/1"
  fi
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
