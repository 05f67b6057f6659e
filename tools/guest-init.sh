#!/bin/sh
# shellcheck disable=SC2010,SC2012,SC2013,SC2046,SC2005,SC2181,SC1090 # busybox, fixed names
# /init of the micro guest (mkguest.sh): runs a test script and powers off.
#
# Lines that begin with "T:" are the same on every run: no times, process numbers or sizes of anything that changes.
# Tests compare exactly these lines. On the kernel command line: script=NAME runs /test/NAME in place of the built-in
# tests, script=shell gives a shell on the console.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
script=builtin
for word in $(cat /proc/cmdline); do
    case $word in
    script=*) script=${word#script=} ;;
    esac
done
# Kernel messages would cut test lines in two.
echo 1 >/proc/sys/kernel/printk

say() {
    echo "T: $*"
}

# check NAME EXPECTED ACTUAL
check() {
    if [ "$2" = "$3" ]; then
        say "$1 ok $3"
    else
        say "$1 FAILED: expected '$2', got '$3'"
        failed=$((failed + 1))
    fi
}

# 256 KiB of text that any correct awk makes the same.
make_text() {
    awk 'BEGIN { x = 1; for (i = 0; i < 8192; i++) { x = (x * 1103 + 12345) % 65521; printf "%05d %08x line %04d\n", x, x * i, i % 10000 } }'
}

test_processes() {
    n=0
    i=0
    while [ $i -lt 50 ]; do
        (exit $i)
        n=$((n + $?))
        i=$((i + 1))
    done
    check fork_exit 1225 $n
    n=0
    for i in 1 2 3 4 5 6 7 8 9 10; do
        n=$((n + $(/bin/busybox expr $i \* $i)))
    done
    check fork_exec 385 $n
    for i in 1 2 3 4; do
        (seq 1 1000 | wc -l >/tmp/job.$i) &
    done
    wait
    check background_jobs 4000 "$(cat /tmp/job.* | awk '{ s += $1 } END { print s }')"
}

test_pipes() {
    check pipe_chain 500500 "$(seq 1 1000 | cat | cat | cat | awk '{ s += $1 } END { print s }')"
    mkfifo /tmp/fifo
    (seq 1 5000 >/tmp/fifo) &
    check fifo 5000 "$(wc -l </tmp/fifo)"
    wait
    check big_pipe 1048576 "$(dd if=/dev/zero bs=4096 count=256 2>/dev/null | wc -c)"
    check yes_sigpipe y "$(yes | head -n 1)"
}

test_files() {
    mkdir -p /tmp/tree/a/b /tmp/tree/c
    i=0
    while [ $i -lt 40 ]; do
        echo "file $i" >/tmp/tree/a/f$i
        ln -s ../a/f$i /tmp/tree/c/l$i
        i=$((i + 1))
    done
    ln /tmp/tree/a/f1 /tmp/tree/a/b/hard
    mv /tmp/tree/a/f39 /tmp/tree/a/b/moved
    rm /tmp/tree/a/f38
    chmod 640 /tmp/tree/a/f7
    find /tmp/tree -exec touch -h -d '2023-11-14 22:13:20' {} +
    say "ls_tree $(cd /tmp/tree && ls -lR . | grep -v '^total' | md5sum)"
    check find_files 40 "$(find /tmp/tree -type f | wc -l)"
    check sparse_seek "$(printf 'x%.0s' 1 2 3)" "$(dd if=/dev/zero of=/tmp/sparse bs=1 seek=1000000 count=0 2>/dev/null
        printf xxx | dd of=/tmp/sparse bs=1 seek=500000 conv=notrunc 2>/dev/null
        dd if=/tmp/sparse bs=1 skip=500000 count=3 2>/dev/null)"
    say "ls_modules $(ls -l /lib/modules/* | awk '{ print $5, $9 }' | md5sum)"
}

test_sums() {
    make_text >/tmp/text
    check text_lines 8192 "$(wc -l </tmp/text)"
    say "md5 $(md5sum </tmp/text)"
    say "sha256 $(sha256sum </tmp/text)"
    say "busybox $(sha1sum </bin/busybox)"
    say "sort $(sort -r /tmp/text | md5sum)"
    say "sed $(sed -e 's/line/row/' -e 's/\([0-9]*\) \([0-9a-f]*\)/\2 \1/' /tmp/text | md5sum)"
    say "awk_float $(awk 'BEGIN { for (i = 1; i <= 2000; i++) s = (s + i / 7.25) * 1.0009 - i / (i + 0.5); printf "%.9f", s }')"
}

test_gzip() {
    sum=$(md5sum </tmp/text)
    check gzip_round_trip "$sum" "$(gzip -c /tmp/text | gunzip -c | md5sum)"
    check bzip2_round_trip "$sum" "$(bzip2 -c /tmp/text | bunzip2 -c | md5sum)"
    gzip -c /bin/busybox >/tmp/bb.gz
    check gzip_busybox "$(md5sum </bin/busybox)" "$(gunzip -c /tmp/bb.gz | md5sum)"
    check tar_round_trip "$(cat /tmp/tree/a/f* | md5sum)" "$(cd /tmp && tar -c -f - tree/a | (mkdir x && cd x && tar -x -f - && cat tree/a/f*) | md5sum)"
}

test_signals() {
    check trap_usr1 caught "$(sh -c 'trap "echo caught; exit 0" USR1; kill -USR1 $$; sleep 5; echo late')"
    sleep 1000 &
    victim=$!
    kill -TERM $victim
    wait $victim
    check kill_term 143 $?
    sleep 1000 &
    victim=$!
    kill -KILL $victim
    wait $victim
    check kill_kill 137 $?
    check many_signals 100 "$(sh -c 'n=0; trap "n=\$((n + 1))" USR2; i=0; while [ $i -lt 100 ]; do kill -USR2 $$; i=$((i + 1)); done; echo $n')"
    check segv 139 "$(sh -c 'kill -SEGV $$' 2>/dev/null; echo $?)"
    check alarm timeout "$(timeout 1 sleep 20; [ $? -ne 0 ] && echo timeout)"
}

test_modules() {
    for module in crc7 crc-itu-t loop dummy; do
        insmod "/lib/modules/$(uname -r)/$module.ko"
        check "insmod_$module" 0 $?
    done
    check lsmod "crc7 crc_itu_t dummy loop" "$(echo $(lsmod | awk 'NR > 1 { print $1 }' | sort))"
    dd if=/dev/zero of=/tmp/disk bs=1024 count=1024 2>/dev/null
    printf verso | dd of=/tmp/disk bs=512 seek=9 conv=notrunc 2>/dev/null
    losetup /dev/loop0 /tmp/disk
    check loop_read verso "$(dd if=/dev/loop0 bs=512 skip=9 count=1 2>/dev/null | head -c 5)"
    losetup -d /dev/loop0
    rmmod crc7
    check rmmod 0 $?
}

failed=0
case $script in
builtin)
    say begin
    for group in processes pipes files sums gzip signals modules; do
        test_$group
    done
    say "end, $failed failed"
    ;;
shell) setsid cttyhack sh ;;
*) . "/test/$script" ;;
esac
sync
poweroff -f
