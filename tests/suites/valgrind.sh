#!/bin/bash
# valgrind's none/tests/x86, natively in a guest: every program prints what its expected output says, on both kernels, with the
# cache off, cold and warm.
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
suite_test valgrind 686 686-pae
