#!/bin/sh
# check_cli.sh - the program fp4moe from outside: every layer of tests/data/layers against its
# reference in every class and at several M, what it prints, and how it fails.
#
#   tests/check_cli.sh [PROGRAM]      PROGRAM: build/fp4moe
#
# Exit status 1 if something failed; the last line counts.
program=${1:-build/fp4moe}
data=$(dirname "$0")/data/layers
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
FP4MOE_TABLE=none
export FP4MOE_TABLE
unset FP4MOE_KERNEL FP4MOE_CPU FP4MOE_TUNED

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }
skip() { skipped=$((skipped + 1)); echo "SKIP $*"; }

# expect STATUS ARGUMENTS...: the exit status; an error is one line that begins with the program.
expect() {
  want=$1
  shift
  "$program" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
  got=$?
  lines=$(wc -l <"$scratch/err")
  if [ $got -ne "$want" ]; then
    fail "fp4moe $*: exit status $got, not $want: $(head -n 1 "$scratch/err")"
  elif [ "$want" -ne 0 ] && { [ "$lines" -ne 1 ] || ! grep -q '^fp4moe' "$scratch/err"; }; then
    fail "fp4moe $*: $lines lines on stderr, not one that names the program"
  else
    pass
  fi
}

# says WORD: the last expect's stderr names the thing.
says() {
  if grep -qF -- "$1" "$scratch/err"; then pass; else fail "no '$1' in: $(cat "$scratch/err")"; fi
}

# prints WORD: the last expect's stdout has it.
prints() {
  if grep -qF -- "$1" "$scratch/out"; then pass; else fail "stdout has no '$1'"; fi
}

# ---- Layers against their references: checkpoint io

layers='gptoss_mxfp4 gptoss_mxfp4
gptoss_mxfp4 gptoss_mxfp4.ep
dsv4_mxfp4 dsv4_mxfp4
qwen3_nvfp4_modelopt qwen3_nvfp4
qwen3_nvfp4_modelopt qwen3_nvfp4.ep
qwen3_nvfp4_ct qwen3_nvfp4
qwen3_w4a16_modelopt qwen3_nvfp4
nemotron_nvfp4_modelopt nemotron_nvfp4
gemma4_nvfp4_modelopt gemma4_nvfp4
llama4_nvfp4_modelopt llama4_nvfp4'
classes='f32 1e-5
bf16 5e-3
int8 1.5e-2'

check_layer() {
  while read -r class tolerance; do
    for tokens in '' 1 2 600; do
      if [ "$1 $class $tokens" = 'dsv4_mxfp4 int8 1' ]; then
        skip "$1 int8 --tokens 1: exact arithmetic on the class's own int8 is 1.56e-2 off here"
        continue
      fi
      # shellcheck disable=SC2086
      expect 0 run "$data/$1.safetensors" --input "$data/$2.io.safetensors" --check y \
        --precision "$class" --tolerance "$tolerance" ${tokens:+--tokens $tokens}
    done
  done <"$scratch/classes"
}

echo "$classes" >"$scratch/classes"
echo "$layers" >"$scratch/layers"
while read -r checkpoint io; do check_layer "$checkpoint" "$io"; done <"$scratch/layers"

# ---- An activation that only the caller can name

mkdir "$scratch/model"
cp "$data/gemma4_nvfp4_modelopt.safetensors" "$scratch/model/model.safetensors"
echo '{"hidden_activation": "quick_gelu"}' >"$scratch/model/config.json"
expect 2 run "$scratch/model"
says quick_gelu
expect 2 run "$scratch/model" --limit 7
says quick_gelu
expect 0 inspect "$scratch/model"
prints 'unknown'
gemma_io="$data/gemma4_nvfp4.io.safetensors"
expect 0 run "$scratch/model" --input "$gemma_io" --check y --tolerance 1e-5 --precision f32 \
  --activation gelu_tanh
expect 1 run "$scratch/model" --input "$gemma_io" --check y --tolerance 1e-5 --precision f32 \
  --activation gelu
expect 2 run "$scratch/model" --activation gelu_tanh --limit 7
says 'activation.limit is 7'
rm -r "$scratch/model"

