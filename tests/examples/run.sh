#!/usr/bin/env bash
# run.sh - builds the examples as a user would, against the static and the shared libraries, and
# runs them. From the root of the repository, after make:
#
#   tests/examples/run.sh BUILD_DIR
#
# CC and CXX name the compilers. What is missing here is skipped, by name. Exit status 1: something
# failed; the last line counts.
set -uo pipefail
build=$(cd "${1:?usage: tests/examples/run.sh BUILD_DIR}" && pwd) || exit 1
examples=tests/examples
layers=tests/data/layers
cc=${CC:-cc} cxx=${CXX:-c++}
warn='-O2 -Wall -Wextra -Wpedantic -Werror -Iinclude'
. tests/counting.sh
export FP4MOE_TABLE=none
unset FP4MOE_KERNEL FP4MOE_CPU

# libraries static|shared: what the linker is given for the two libraries of fp4moe
libraries() {
  if [ "$1" = static ]; then
    echo "$build/libfp4moe_io.a $build/libfp4moe.a" \
      "$(grep -q numa_available "$build/libfp4moe.a" && echo -lnuma)"
  else
    echo "-L$build -Wl,-rpath,$build -lfp4moe_io -lfp4moe"
  fi
}

# ---- C

# shellcheck disable=SC2046,SC2086 # compilers, flags and libraries are lists of words
minimal() { # static|shared, checkpoint
  $cc -std=c11 $warn $examples/minimal.c -o "$scratch/minimal_$1" \
    $(libraries "$1") -ljansson -lm -lpthread &&
    "$scratch/minimal_$1" "$2" | tee "$scratch/y" &&
    grep -Eq '^(-?[0-9][-+.e0-9]* ?){4}$' "$scratch/y"
}

# shellcheck disable=SC2046,SC2086
mul_mat_id() { # static|shared
  $cc -std=c11 $warn $examples/mul_mat_id.c -o "$scratch/mul_mat_id_$1" \
    $(libraries "$1" | sed 's/[^ ]*fp4moe_io[^ ]*//') -lm -lpthread &&
    "$scratch/mul_mat_id_$1"
}

refuses_missing_file() {
  "$scratch/minimal_static" "$scratch/none.safetensors" 2>"$scratch/error"
  [ $? = 1 ] && grep -q '^SYSTEM: .*none.safetensors' "$scratch/error"
}

check 'minimal.c, static' minimal static $layers/gptoss_mxfp4.safetensors
check 'minimal.c, shared' minimal shared $layers/qwen3_nvfp4_modelopt.safetensors
check 'minimal.c, a file that is not there' refuses_missing_file
check 'mul_mat_id.c, static' mul_mat_id static
check 'mul_mat_id.c, shared' mul_mat_id shared

# ---- C++

# shellcheck disable=SC2046,SC2086
parallel_for() { # static|shared
  $cxx -std=c++17 $warn $examples/parallel_for.cpp -o "$scratch/parallel_for_$1" \
    $(libraries "$1" | sed 's/[^ ]*fp4moe_io[^ ]*//') -lm -lpthread &&
    "$scratch/parallel_for_$1"
}

if command -v "${cxx%% *}" >/dev/null; then
  check 'parallel_for.cpp, static' parallel_for static
  check 'parallel_for.cpp, shared' parallel_for shared
else
  skip 'parallel_for.cpp, static' "no C++ compiler '$cxx'"
  skip 'parallel_for.cpp, shared' "no C++ compiler '$cxx'"
fi

# ---- Python

python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import numpy' 2>/dev/null; then
    python=$candidate
    break
  fi
done

# checkpoint, its .io file
while read -r layer io; do
  if [ -n "$python" ]; then
    check "layer.py, $layer" "$python" $examples/layer.py "$build" \
      $layers/"$layer".safetensors $layers/"$io".io.safetensors
  else
    skip "layer.py, $layer" 'no python3 that has numpy'
  fi
done <<'END'
gptoss_mxfp4 gptoss_mxfp4
qwen3_nvfp4_modelopt qwen3_nvfp4
qwen3_nvfp4_ct qwen3_nvfp4
nemotron_nvfp4_modelopt nemotron_nvfp4
END

closing
