#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH (default 60) with libFuzzer, guided by coverage. A stable toolchain does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${SECONDS_EACH:-60}
# What `cargo fuzz` says to the compiler, without a sanitizer: there is no unsafe code to look after.
export RUSTFLAGS='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1'
host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, build scripts and macros stay as they are.
cargo build --release --target "$host" --target-dir ../target/fuzz

for target in links canonical_path batch headers; do
  mkdir -p "../target/fuzz/corpus/$target"
  printf '== %s, %s s\n' "$target" "$seconds"
  "../target/fuzz/$host/release/$target" -max_total_time="$seconds" -max_len=8192 -print_final_stats=1 \
    -artifact_prefix="../target/fuzz/$target-" "../target/fuzz/corpus/$target" "corpus/$target"
done
