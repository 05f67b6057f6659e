#!/bin/bash
# mkiso.sh: makes a bootable ISO of a kernel and an initrd, with isolinux.
#
# Without options: Debian 12's i386 installer (text frontend), as its package debian-installer-12-netboot-i386 ships
# it. Neither kernel nor initrd is changed. The command line is printed; besides the console it holds nothing.
set -euo pipefail

usage() {
    cat <<USAGE
usage: mkiso.sh [OPTION...] OUT.iso
  --kernel F   kernel (default: the installer's)
  --initrd F   initrd (default: the installer's)
  --append S   kernel command line (default: console=ttyS0,115200n8)
  --label L    name of the boot entry (default: install)
  --keep DIR   also copies the kernel and the initrd to DIR/linux and DIR/initrd.gz
  --state DIR  private apt state, see fetch-deb.sh
USAGE
}

fail() {
    echo "mkiso.sh: $*" >&2
    exit 1
}

here=$(dirname "$(realpath "$0")")
kernel='' initrd='' append='console=ttyS0,115200n8' label=install keep='' state=() out=''
while [ $# -gt 0 ]; do
    case $1 in
    --kernel | --initrd | --append | --label | --keep | --state)
        [ $# -ge 2 ] || { usage >&2 && exit 2; }
        case $1 in
        --kernel) kernel=$2 ;;
        --initrd) initrd=$2 ;;
        --append) append=$2 ;;
        --label) label=$2 ;;
        --keep) keep=$2 ;;
        --state) state=(-s "$2") ;;
        esac
        shift
        ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) [ -z "$out" ] || { usage >&2 && exit 2; } && out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || { usage >&2 && exit 2; }
command -v xorriso >/dev/null || fail "xorriso is missing (package xorriso)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "$kernel$initrd" ]; then
    "$here/fetch-deb.sh" "${state[@]}" "$work/debs" debian-installer-12-netboot-i386 >&2
    images=$work/debs/usr/lib/debian-installer/images/12/i386/text/debian-installer/i386
    kernel=$images/linux initrd=$images/initrd.gz
fi
[ -r "$kernel" ] || fail "no kernel: ${kernel:-give --kernel with --initrd}"
[ -z "$initrd" ] || [ -r "$initrd" ] || fail "no initrd: $initrd"

# The boot loader: as installed, else fetched (both packages are for all architectures).
loader=/usr/lib/ISOLINUX/isolinux.bin module=/usr/lib/syslinux/modules/bios/ldlinux.c32
if [ ! -r $loader ] || [ ! -r $module ]; then
    "$here/fetch-deb.sh" "${state[@]}" "$work/debs" isolinux syslinux-common >&2
    loader=$work/debs$loader module=$work/debs$module
fi

mkdir -p "$work/iso/isolinux"
cp "$loader" "$work/iso/isolinux/isolinux.bin"
cp "$module" "$work/iso/isolinux/ldlinux.c32"
cp "$kernel" "$work/iso/linux"
line="append $append"
if [ -n "$initrd" ]; then
    cp "$initrd" "$work/iso/initrd.gz"
    line="append initrd=/initrd.gz $append"
fi
cat >"$work/iso/isolinux/isolinux.cfg" <<CONF
serial 0 115200
default $label
prompt 0
timeout 0
label $label
  menu label ^Boot from this disc ($label)
  kernel /linux
  $line
CONF

mkdir -p "$(dirname "$out")"
xorriso -as mkisofs -quiet -o "$work/out.iso" -V VERSO_GUEST -R -J \
    -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
    "$work/iso" 2>"$work/log" || { cat "$work/log" >&2 && fail "xorriso failed"; }
mv "$work/out.iso" "$out"
if [ -n "$keep" ]; then
    mkdir -p "$keep"
    cp "$work/iso/linux" "$keep/linux"
    [ -z "$initrd" ] || cp "$work/iso/initrd.gz" "$keep/initrd.gz"
fi
echo "$out: label $label, append '$append'"
