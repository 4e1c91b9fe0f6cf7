#!/usr/bin/env bash
# check_build.sh - what a build may not do, and where it must work: it installs and downloads nothing,
# needs neither root nor a source tree that can be written, and serves another machine.
#
#   tests/check_build.sh BUILD
#
# Commands that would fetch something are replaced by ones that leave a note and fail. A copy of the
# tree and of the build is built anew in part, so that each rule of the Makefile runs.
set -uo pipefail
build=${1:?usage: tests/check_build.sh BUILD}
. tests/counting.sh
cross=aarch64-linux-gnu
tree=$scratch/tree traps=$scratch/traps calls=$scratch/calls/list
trap 'chmod -R u+w "$tree"; rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
mkdir -m 777 "$traps" "$scratch/calls" "$tree"

for command in apt-get apt dpkg sudo curl wget git pip pip3; do
  printf '#!/bin/sh\necho "%s $*" >>%s\nexit 1\n' "$command" "$calls" >"$traps/$command"
done
# A machine on which nothing is installed.
printf '#!/bin/sh\nexit 1\n' >"$traps/dpkg-query"
chmod 755 "$traps"/*

# trapped COMMAND...: in the tree, where whoever fetches is caught
trapped() (cd "$tree" && PATH=$traps:$PATH "$@")

as_user=()
[ "$(id -u)" != 0 ] || as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$scratch/calls")

called_nothing() { [ ! -e "$calls" ] || { cat "$calls" && return 1; }; }

# Parts of each kind: objects of all rooms, archives, shared libraries, programs.
builds_as_user() {
  cp -a Makefile .ci include kernels src autotune "$tree" && cp -a "$build" "$tree/build" || return
  rm -f "$tree"/build/{*.a,*.so*,fp4moe,fp4moe-autotune,src/{status,io/json,cli/main}.o,kernels/pack_c.o,autotune/main.o}
  chmod -R a+rX,a-w "$tree" && chmod -R a+w "$tree/build" || return
  trapped "${as_user[@]}" make B=build CCACHE_DISABLE=1 all && called_nothing &&
    [ -x "$tree/build/fp4moe" ] && [ -e "$tree/build/src/io/json.o" ]
}

installs_as_user() {
  local there=$scratch/calls/there
  trapped "${as_user[@]}" make B=build PREFIX="$there" install && called_nothing &&
    "$there/bin/fp4moe" --version && trapped "${as_user[@]}" make B=build PREFIX="$there" uninstall &&
    same 'what is left' '' "$(find "$there" -not -type d)"
}

# refuses WORD COMMAND...: with INSTALL=0 it fails, says WORD, and has called nothing
refuses() {
  local word=$1
  shift
  trapped env INSTALL=0 "$@" >"$scratch/said" 2>&1 && return 1
  cat "$scratch/said"
  called_nothing && grep -F "$word" "$scratch/said"
}

# The traps work: without INSTALL=0 the same command is caught.
is_caught() {
  trapped env -u INSTALL .ci/packages check && return 1
  grep -E 'apt-get|sudo' "$calls" && rm "$calls"
}

for_another_machine() {
  local stage=$scratch/stage file
  env -u MAKEFLAGS make CROSS=$cross- DESTDIR="$stage" PREFIX=/usr all install || return
  for file in "$stage"/usr/bin/* "$stage"/usr/lib/*.so; do
    readelf -h "$file" | grep 'Machine:.*AArch64' || return
    readelf -d "$file" | grep -E 'RPATH|RUNPATH' && return 1
  done
  $cross-gcc -std=c11 -I"$stage/usr/include" tests/examples/mul_mat_id.c -L"$stage/usr/lib" -lfp4moe \
    "-Wl,-rpath-link,build-aarch64/sysroot/usr/lib/$cross" -o "$scratch/consumer" &&
    FP4MOE_TABLE=none qemu-aarch64 -L /usr/$cross -E "LD_LIBRARY_PATH=$stage/usr/lib:build-aarch64/sysroot/usr/lib/$cross" \
      "$scratch/consumer"
}

check 'a build without root, in a tree that is read-only, fetches nothing' builds_as_user
check 'nor does make install' installs_as_user
for part in tune check fuzz; do
  check "INSTALL=0 make $part installs nothing" refuses 'INSTALL=0 forbids' make B=build $part
done
check 'INSTALL=0 .ci/sysroot fetches nothing' refuses 'INSTALL=0 forbids' .ci/sysroot none
check 'without INSTALL=0 they would be caught' is_caught

what='make CROSS=aarch64-linux-gnu- install'
if ! command -v $cross-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
  skip "$what" "no $cross-gcc or no qemu-aarch64"
elif ! .ci/sysroot build-aarch64 >/dev/null 2>&1; then
  skip "$what" 'no libraries of arm64'
else
  check "$what" for_another_machine
fi
closing