# ---- Output, without input, inspect, explain

gptoss=$data/gptoss_mxfp4.safetensors
io=$data/gptoss_mxfp4.io.safetensors
expect 0 run "$gptoss" --input "$io" --output "$scratch/y.safetensors"
expect 0 run "$gptoss" --input "$io" --layer 0 --threads 1
expect 0 run "$gptoss" --input "$io" --precision mxfp8 --tolerance 1e-6
prints y_mxfp8
qwen=$data/qwen3_nvfp4_ct.safetensors
weight_only=$data/qwen3_w4a16_modelopt.safetensors
expect 0 run "$qwen" --input "$data/qwen3_nvfp4.io.safetensors" --precision nvfp4 --tolerance 1e-6
prints y_w4a4
expect 1 run "$qwen" --input "$data/qwen3_nvfp4.io.safetensors" --precision nvfp4 --tolerance 3e-3 \
  --input-global expert
expect 0 run "$weight_only" --precision nvfp4 --input-global token --tokens 2
expect 0 explain --model qwen3-30b-a3b --precision nvfp4 --tokens 1
prints 'class nvfp4: matmuls of bf16'
expect 0 run "$gptoss" --tokens 3
prints 'experts cost'
expect 0 inspect "$gptoss"
prints 'gpt-oss'
expect 0 inspect "$gptoss" --layer 0
prints 'down_proj_blocks U8 [4,128,3,16]'
expect 0 explain --model gpt-oss-20b --precision bf16 --tokens 1,64
prints selected
expect 0 explain --model gemma-4-26b-a4b --precision bf16 --tokens 1
prints 'activation: gelu_tanh'
tiny='--hidden 64 --intermediate 64 --experts 2 --topk 1 --format nvfp4 --precision bf16 --tokens 1'
# shellcheck disable=SC2086
expect 0 explain $tiny --batch-invariant
prints 'refused: summation order differs: batch_invariant'
prints 'lookup: '
prints 'key: phase=down format=nvfp4 class=bf16 n=64 k=64 gated=1 rows=1 cores='
prints 'fp4moe-autotune --shape 64,64,2,1,nvfp4,silu --precision bf16'
while IFS=: read -r options text; do
  # shellcheck disable=SC2086
  expect 0 explain $tiny $options
  prints "activation: $text"
done <<EOF
--activation silu --limit 10:silu limit 10
--activation silu --ungated:silu ungated
--activation swiglu_oai --alpha 2:swiglu_oai alpha 2 beta 1 limit 7
--activation swiglustep:swiglustep limit 7
--activation gelu:gelu
--ungated --activation gelu_tanh:gelu_tanh ungated
--linear-beta 0 --activation situ:situ beta 4
--activation relu2:relu2 ungated
EOF
expect 0 --version
for command in '' run bench explain inspect unpack pack; do
  # shellcheck disable=SC2086
  expect 0 $command --help
  prints usage
done

if [ -s "$scratch/y.safetensors" ] && grep -q '"y"' "$scratch/y.safetensors"; then pass; else
  fail "run --output: no tensor y"
fi

expect 0 run "$gptoss" --input "$io" --rank 1 --ranks 2 --split experts
expect 0 run "$gptoss" --rank 1 --ranks 3 --split intermediate --tokens 3
expect 0 inspect "$gptoss" --rank 1 --ranks 3 --split intermediate
prints 'rank 1 of 3: intermediate 32 to 63'
expect 0 inspect "$gptoss" --rank 1 --ranks 2 --split experts
prints 'experts 2 to 3'

# unpacks FILE TENSOR DTYPE WORD: stdout has the word; the file is smaller than one of f32.
unpacks() {
  wide=$scratch/wide.safetensors narrow=$scratch/narrow.safetensors
  expect 0 unpack "$data/$1.safetensors" --tensor "$2" --dtype "$3" --output "$narrow"
  prints "$4"
  expect 0 unpack "$data/$1.safetensors" --tensor "$2" --output "$wide"
  if [ "$(wc -c <"$wide")" -gt "$(wc -c <"$narrow")" ]; then pass; else
    fail "unpack $2: $3 is no smaller than the default"
  fi
}

