#!/bin/bash
# The benchmark program for guest and host, and the guest's initrd: the micro guest's, with a second archive behind it
# that holds program and script. Usage: build.sh BUSYBOX-INITRD OUTDIR
set -eu
here=$(dirname "$(realpath "$0")")
initrd=$1 out=$2
base=(-std=gnu11 -O2 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -I"$here")

# Source, object, flags. Vectorized or not would compare compilers' defaults for i686 and x86-64, not machines.
program() { # BITS
    local o=$out/obj-$1 name source flags
    mkdir -p "$o"
    while read -r name source flags; do
        # shellcheck disable=SC2086 # a list of flags
        gcc "${base[@]}" -m"$1" -fno-tree-vectorize $flags -c "$here/$source" -o "$o/$name.o"
    done <<-LIST
	main main.c
	int int.c
	call call.c
	x87 fp.c -mfpmath=387
	sse fp.c -DBENCH_SSE -msse2 -mfpmath=sse
	mem mem.c -msse2
	smc smc.c
	os os.c
	io io.c
	scale scale.c
	host host.c
	LIST
    gcc -m"$1" -static -pthread "$o"/*.o -lm -o "$out/bench-$1"
}
program 32
program 64

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root/test"
install -m 755 "$out/bench-32" "$root/test/bench-program"
install -m 755 "$here/script.sh" "$root/test/bench"
(cd "$root" && find test | LC_ALL=C sort | cpio --quiet -R 0:0 -o -H newc) | gzip -1n >"$out/more.gz"
cat "$initrd" "$out/more.gz" >"$out/initrd.gz"
