# shellcheck shell=sh
# script=bench of the micro guest: sourced by its /init. On the kernel command line: bench_rows=, and bench_ms= or
# bench_units=, bench_empty= (see main.c).
printf 'I up\n'
how=200
rows='*'
for word in $(cat /proc/cmdline); do
    case $word in
    bench_ms=*) how=${word#*=} ;;
    bench_units=* | bench_empty=*)
        how=${word%%=*}
        how="${how#bench_} ${word#*=}"
        ;;
    bench_rows=*) rows=${word#*=} ;;
    esac
done
cd /tmp || exit

# row NAME COMMAND: one execution of a shell command, if wanted.
row() {
    for pattern in $(set -f; IFS=,; echo $rows); do
        # shellcheck disable=SC2254 # a pattern is what it is
        case sh.$1 in
        $pattern) /test/bench-program time "sh.$1" sh -c "$2" >/dev/ttyS0 </dev/null && return ;;
        esac
    done
}

set -f
# shellcheck disable=SC2086 # how: one word or two
case $rows in
none) ;;
*) /test/bench-program $how "$rows" ;;
esac
case $rows in
*sh.* | '*')
    awk 'BEGIN { x = 1; for (i = 0; i < 40000; i++) { x = (x * 1103 + 12345) % 65521; printf "%05d %08x line %04d of the text\n", x, x * i, i % 10000 } }' >text
    gzip -c text >text.gz
    bzip2 -c text >text.bz2
    mkdir tree
    for d in 1 2 3 4 5 6 7 8 9 10; do
        mkdir tree/$d
        for f in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "$d/$f" >tree/$d/$f; done
    done
    row loop 'i=0; s=0; while [ $i -lt 40000 ]; do i=$((i + 1)); s=$((s + i % 7)); done'
    row exec 'i=0; while [ $i -lt 100 ]; do i=$((i + 1)); /bin/busybox true; done'
    row pipe 'i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo $i | cat | wc -c; done >/dev/null'
    row gzip 'gzip -c text text >out'
    row gunzip 'for i in 1 2 3 4; do gunzip -c text.gz; done >out'
    row bunzip2 'bunzip2 -c text.bz2 >out'
    row awk 'awk "{ n[\$1 % 97] += length(\$0); gsub(/[0-9]/, \"x\") } END { for (k in n) s += n[k]; print s }" text >out'
    row sed 'sed -e "s/line \([0-9]*\)/\1 row/" -e "s/[a-f]/#/g" text >out'
    row grep 'grep -c "[0-9a-f]*7 line .*9" text >out; grep -v -i "LINE 0" text >out'
    row sort 'sort -r text >out'
    row sha256sum 'for i in 1 2 3; do sha256sum text; done >out'
    row md5sum 'for i in 1 2 3 4 5; do md5sum text; done >out'
    row find 'for i in 1 2 3 4 5; do find tree -type f -exec /bin/busybox true {} +; find tree -name "1*"; done >out'
    row tar 'tar -c -f out.tar tree text; tar -t -f out.tar >out'
    ;;
esac
printf 'I end\n'