unpacks gptoss_mxfp4 model.layers.0.mlp.experts.down_proj_blocks bf16 \
  'model.layers.0.mlp.experts.down_proj BF16 [4,128,96]'
unpacks dsv4_mxfp4 layers.5.ffn.experts.0.w1.weight bf16 'w1.weight BF16 [96,64]'
unpacks qwen3_nvfp4_modelopt model.layers.3.mlp.experts.0.up_proj.weight bf16 \
  'global model.layers.3.mlp.experts.0.up_proj.weight_scale_2'
unpacks qwen3_nvfp4_ct model.layers.3.mlp.experts.0.up_proj.weight_packed bf16 \
  'model.layers.3.mlp.experts.0.up_proj.weight BF16 [80,96]'
unpacks llama4_nvfp4_modelopt language_model.model.layers.0.feed_forward.experts.gate_up_proj bf16 \
  'gate_up_proj BF16 [2,64,96]'

# ---- Packed files

for name in gptoss_mxfp4 qwen3_nvfp4_modelopt nemotron_nvfp4_modelopt; do
  expect 0 pack "$data/$name.safetensors" --output "$scratch/packed"
  prints identity
  for how in '' --verify --copy; do
    # shellcheck disable=SC2086
    expect 0 run "$scratch/packed" --input "$data/${name%_modelopt}.io.safetensors" --check y \
      --tolerance 5e-3 $how
  done
  expect 0 inspect "$scratch/packed"
  prints "packed from $data/$name.safetensors"
done
expect 0 pack "$gptoss" --output "$scratch/part" --rank 1 --ranks 3
expect 0 run "$scratch/part" --input "$io"
expect 2 run "$scratch/part" --input "$io" --rank 0 --ranks 1 --split intermediate
says 'UNSUPPORTED'
expect 0 run "$scratch/part" --input "$io" --rank 1 --ranks 2 --split experts
printf '\377' | dd of="$scratch/packed/model.fp4moe" bs=1 seek=66000 conv=notrunc 2>/dev/null
expect 0 run "$scratch/packed"
expect 2 run "$scratch/packed" --verify
says 'record checksum'
expect 2 pack "$scratch/packed" --output "$scratch/again"
says 'packed already'
expect 2 pack "$gptoss"
says --output
expect 2 pack "$io" --output "$scratch/none"
says '0 FP4 layers'
cp "$gptoss" "$scratch/model.safetensors"
expect 2 pack "$gptoss" --output "$scratch"
says 'directory of its own'

# ---- Where the weights are

gptoss_bytes=84224 # 4 records of the layer
for how in "--input $io" ''; do
  # shellcheck disable=SC2086 # two words
  expect 0 run "$gptoss" $how
  prints 'weights: '
  # shellcheck disable=SC2086
  expect 0 run "$gptoss" $how --json
  sum=0
  for bytes in $(grep -o '"node":[0-9nul]*,"bytes":[0-9]*' "$scratch/out" | sed 's/.*://'); do sum=$((sum + bytes)); done
  if [ "$sum" = $gptoss_bytes ]; then pass; else fail "run $how: $sum bytes on all nodes: $(cat "$scratch/out")"; fi
done

# ---- Bench: routings, a second library. Its runs last seconds: all at once

shape='--hidden 64 --intermediate 64 --experts 8 --topk 2 --format mxfp4 --precision int8 --tokens 20'
library=$(dirname "$program")/libfp4moe.so

bench() { # name, arguments...: with the lines of its calls
  name=$1
  shift
  # shellcheck disable=SC2086
  FP4MOE_VERBOSE=$scratch/$name.calls "$program" bench $shape "$@" >"$scratch/$name.out" 2>"$scratch/$name.err"
  echo $? >"$scratch/$name.status"
}

# ran NAME WORD...: exit status 0, and it printed the words.
ran() {
  name=$1
  shift
  if [ "$(cat "$scratch/$name.status")" = 0 ]; then pass; else fail "bench $name: $(cat "$scratch/$name.err")"; fi
  cp "$scratch/$name.out" "$scratch/out"
  for word in "$@"; do prints "$word"; done
}

