#!/bin/bash
# Linux' selftests/x86 on a small kernel that has vm86(), built from the same sources: entry_from_vm86 runs virtual-8086 code, which it
# cannot on Debian's kernels; the others run once more. Cache off, cold and warm.
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
suite_test vm86 vm86
