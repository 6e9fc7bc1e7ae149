#!/bin/sh
# Stands before rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER): has the compiler count which edges and comparisons
# a run passes, as cargo-fuzz does, and check arithmetic. Everything else stays as it was compiled for the release.
case " $* " in
*" --crate-name build_script_build "* | *" --crate-type proc-macro "* | *" --print"* | *" -vV "*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on --cfg fuzzing
