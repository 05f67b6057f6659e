#!/bin/bash
# A full disk under the cache: pre-warm says so with a status of its own, what it had stored stays valid, and a machine runs on without storing.
. "$(dirname "$0")/lib.sh"
need_guests
disk=$tmp/disk
mkdir "$disk"
mount -t tmpfs -o size=6m,mode=700 tmpfs "$disk" 2>/dev/null || skip "no small file system can be mounted here"
trap 'umount "$disk"; rm -rf "$tmp"' EXIT

expect_status 34 "prewarm on a full disk" "$VERSO" prewarm "$GUESTS/vmlinuz-686" --cache "$disk/cache.db" &&
    { grep -q "$disk/cache.db" "$tmp/err" || fail "the message does not name the file: $(tail -n 2 "$tmp/err")"; }
expect_status 0 "reading the cache afterwards" "$VERSO" cache ls --cache "$disk/cache.db"
expect_status 0 "verifying the cache afterwards" "$VERSO" cache verify --cache "$disk/cache.db"

run_guest 686 "$tmp/console" --cache "$disk/cache.db" || fail "the machine ended with status $?: $(tail -n 2 "$tmp/console.err")"
grep -aq '^T: end, 0 failed' "$tmp/console" || fail "the guest's script did not end well"
finish
