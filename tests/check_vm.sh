#!/usr/bin/env bash
# check_vm.sh - the library where there are memory nodes: in a virtual machine of two, an AVX2
# processor that QEMU emulates, under Debian's kernel. vm_guest.sh is what runs in it; its outputs
# are held against this machine's, by the same kernels.
#   tests/check_vm.sh BUILD [SECONDS]      the machine may take so long (600)
set -u
build=$1 limit=${2:-600}
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

skip() { # why
  echo "skipped: a virtual machine with two memory nodes: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

programs=("$build/check" "$build/fp4moe" "$build/fp4moe-autotune")
[ "$(uname -m)" = x86_64 ] || skip 'not x86-64'
for tool in qemu-system-x86_64 busybox; do command -v $tool >/dev/null || skip "no $tool here"; done
! ldd "$(command -v busybox)" 2>/dev/null | grep -q '=>' || skip 'busybox is not static'
ldd "$build/check" | grep -q libnuma || skip 'the build has no libnuma'
kernel=$(.ci/kernel "$build/vm" 2>"$scratch/why") || skip "$(tail -n 1 "$scratch/why")"

# The machine's files: programs at the paths they have here, the libraries they want, the layers.
root=$scratch/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,build,tests/data/layers} || exit 1
cp "$(command -v busybox)" "$root/bin/busybox"
cp tests/vm_guest.sh "$root/init"
cp "${programs[@]}" "$root/build"
cp tests/data/layers/*.safetensors "$root/tests/data/layers"
ldd "${programs[@]}" | grep -o '/[^ :]*' | grep '\.so' | sort -u | while read -r library; do
  install -D "$library" "$root$library"
done
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$scratch/files" || exit 1

emulate() {
  timeout "$limit" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 4,sockets=2,cores=2,threads=1 \
    -m 1280 -object memory-backend-ram,id=m0,size=512M -object memory-backend-ram,id=m1,size=512M \
    -object memory-backend-ram,id=m2,size=256M -numa node,cpus=0-1,memdev=m0 \
    -numa node,cpus=2-3,memdev=m1 -numa node,memdev=m2 -nodefaults -no-reboot -display none -serial stdio \
    -kernel "$kernel" -initrd "$scratch/files" -append 'console=ttyS0 quiet panic=-1 no_timer_check' </dev/null
}
emulate | sed -u 's/\r$//; /reboot: Power down$/d' | tee "$scratch/log" | sed -u '/^y \|passed, /d'
read -r passed failed skipped < <(tail -n 1 "$scratch/log" |
  sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p')
if [ -z "${passed:-}" ]; then
  passed=0 failed=1 skipped=0
  echo "the machine did not end within $limit s, or by itself"
fi

if grep -qw avx2 /proc/cpuinfo; then
  while read -r _ layer class tokens hash; do
    FP4MOE_TABLE=none FP4MOE_CPU=avx2 "$build/fp4moe" run "tests/data/layers/$layer.safetensors" --input \
      "tests/data/layers/${layer%_modelopt}.io.safetensors" --precision "$class" --tokens "$tokens" \
      --output "$scratch/y" >/dev/null
    if [ "$(sha256sum <"$scratch/y")" = "$hash" ]; then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "FAIL $layer $class, $tokens tokens: other bits in the machine than here"
    fi
  done < <(grep '^y ' "$scratch/log")
else
  skipped=$((skipped + 1))
  echo 'skipped: outputs of the machine against those of this one: no AVX2 here'
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
