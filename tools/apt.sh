#!/bin/bash
# Installs Debian packages that are missing. Usage: apt.sh build|guest|suites|bench ...
# Works as root or through sudo, asks nothing, and does nothing when all are there.
set -eu

build="gcc libc6-dev cmake ninja-build pkg-config libzydis-dev libsqlite3-dev liblz4-dev libelf-dev check libxxhash-dev libarchive-dev"
guest="xorriso isolinux syslinux-common cpio gzip xz-utils acpica-tools expect python3 seabios gdb"
suites="gcc-multilib binutils make flex bison bc perl bzip2 xz-utils cpio gzip python3"
bench="qemu-system-x86 gcc-multilib cpio gzip python3"

wanted=
for set in "$@"; do
    case $set in
    build) wanted="$wanted $build" ;;
    guest) wanted="$wanted $guest" ;;
    suites) wanted="$wanted $suites" ;;
    bench) wanted="$wanted $bench" ;;
    *)
        echo "apt.sh: unknown set $set" >&2
        exit 2
        ;;
    esac
done

missing=
for p in $wanted; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo"
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
# shellcheck disable=SC2086 # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing </dev/null >&2
