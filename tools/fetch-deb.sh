#!/bin/bash
# fetch-deb.sh: fetches Debian packages of another architecture and unpacks them, without installing anything.
#
# The package index lives in a private apt state, so that neither the machine's list of architectures nor its
# package data base change. Sources and keys are the machine's own: nothing here names a host, and apt checks
# signatures and digests as always. No root needed.
set -euo pipefail

usage() {
    cat <<USAGE
usage: fetch-deb.sh [-a ARCH] [-s STATE] [-c CACHE] OUTDIR PACKAGE...

Downloads each PACKAGE (default architecture i386) and unpacks it under OUTDIR. A PACKAGE written NAME+ is a
meta package: the first package it depends on is fetched in its place (linux-image-686+ gives the kernel itself).
  -a ARCH    Debian architecture, default i386
  -s STATE   where the private apt state lives, default \${XDG_CACHE_HOME:-~/.cache}/verso/apt-ARCH
  -c CACHE   where the .deb files are kept, default STATE/debs
Prints one line, "PACKAGE VERSION FILE", for each package unpacked.
USAGE
}

fail() {
    echo "fetch-deb.sh: $*" >&2
    exit 1
}

arch=i386 state='' debs=''
while getopts a:s:c:h opt; do
    case $opt in
    a) arch=$OPTARG ;;
    s) state=$OPTARG ;;
    c) debs=$OPTARG ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || { usage >&2 && exit 2; }
out=$1
shift
state=${state:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/verso/apt-$arch}
debs=${debs:-$state/debs}
for tool in apt-get apt-cache dpkg-deb; do
    command -v $tool >/dev/null || fail "$tool is missing: this script needs a Debian system"
done

mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$debs" "$out"
state=$(realpath "$state") debs=$(realpath "$debs") out=$(realpath "$out")
: >>"$state/status"
cat >"$state/apt.conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
Dir::State "$state";
Dir::State::status "$state/status";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
APT::Sandbox::User "";
CONF
export APT_CONFIG=$state/apt.conf

# An index that cannot be brought up to date (a mirror in the middle of its own update) is no error as long as some
# index names the package: apt says so, and the download below decides.
refresh() {
    apt-get -qq update >"$state/update.log" 2>&1 || {
        echo "fetch-deb.sh: note: some package lists could not be updated ($state/update.log)" >&2
    }
    touch "$state/updated"
}
[ -n "$(find "$state/updated" -mmin -720 2>/dev/null)" ] || refresh

candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -vx '(none)' || true
}

# Called with NAME+: the package behind a meta package.
resolve() {
    apt-cache depends --important "$1" 2>/dev/null | sed -n 's/^ *|\{0,1\}Depends: *//p' | grep -v '^<' | head -n 1
}

for name in "$@"; do
    if [ "${name%+}" != "$name" ]; then
        meta=${name%+}
        name=$(resolve "$meta")
        [ -n "$name" ] || fail "no package behind $meta for $arch: are the machine's package sources complete?"
    fi
    version=$(candidate "$name")
    [ -n "$version" ] || fail "no package $name for $arch: are the machine's package sources complete?"
    deb=$(find "$debs" -maxdepth 1 -name "${name}_${version//:/%3a}_*.deb" | head -n 1)
    if [ -z "$deb" ]; then
        (cd "$debs" && apt-get -qq download "$name=$version") >"$state/download.log" 2>&1 || {
            refresh
            version=$(candidate "$name")
            (cd "$debs" && apt-get -qq download "$name=$version") >"$state/download.log" 2>&1 || {
                cat "$state/download.log" >&2
                fail "cannot download $name $version"
            }
        }
        deb=$(find "$debs" -maxdepth 1 -name "${name}_${version//:/%3a}_*.deb" | head -n 1)
        [ -n "$deb" ] || fail "apt-get download left no file for $name $version"
    fi
    dpkg-deb -x "$deb" "$out"
    echo "$name $version $deb"
done
