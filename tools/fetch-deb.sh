#!/bin/bash
# fetch-deb.sh: fetches Debian packages of another architecture and unpacks them, or upstream tarballs of source packages, without
# installing anything.
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
A PACKAGE written src:NAME is a source package: its upstream tarball is fetched and stays as it is.
  -a ARCH    Debian architecture, default i386
  -s STATE   where the private apt state lives, default \${XDG_CACHE_HOME:-~/.cache}/verso/apt-ARCH
  -c CACHE   where the .deb files are kept, default STATE/debs
Prints one line, "PACKAGE VERSION FILE", for each package.
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

mkdir -p "$state" "$debs" "$out"
state=$(realpath "$state") debs=$(realpath "$debs") out=$(realpath "$out")

# use_state DIR: apt works on the state in DIR from here on; what it is told besides comes on standard input.
use_state() {
    apt_state=$1
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    : >>"$1/status"
    cat >"$1/apt.conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
Dir::State "$1";
Dir::State::status "$1/status";
Dir::State::lists "$1/lists";
Dir::Cache "$1/cache";
APT::Sandbox::User "";
CONF
    cat >>"$1/apt.conf"
    export APT_CONFIG=$1/apt.conf
    [ -n "$(find "$1/updated" -mmin -720 2>/dev/null)" ] || refresh
}

# The machine's own sources with source packages in place of binary ones: most machines list only the latter.
source_lists() {
    local dir=$1 Etc_list='' Etc_parts='' file
    eval "$(APT_CONFIG='' apt-config shell Etc_list Dir::Etc::sourcelist/f Etc_parts Dir::Etc::sourceparts/d)"
    rm -rf "$dir" && mkdir -p "$dir"
    for file in "$Etc_list" "$Etc_parts"/*.list "$Etc_parts"/*.sources; do
        case $file in
        *.sources) [ ! -r "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$dir/${file##*/}" ;;
        *) [ ! -r "$file" ] || sed -nE 's/^[[:space:]]*deb([[:space:]])/deb-src\1/p' "$file" >"$dir/${file##*/}" ;;
        esac
    done
}

# An index that cannot be brought up to date (a mirror in the middle of its own update) is no error as long as some
# index names the package: apt says so, and the download below decides.
refresh() {
    apt-get -qq update >"$apt_state/update.log" 2>&1 || {
        echo "fetch-deb.sh: note: some package lists could not be updated ($apt_state/update.log)" >&2
    }
    touch "$apt_state/updated"
}

candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -vx '(none)' || true
}

# Called with NAME+: the package behind a meta package.
resolve() {
    apt-cache depends --important "$1" 2>/dev/null | sed -n 's/^ *|\{0,1\}Depends: *//p' | grep -v '^<' | head -n 1
}

# fetch_source NAME: the upstream tarball of the newest version; apt keeps a file that is there already and checks its digest.
fetch_source() {
    local name=$1 uri file version
    uri=$(apt-get -qq source --print-uris --tar-only "$name" 2>"$state/download.log") || {
        cat "$state/download.log" >&2
        fail "no source package $name: are the machine's package sources complete?"
    }
    file=$(echo "$uri" | sed -n "s/^'[^']*' \([^ ]*\.tar\.[a-z0-9]*\) .*/\1/p" | grep -m1 . || true)
    [ -n "$file" ] || fail "the source package $name has no tarball"
    version=${file#*_}
    (cd "$debs" && apt-get -qq source --download-only --tar-only "$name") >"$state/download.log" 2>&1 || {
        cat "$state/download.log" >&2
        fail "cannot download the source package $name"
    }
    echo "src:$name ${version%%.orig*} $debs/$file"
}

use_state "$state" </dev/null
sources=''
for name in "$@"; do
    case $name in
    src:*)
        sources="$sources ${name#src:}"
        continue
        ;;
    esac
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

[ -n "$sources" ] || exit 0
source_lists "$state/source.d"
use_state "$state/source" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$state/source.d";
CONF
for name in $sources; do
    fetch_source "$name"
done
