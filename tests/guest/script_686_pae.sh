#!/bin/bash
# Debian's kernel 686-pae with the busybox initramfs: its script gives the same console with the cache off, cold and
# warm; the second boot takes at least 99 % of its pages from the cache; the guest powers itself off.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/script.inc"
script_test 686-pae