# routed NAME TOKENS ROWS: there are calls of so many tokens, all with these rows per expert.
routed() {
  if grep "tokens=$2 " "$scratch/$1.calls" | grep -o 'active=[0-9]* rows=[0-9.]*' | sort -u | grep -vxq "$3" ||
    ! grep -q "tokens=$2 $3 " "$scratch/$1.calls"; then
    fail "bench $1: calls of $2 tokens have not $3"
  else
    pass
  fi
}

values() { # prefix, field: what the JSON on stdout has there, sorted
  sed -nE "s/.*\"$1$2\":(\[[^]]*|[^,]*).*/\1/p" "$scratch/out" | tr -d '[' | tr , '\n' | sort
}

bench even --routing even --layers 2 &
if [ -e "$library" ]; then
  bench one --routing one --against "$library" &
  bench most --routing most --against "$library" --json &
  wait
  ran one ' ratio ' ' share ' ' idle1 ' ' against the same'
  ran most '"ratio":' '"share":' '"idle":[' '"routing":"most"' "\"against\":\"$library\""
  for field in err kernels; do
    if [ "$(values '' $field)" ] && [ "$(values '' $field)" = "$(values against_ $field)" ]; then pass; else
      fail "bench --against $library, the same weights: not the same $field: $(cat "$scratch/out")"
    fi
  done
  routed one 1 'active=1 rows=1..1'
  routed one 20 'active=1 rows=20..20'
  routed one 160 'active=8 rows=20..20'
  routed most 20 'active=3 rows=1..18'
  routed most 144 'active=8 rows=18..18'
  routed most 2 'active=2 rows=1..1'
  # shellcheck disable=SC2086
  {
    LC_ALL=C sed 's/fp4moe_matmul_indexed/fp4moe_matmul_dropped/g' "$library" >"$scratch/other.so"
    expect 2 bench $tiny --against "$scratch/other.so"
    says 'other.so: it has no fp4moe_matmul_indexed'
    LC_ALL=C sed 's/FP4MOE_0/FP4MOE_X/g' "$library" >"$scratch/other.so"
    expect 2 bench $tiny --against "$scratch/other.so"
    says 'is not of FP4MOE_0'
  }
else
  wait
  skip "bench --against FILE: no libfp4moe.so beside $program"
fi
ran even ' idle2 ' '# memory: packed weights '
routed even 20 'active=8 rows=5..5'
# shellcheck disable=SC2086
expect 0 bench $tiny --routing none
prints '10000 calls back to back'

# ---- JSON

if command -v python3 >/dev/null 2>&1; then
  json() { # every line of stdout is a JSON value
    expect 0 "$@"
    while read -r line; do
      if echo "$line" | python3 -m json.tool >/dev/null 2>&1; then pass; else fail "$*: not JSON"; fi
    done <"$scratch/out"
  }
  json run "$gptoss" --input "$io" --check y --tolerance 1 --json
  json run "$gptoss" --json
  json explain --model qwen3-30b-a3b --precision int8 --tokens 1,256 --json
  prints '"lookup_ns":'
  prints '"changes":["tune this shape here'
  # shellcheck disable=SC2086
  json bench $tiny --routing none --json
  prints '"what":"empty"'
  json bench --op quant --hidden 64 --intermediate 64 --experts 2 --topk 1 --format mxfp4 --json
  prints '"same_bits":true'
else
  skip "JSON output: no python3"
fi

# ---- Failures

export FP4MOE_KERNELS='*_c'
# shellcheck disable=SC2086
expect 2 explain $tiny
says 'there is no variable FP4MOE_KERNELS; the nearest is FP4MOE_KERNEL'
unset FP4MOE_KERNELS
export FP4MOE_TUNED=require
# shellcheck disable=SC2086
expect 2 explain $tiny
says 'FP4MOE_TUNED is require, and the table is "none"'
unset FP4MOE_TUNED

