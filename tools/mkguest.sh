#!/bin/bash
# mkguest.sh: makes the micro guest: Debian's 686 and 686-pae kernels as packaged, and an initramfs of
# busybox-static with a test script (guest-init.sh beside this file).
#
# The same input gives the same initrd, byte by byte: fixed times, owners and order.
set -euo pipefail

usage() {
    cat <<USAGE
usage: mkguest.sh [--state DIR] [--add FILE]... OUTDIR
Makes OUTDIR/vmlinuz-686, vmlinuz-686-pae, busybox-initrd.gz, busybox-686.iso and busybox-686-pae.iso.
  --state DIR  private apt state, see fetch-deb.sh
  --add FILE   adds FILE as /test/\$(basename FILE) to the initramfs; start it with script=NAME on the command line
USAGE
}

fail() {
    echo "mkguest.sh: $*" >&2
    exit 1
}

here=$(dirname "$(realpath "$0")")
append='console=ttyS0,115200n8'
modules='lib/crc7.ko lib/crc-itu-t.ko drivers/block/loop.ko drivers/net/dummy.ko'
state=() add=() out=''
while [ $# -gt 0 ]; do
    case $1 in
    --state)
        [ $# -ge 2 ] || { usage >&2 && exit 2; }
        state=(--state "$2") && shift
        ;;
    --add)
        [ $# -ge 2 ] || { usage >&2 && exit 2; }
        add+=("$2") && shift
        ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) [ -z "$out" ] || { usage >&2 && exit 2; } && out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || { usage >&2 && exit 2; }
command -v cpio >/dev/null || fail "cpio is missing (package cpio)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/fetch-deb.sh" ${state[1]:+-s "${state[1]}"} "$work/debs" linux-image-686+ linux-image-686-pae+ busybox-static >&2
mkdir -p "$out"
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,test}

for flavour in 686 686-pae; do
    kernel=$(find "$work/debs/boot" -name "vmlinuz-*[0-9]-$flavour" | head -n 1)
    [ -n "$kernel" ] || fail "the packages hold no kernel $flavour"
    cp "$kernel" "$out/vmlinuz-$flavour"
    release=${kernel##*/vmlinuz-}
    mkdir -p "$root/lib/modules/$release"
    for module in $modules; do
        file=$work/debs/lib/modules/$release/kernel/$module
        [ -r "$file" ] || fail "the kernel package $release has no module $module"
        cp "$file" "$root/lib/modules/$release/"
    done
done
cp "$work/debs/bin/busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
install -m 755 "$here/guest-init.sh" "$root/init"
[ ${#add[@]} -eq 0 ] || install -m 755 "${add[@]}" "$root/test/"

find "$root" -exec touch -h -d @1700000000 {} +
(cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -o -H newc) |
    gzip -9n >"$out/busybox-initrd.gz"

for flavour in 686 686-pae; do
    "$here/mkiso.sh" "${state[@]}" --label "busybox-$flavour" --append "$append" \
        --kernel "$out/vmlinuz-$flavour" --initrd "$out/busybox-initrd.gz" "$out/busybox-$flavour.iso"
done
