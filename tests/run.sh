#!/usr/bin/env bash
# Everything that has to hold, in order, with a summary at the end: `make test`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs" target/e2e
failed=0
summary=()

# stage NAME COMMAND...: runs it, shows and keeps its output, remembers how it went.
stage() {
  local name=$1 started=$SECONDS outcome=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$logs/${name// /-}.log" || { outcome=FAILED; failed=1; }
  summary+=("$(printf '%-20s %-6s %5d s' "$name" "$outcome" $((SECONDS - started)))")
  [[ $outcome == ok ]]
}

# Features change the package itself only, so the second build is short.
build() {
  cargo build --bin bearerd --features fault-points &&
    cp target/debug/bearerd target/e2e/bearerd-fault-points &&
    cargo build --bin bearerd
}

if stage setup tests/e2e/setup.sh; then
  stage format cargo fmt --check
  stage lint cargo clippy --all-targets --all-features -- -D warnings
  stage 'rust tests' cargo test --no-fail-fast
  # Each step once: that they run, not how fast.
  stage benchmarks cargo test --benches
  if stage build build; then
    stage 'end to end' node tests/e2e/run.mjs
  fi
fi

# Rust: "test result: ok. 12 passed; 0 failed; ..."; end to end: "12 passed, 0 failed".
count() { grep -hE '^(test result: |[0-9]+ passed, [0-9]+ failed$)' "$logs"/rust-tests.log "$logs"/end-to-end.log 2>/dev/null | grep -oE "[0-9]+ $1[;,]?" | awk '{ sum += $1 } END { print sum + 0 }'; }
printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
broken=$(count failed)
# A stage that failed without a failed test (a lint, a build) counts as one.
((failed && broken == 0)) && broken=1
printf '%s passed, %s failed\n' "$(count passed)" "$broken"
exit "$failed"
