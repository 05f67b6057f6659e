#!/bin/bash
# The include rule: which folder may include which. A line outside the table fails the test, and so does
# a missing rule for a folder that has sources.
set -u
cd "${VERSO_SOURCE:-$(dirname "$0")/../..}" || exit 2

declare -A may=(
    [scanner]="scanner"
    [translator]="translator scanner"
    [cache]="cache"
    [devices]="devices"
    [monitor]="monitor devices cache translator scanner"
    [tools]="tools monitor devices cache translator scanner"
    [tests]="tests tools monitor devices cache translator scanner"
)
failed=0 checked=0

complain() {
    echo "FAIL $*"
    failed=$((failed + 1))
}

while IFS= read -r file; do
    folder=${file%%/*}
    if [ -z "${may[$folder]:-}" ]; then
        complain "$file: no rule for folder $folder"
        continue
    fi
    while IFS= read -r header; do
        checked=$((checked + 1))
        case $header in
        */*) target=${header%%/*} ;;
        *) # beside the includer
            [ -e "$(dirname "$file")/$header" ] || grep -qF "$header" "$folder/CMakeLists.txt" || # made by the build
                complain "$file includes \"$header\", which is neither beside it nor made by the build"
            continue
            ;;
        esac
        # Only our own folders are judged here; <...> system headers are not looked at.
        [ -d "$target" ] || { complain "$file includes \"$header\": no folder $target"; continue; }
        case " ${may[$folder]} " in
        *" $target "*) ;;
        *) complain "$file includes \"$header\": $folder may not include $target" ;;
        esac
        # The parsers of hostile images never run beside guest code: no header of theirs in the monitor.
        case $folder:$header in
        monitor:scanner/image/*) complain "$file includes \"$header\": no image parser in a VM process" ;;
        esac
    done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$file")
done < <(find scanner translator cache devices monitor tools tests -name '*.[chS]' -o -name '*.def' | sort)

# Third-party libraries: each has one home.
library() { # header-pattern folders...
    local pattern=$1
    shift
    while IFS= read -r hit; do
        local file=${hit%%:*} ok=0
        for f in "$@" tests; do case $file in "$f"/*) ok=1 ;; esac; done
        [ $ok = 1 ] || complain "$hit: only in: $*"
    done < <(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($pattern)" --include='*.[ch]' \
        scanner translator cache devices monitor tools)
}
library 'sqlite3|lz4[a-z]*\.h' cache scanner/image
library 'archive|libelf|gelf' scanner/image
library 'Zydis' scanner translator

[ $checked -gt 50 ] || complain "only $checked include lines seen: the test is looking in the wrong place"
echo "$checked include lines, $failed violations"
[ $failed = 0 ]