expect 2
expect 2 no-such-command
says no-such-command
expect 2 run
expect 2 run "$scratch/none.safetensors"
says none.safetensors
expect 2 run "$gptoss" --input "$scratch/none.safetensors"
says none.safetensors
expect 2 run "$gptoss" --no-such-flag
says --no-such-flag
expect 2 run "$gptoss" --tokens
says --tokens
expect 2 run "$gptoss" --tokens 1x
says 1x
expect 2 run "$gptoss" --rank 1 --split experts
says --ranks
expect 2 run "$gptoss" --rank 2 --ranks 2 --split experts
says --rank
expect 2 run "$gptoss" --rank 1 --ranks 2 --split rows
says rows
expect 2 run "$gptoss" --rank 1 --ranks 2 --split intermediate
says '96 / 2 ranks'
expect 2 run "$gptoss" --layer 7
says 'layer 7'
expect 2 run "$gptoss" --precision nvfp4
says 'NVFP4 with format MXFP4'
expect 2 run "$weight_only" --precision nvfp4
says "gate_proj.input_scale' is missing"
expect 2 run "$gptoss" --input-global no-such-policy
says no-such-policy
expect 2 run "$gptoss" --tolerance 1
says --input
expect 2 run "$gptoss" --activation no-such-act
says no-such-act
expect 2 run "$gptoss" --check y --tolerance 1
says --input
expect 2 run "$gptoss" --input "$io" --check no-such-tensor --tolerance 1
says no-such-tensor
expect 2 run "$gptoss" --input "$data/qwen3_nvfp4.io.safetensors"
says 'tensor x'
expect 2 run "$gptoss" --input "$io" --output "$scratch/none/y.safetensors"
says none/y.safetensors
expect 1 run "$gptoss" --input "$io" --check y --tolerance 1e-9
says 1e-09
expect 2 bench --model no-such-model --precision bf16 --tokens 1
says no-such-model
expect 2 explain $tiny --activation gelu --limit 3
says 'activation.limit is 3, but gelu needs 0'
expect 2 explain $tiny --activation situ --beta 0
says 'activation.beta is 0, but situ needs > 0'
expect 2 explain $tiny --activation situ --ungated
says 'activation.gated is 0'
expect 2 explain $tiny --linear-beta x
says --linear-beta
expect 2 bench --model gemma-4-26b-a4b --precision bf16 --tokens 1 --limit 7
says --limit
expect 2 bench --model gpt-oss-20b --tokens 1
says --precision
expect 2 bench --model gpt-oss-20b --hidden 64 --precision bf16 --tokens 1
says --hidden
expect 2 bench --linear 64 --experts 2 --topk 1 --format mxfp4 --precision bf16 --tokens 1
says 'expected N,K'
expect 2 bench --linear 64,64 --hidden 64 --experts 2 --topk 1 --format mxfp4 --precision bf16 --tokens 1
says '--linear goes without --hidden'
expect 2 bench --linear 64,64 --topk 1 --format mxfp4 --precision bf16 --tokens 1
says '--experts is missing'
expect 2 bench --linear 64,40 --experts 2 --topk 1 --format mxfp4 --precision bf16 --tokens 1
says 'k is 40'
expect 2 bench --op gemv --model gpt-oss-20b --biases
says '--biases'
expect 2 bench --model gpt-oss-20b --precision bf16 --tokens 1 --input-global token
says '--input-global goes with --precision nvfp4'
# shellcheck disable=SC2086
expect 2 explain $tiny --linear 64,64
says '--linear'
export FP4MOE_VERBOSE=yes
# shellcheck disable=SC2086
expect 2 explain $tiny
says 'FP4MOE_VERBOSE is "yes"'
unset FP4MOE_VERBOSE
expect 2 bench --model gpt-oss-20b --precision bf16 --tokens 1 --against 'no_such_kernel*'
says no_such_kernel
# shellcheck disable=SC2086
{
  expect 2 bench $tiny --against "$scratch/none.so"
  says 'none.so: cannot open'
  expect 2 bench $tiny --against none.so
  says './none.so'
  expect 2 bench $tiny --against "$gptoss"
  says 'gptoss_mxfp4.safetensors: invalid ELF header'
  expect 2 bench $tiny --against "$(grep -om 1 '/.*/libc[.-].*so.*' /proc/self/maps)"
  says 'it has no fp4moe_'
  expect 2 bench $tiny --routing no-such-word
  says 'router even one most none'
  expect 2 bench $tiny --routing most
  says '1 tokens have no tenth'
  expect 2 bench $tiny --routing none --layers 2
  says --layers
  expect 2 bench $tiny --routing none --against static
  says --against
}
expect 2 bench --op no-such-op --model gpt-oss-20b
says no-such-op
expect 2 bench --op gemm --model gpt-oss-20b --against 'fp4moe_gemm_*'
says --against
expect 2 bench --op gemm --model gpt-oss-20b --routing even
says --routing
expect 2 explain --model gpt-oss-20b --precision bf16 --tokens 1 --routing even
says --routing
expect 2 bench --op gemm --model gpt-oss-20b --tokens 257
says 257
expect 2 bench --op unpack --model gpt-oss-20b --tokens 1
says --tokens
expect 2 bench --op gemm --model gpt-oss-20b --kernel 'no_such_kernel*'
says no_such_kernel
expect 2 explain --model gpt-oss-20b --precision bf16 --tokens 1 --op gemm
says --op
expect 2 explain --model gpt-oss-20b --precision bf16 --tokens 1 --kernel 'no_such_kernel*'
says no_such_kernel
expect 2 inspect "$io" --layer 1
says 'layer 1'
expect 2 unpack "$gptoss" --output "$scratch/f.safetensors"
says --tensor
expect 2 unpack "$gptoss" --tensor t
says --output
expect 2 unpack "$gptoss" --tensor no-such-tensor --output "$scratch/f.safetensors"
says no-such-tensor
expect 2 unpack "$gptoss" --tensor model.layers.0.mlp.experts.down_proj_bias \
  --output "$scratch/f.safetensors"
