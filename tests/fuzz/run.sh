#!/bin/bash
# Runs the fuzz targets with libFuzzer, each for so many seconds.
#   tests/fuzz/run.sh SECONDS [TARGET ...]
# The toolchain is the stable one: coverage comes from flags that stable rustc passes on to LLVM, libFuzzer is compiled by the C++ compiler
# from the libfuzzer-sys crate. (No address sanitizer, which needs nightly; the code under test has no unsafe blocks.) Findings land in
# tests/fuzz/artifacts/TARGET, what was learnt in tests/fuzz/corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: run.sh SECONDS [TARGET ...]}
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
command -v c++ >/dev/null || ../../packaging/deps.sh fuzz

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
# with a target named, build scripts and macros are built without the coverage flags
cargo build --quiet --locked --release --target "$host" --target-dir "${CARGO_TARGET_DIR:-target}" --bins

passed=0 failed=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target" "seeds/$target"
    log=artifacts/$target.log
    printf '%-12s %s s ... ' "$target" "$seconds"
    if "${CARGO_TARGET_DIR:-target}/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=20000 \
        -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target" >"$log" 2>&1 </dev/null; then
        grep -E '^Done|stat::number_of_executed' "$log" | tail -n 1
        passed=$((passed + 1))
    else
        echo "FINDING, see tests/fuzz/$log"
        grep -E 'panicked|ERROR|Test unit written' -A 1 "$log" | head -n 6
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
