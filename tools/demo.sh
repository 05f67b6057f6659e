#!/bin/bash
# The main job from start to end: build, make the Debian installer's ISO, pre-warm the cache from it, boot it from the
# cache to the language screen on the serial console, switch it off, and show what the cache did and holds.
# Everything is made in build/ (or $VERSO_BUILD). Nothing is asked; root or sudo is needed only to install packages.
set -eu
cd "$(dirname "$0")/.."
build=${VERSO_BUILD:-$PWD/build}
iso=$build/installer.iso
cache=$build/demo-cache.db
stats=$build/demo-stats.txt

step() {
    printf '\n== %s\n' "$*"
}

step "Packages"
tools/apt.sh build guest

step "Build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" --target verso
verso=$build/tools/verso

step "The installer's ISO"
[ -s "$iso" ] || tools/mkiso.sh "$iso"
ls -l "$iso"

step "verso prewarm"
rm -f "$cache" "$cache"-wal "$cache"-shm
"$verso" prewarm "$iso" --cache "$cache"

for boot in first second; do
    step "verso run, $boot boot: to the language screen, then back, into a shell, and power off from there"
    status=0
    UNTIL_TIME=$build/demo-time.txt timeout --foreground -k 10 "${VERSO_DEMO_TIMEOUT:-600}" tools/installer.exp off "$build/demo-console.txt" \
        "$verso" run "$iso" --cache "$cache" --stats-to "$stats" || status=$?
    printf '\033[0m\033[2J\033[H'
    if [ $status != 0 ]; then
        echo "the machine did not come to its language screen and power-off (status $status)"
        exit 1
    fi
    step "$boot boot: language screen after $(cat "$build/demo-time.txt") s, then powered off"
    cat "$stats"
done

step "verso cache ls (the largest images)"
"$verso" cache ls --cache "$cache" | (read -r head && echo "$head" && sort -k3,3nr | head -n 20)

step "verso cache stats"
"$verso" cache stats --cache "$cache"

step "verso cache show (the first page of the kernel, its first lines)"
kernel=$("$verso" cache ls --cache "$cache" | awk '$2 == "kernel" { print $1; exit }')
page=$("$verso" cache ls "$kernel" --cache "$cache" | awk 'NR == 1 { print $1 }')
"$verso" cache show "$kernel:$page" --cache "$cache" >"$build/demo-page.txt"
head -n 110 "$build/demo-page.txt"
echo "... (all of it in $build/demo-page.txt)"

step "Done: the language screen came up twice, out of $cache"
