#!/usr/bin/env bash
# check_faults.sh - the programs where a call of libc fails once: every allocation, of jansson too,
# and every call on a file, one run of the program for each. An error is one line that names the
# thing, with status 2; what was to be written is whole or as it was, with nothing beside it; what
# is only asked of the machine may be missed and changes nothing that is printed.
#
#   tests/check_faults.sh [BUILD] [STRIDE]   9: a sample, the first of each nine calls, and nothing
#                                            that measures
#
# build/faulty has the programs with tests/faults.c between them and libc. Exit status 1 if
# something failed; the last line counts.
build=${1:-build}
stride=${2:-1}
data=$(dirname "$0")/data/layers
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0
export FP4MOE_TABLE=none
unset FP4MOE_KERNEL FP4MOE_CPU FP4MOE_TUNED

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)) && echo "FAIL $*"; }

# once KIND ERROR AT: $command with that fault; sets status, and hit: was there such a call?
once() {
  FAULT="$1 $2 $3" "$build/faulty/${command[0]}" "${command[@]:1}" >"$scratch/out" 2>"$scratch/err" 3>"$scratch/seen" </dev/null
  status=$?
  read -r hit _ <"$scratch/seen"
}

# An error of status 2, whose one line, after warnings, begins with the program and has the word.
is_error() {
  [ "$status" = 2 ] && [ "$(grep -vcE '^(warning|banned):' "$scratch/err")" = 1 ] &&
    tail -n 1 "$scratch/err" | grep -q '^fp4moe' && tail -n 1 "$scratch/err" | grep -qiE "$1"
}

# What stands in $target, and beside it; of a table with times in it, that it is whole.
content() {
  if [ -z "$target" ]; then return; fi
  if [ "$timed" ] && ! cmp -s "$target" "$scratch/old"; then
    FP4MOE_TABLE=only:$target "$build/fp4moe" explain "${small[@]}" --precision bf16 >/dev/null && echo whole
  else
    cksum <"$target"
  fi
  ls "${target%/*}"
}

prepare() { # before each run
  if [ -n "$target" ]; then rm -rf "${target%/*}" && mkdir "${target%/*}" && cp "$scratch/old" "$target"; fi
}

# each KIND ERROR WANT WORD: one fault after the other. WANT: error, each is one and says the word;
# fine, none is; some, as it is needed. What is written is then as it was, or as without a fault;
# that the directory is not synced after that may go unsaid.
each() {
  local kind=$1 error=$2 want=$3 word=$4 at old new errors=0 missed=0 wrong=0
  prepare
  old=$(content)
  [ -z "$target" ] || once no ENOMEM 0
  new=$(content)
  for ((at = 0, hit = 1; hit; at += stride)); do
    prepare
    once "$kind" "$error" $at
    if [ "$hit" != 0 ] && [ "$hit" != 1 ]; then
      fail "${command[*]}: $kind $error $at: killed, status $status: $(tail -n 1 "$scratch/err")"
      return
    fi
    if ((status == 2)); then
      ((errors++))
      if [ "$want" != fine ] && ((hit)) && is_error "$word" && [[ $(content) = "$old" || $(content) = "$new" ]]; then continue; fi
    else
      ((missed += hit))
      if [ "$(content)" = "$new" ]; then continue; fi
    fi
    ((wrong++)) || echo "FAIL ${command[*]}: $kind $error $at: status $status: $(cat "$scratch/err"), now $(content)"
  done
  case $want in
  error) ((missed <= (${#target} > 0) && errors)) ;;
  fine) ((missed)) ;;
  some) ((missed && errors)) ;;
  esac
  if [ "$?,$wrong" = 0,0 ]; then pass; else fail "${command[*]}: $kind $error: of $((at / stride)), $wrong wrong, $errors errors, $missed went on"; fi
}

memory() {
  each allocate ENOMEM error memory
  each json ENOMEM error memory
}

reading() {
  each read EINTR fine
  each read short fine
  each read EIO error 'Input/output error'
  each read end error .
}

writing() {
  each write EINTR fine
  each write short fine
  each write ENOSPC error 'No space left'
  each write EIO error 'Input/output error'
  each sync EIO error 'Input/output error'
  each rename EACCES error 'Permission denied'
}

gptoss=$data/gptoss_mxfp4.safetensors
io=$data/gptoss_mxfp4.io.safetensors
shape=(--hidden 64 --intermediate 64 --experts 2 --topk 1 --format mxfp4)
small=("${shape[@]}" --tokens 1)
target='' timed=''
echo old >"$scratch/old"
command=(fp4moe run "$gptoss" --threads 2)
each allocate ENOMEM error memory
each json ENOMEM some memory # what only --json prints
reading
each open EMFILE some 'Too many open files'
each thread EAGAIN fine
command=(fp4moe run "$gptoss" --json)
memory
command=(fp4moe inspect "$gptoss" --layer 0)
memory
reading
command=(fp4moe explain "${small[@]}" --precision bf16)
each allocate ENOMEM error memory
each open EMFILE fine

target=$scratch/y/y.safetensors
command=(fp4moe run "$gptoss" --input "$io" --output "$target")
memory
writing
command=(fp4moe unpack "$gptoss" --tensor model.layers.0.mlp.experts.down_proj_blocks --output "$target")
memory
reading
writing
each create EROFS error 'Read-only file system'
target=$scratch/packed/model.fp4moe
command=(fp4moe pack "$gptoss" --output "$scratch/packed")
memory
reading
writing
each create EROFS error 'Read-only file system'

# The tuner goes on with a table that an earlier run has not finished. Nothing is measured, so that
# what it writes is known; then with measuring.
target=$scratch/tuned/table
command=(fp4moe-autotune --quick --output "$target" --shape 64,64,8,2,mxfp4 --shape 96,64,8,2,mxfp4 --precision bf16)
mkdir "$scratch/tuned"
"$build/${command[0]}" "${command[@]:1}" --budget 0.000001s >/dev/null 2>&1
sed 's/^partial 0/partial 1/' "$target" >"$scratch/old"
command+=(--budget 0.000001s)
prepare
once no ENOMEM 0
if grep -q 'goes on after 1 of 4' "$scratch/out"; then pass; else fail "the tuner does not go on: $(cat "$scratch/out")"; fi
each allocate ENOMEM error memory
each read EINTR fine
each read short fine
each read EIO error 'Input/output error'
writing
each create EROFS error 'Read-only file system'
each lock EINTR fine
each lock ENOLCK error 'No locks'
each thread EAGAIN fine
measuring() {
  unset 'command[-1]' 'command[-1]'
  timed=1
  each allocate ENOMEM error memory
  target='' timed=''
  command=(fp4moe bench "${shape[@]}" --op quant --threads 1)
  each allocate ENOMEM error memory
  command=(fp4moe bench "${small[@]}" --precision bf16 --threads 1)
  each allocate ENOMEM error memory
}
((stride > 1)) || measuring

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