says 'dtype BF16'
expect 2 unpack "$gptoss" --tensor t --output "$scratch/f.safetensors" --dtype f16
says f16
expect 2 unpack "$gptoss" --tensor model.layers.0.mlp.experts.down_proj_blocks \
  --output "$scratch/none/f.safetensors"
says none/f.safetensors

# ---- Outputs that cannot be written: status 2, what was there stays, nothing else is left

full() { # the same with a standard output that is full
  if "$program" "$@" >/dev/full 2>"$scratch/err"; then fail "fp4moe $* >/dev/full: exit status 0"; fi
  says 'standard output'
}
full --version
full --help
full inspect --help
full inspect "$gptoss"
full explain --model gpt-oss-20b --precision bf16 --tokens 1
full explain --model gpt-oss-20b --precision bf16 --tokens 1 --json

short_of_disk() { # no file grows beyond a block
  out=$1
  shift
  if (trap '' XFSZ && ulimit -f 1 && exec "$program" "$@") >/dev/null 2>"$scratch/err"; then
    fail "fp4moe $*: exit status 0 without room for $out"
  fi
  says "$out"
  says 'File too large'
  if [ "$(cat "$out")" = old ] && [ "$(ls "${out%/*}")" = "${out##*/}" ]; then
    pass
  else
    fail "$out is torn, or something is left beside it: $(ls "${out%/*}")"
  fi
}
mkdir "$scratch/disk" "$scratch/packed_disk"
echo old >"$scratch/disk/f.safetensors"
echo old >"$scratch/packed_disk/model.fp4moe"
short_of_disk "$scratch/disk/f.safetensors" unpack "$gptoss" \
  --tensor model.layers.0.mlp.experts.down_proj_blocks --output "$scratch/disk/f.safetensors"
short_of_disk "$scratch/packed_disk/model.fp4moe" pack "$gptoss" --output "$scratch/packed_disk"
expect 2 pack "$gptoss" --output /sys/fp4moe
says /sys/fp4moe
expect 2 unpack "$gptoss" --tensor model.layers.0.mlp.experts.down_proj_blocks --output /sys/f.safetensors
says /sys/f.safetensors

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
