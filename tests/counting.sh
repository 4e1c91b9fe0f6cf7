# shellcheck shell=bash
# counting.sh - what tests in bash have in common; sourced. `check` and `skip` count, `closing` prints
# the line that tests/run.sh adds up. $scratch is a directory of the test's own.
passed=0 failed=0 skipped=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

skip() { # what, why
  echo "SKIP $1: $2"
  skipped=$((skipped + 1))
}

# check NAME COMMAND...: it must succeed; if not, its output is shown.
check() {
  local name=$1 status=0
  shift
  "$@" >"$scratch/log" 2>&1 || status=$?
  if [ $status = 0 ]; then
    echo "ok   $name"
    passed=$((passed + 1))
  else
    echo "FAIL $name (status $status): $*"
    sed 's/^/     /' "$scratch/log"
    failed=$((failed + 1))
  fi
}

# same WHAT ONE OTHER: two texts are equal, or their lines that differ are shown.
same() {
  diff -U0 <(echo "$2") <(echo "$3") >"$scratch/difference" && return
  echo "$1:"
  sed '1,2d; /^@@/d' "$scratch/difference"
  return 1
}

closing() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ] && [ "$((passed + skipped))" != 0 ]
}
