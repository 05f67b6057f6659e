#!/bin/bash
# Linux' selftests/x86 as 32-bit programs: none fails, on both kernels, with the cache off, cold and warm.
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
suite_test selftests 686 686-pae
