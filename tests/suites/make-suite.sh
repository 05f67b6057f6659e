#!/bin/bash
# make-suite.sh: builds a suite from a distribution source package, as an archive to boot behind the micro guest's initramfs.
#
# Nothing of a suite is kept in this source tree: the sources come through apt, by package name, when a test needs them.
# Exit status: 0 made, 77 the sources cannot be fetched here or there is no 32-bit compiler, else a failure.
set -euo pipefail

usage() {
    cat <<USAGE
usage: make-suite.sh valgrind|selftests|vm86|gas OUTDIR
  valgrind   none/tests/x86 of the source package valgrind
  selftests  tools/testing/selftests/x86 of the package linux-source-6.1, as 32-bit programs
  vm86       the selftests once more, and a small kernel of the same sources that has what Debian's lack: vm86()
  gas        gas/testsuite/gas/i386 of the source package binutils, assembled; not for a guest
Makes in OUTDIR, for the first three, suite.list and initrd.gz (an archive with /test/suite, /test/suite.list, the
programs and the libraries they need) and, for valgrind, expected/NAME* (what each program must print) and filter/NAME; for gas, *.o.
USAGE
}

fail() {
    echo "make-suite.sh: $*" >&2
    exit 1
}

cannot() {
    echo "make-suite.sh: $*" >&2
    exit 77
}

[ $# = 2 ] || { usage >&2 && exit 2; }
suite=$1
here=$(dirname "$(realpath "$0")")
fetch=$here/../../tools/fetch-deb.sh
mkdir -p "$2"
out=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
list=$root/test/suite.list

# source_package NAME: fetches it, prints the path of its tarball.
source_package() {
    local line
    line=$("$fetch" "$work" "src:$1") || cannot "the source package $1 cannot be fetched"
    echo "${line##* }"
}

need_compiler() {
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$work/probe.c"
    gcc -m32 -o "$work/probe" "$work/probe.c" 2>/dev/null || cannot "no 32-bit compiler (package gcc-multilib)"
}

# The guest's C library: programs are linked dynamically, because some of them look for the vDSO through the dynamic linker.
add_libraries() {
    local name
    "$fetch" "$work/debs" libc6 libgcc-s1 >/dev/null || cannot "the C library for i386 cannot be fetched"
    mkdir -p "$root/lib/i386-linux-gnu"
    cp -L "$work/debs/lib/ld-linux.so.2" "$root/lib/"
    for name in libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libgcc_s.so.1; do
        cp -L "$work/debs/lib/i386-linux-gnu/$name" "$root/lib/i386-linux-gnu/"
    done
}

# The same programs give the same archive, byte for byte, so that its pages have the same keys in the cache.
pack() {
    cp "$here/guest-suite.sh" "$root/test/suite"
    cp "$list" "$out/suite.list"
    find "$root" -type d -exec chmod 755 {} +
    find "$root" -exec touch -h -d @1700000000 {} +
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -o -H newc) | gzip -9n >"$out/initrd.gz"
}

# field FILE NAME: the value of a "NAME: value" line of a .vgtest file, empty if it has none.
field() {
    sed -n "s/^$2: *//p" "$1"
}

# The programs as the package's own makefile builds them (its Makefile.am), without position-independent code, which
# inline assembly that clobbers more registers than it says cannot stand. Debugging information plays no part.
make_valgrind() {
    local tarball tests name sources flags folder=valgrind/none/tests/x86
    need_compiler
    tarball=$(source_package valgrind)
    tar -xf "$tarball" -C "$work" --strip-components=1 --wildcards '*/none/tests/x86' '*/none/tests/filter*' '*/tests/*'
    tests=$work/none/tests/x86
    [ -r "$tests/gen_insn_test.pl" ] || fail "the source package valgrind has no none/tests/x86"
    mkdir -p "$root/test/$folder" "$root/test/valgrind/tests" "$out/expected" "$out/filter"
    : >"$work/config.h" # what configure would make; nothing of it is asked for on Linux
    : >"$list"
    gcc -m32 -O1 -DVGA_x86 -o "$root/test/valgrind/tests/x86_amd64_features" "$work/tests/x86_amd64_features.c"
    for test in "$tests"/*.vgtest; do
        name=$(basename "$test" .vgtest)
        sources=$tests/$name.c flags=
        case $name in
        insn_*) perl "$tests/gen_insn_test.pl" <"$tests/$name.def" >"$sources" ;;
        cpuid) sources="$tests/cpuid_c.c $tests/cpuid_s.S" ;;
        fpu_lazy_eflags) flags='-O2 -march=pentiumpro' ;;
        x86locked) flags=-O ;;
        esac
        # shellcheck disable=SC2086 # lists of words
        gcc -m32 -w -mmmx -msse -fno-stack-protector -fno-pie -no-pie -s $flags -I"$work" -o "$root/test/$folder/$name" \
            $sources -lm >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "$name does not compile"; }
        cp "$tests/$name".stdout.exp* "$out/expected/"
        local filter prerequisite
        filter=$(field "$test" stdout_filter)
        [ -z "$filter" ] || printf "cd %s/source/none/tests/x86 && exec ./%s\n" "$out" "$filter" >"$out/filter/$name"
        prerequisite=$(field "$test" prereq)
        printf '%s\t%s\t%s\t%s\n' "$name" "$folder" "${prerequisite:-true}" "$(field "$test" prog | sed 's,^[^/]*$,./&,') $(field "$test" args)" >>"$list"
    done
    rm -rf "$out/source"
    mkdir -p "$out/source/none/tests/x86"
    cp "$work"/none/tests/filter* "$out/source/none/tests/"
    cp "$tests"/filter* "$out/source/none/tests/x86/"
    mkdir -p "$out/source/tests"
    cp "$work"/tests/filter* "$out/source/tests/"
}

# linux_source MEMBER...: parts of the kernel's sources, to $work/linux. A member may be a tar option.
linux_source() {
    "$fetch" "$work/source" linux-source-6.1 >/dev/null || cannot "the package linux-source-6.1 cannot be fetched"
    mkdir -p "$work/linux"
    LC_ALL=C tar -xf "$work/source/usr/src/linux-source-6.1.tar.xz" -C "$work/linux" --strip-components=1 "$@"
}

# The suite's own makefile decides what is built and how.
build_selftests() {
    local program name
    mkdir -p "$work/bin" "$root/test/selftests"
    make -s -C "$work/linux/tools/testing/selftests/x86" all_32 OUTPUT="$work/bin" >"$work/log" 2>&1 ||
        { tail -n 20 "$work/log" >&2 && fail "the selftests do not compile"; }
    for program in "$work"/bin/*_32; do
        name=$(basename "$program" _32)
        strip -o "$root/test/selftests/$name" "$program"
        printf '%s\t%s\t%s\t%s\n' "$name" selftests true "./$name 2>&1" >>"$list"
    done
}

make_selftests() {
    need_compiler
    command -v make >/dev/null || cannot "make is missing"
    linux_source linux-source-6.1/tools/testing/selftests/{x86,lib.mk,kselftest.h,kselftest_harness.h} \
        linux-source-6.1/arch/x86/include/asm/desc_defs.h
    build_selftests
}

# The smallest kernel that runs the micro guest's /init and the selftests: tinyconfig and what follows.
kernel_options='PRINTK BUG TTY UNIX98_PTYS SERIAL_8250 SERIAL_8250_CONSOLE BLK_DEV_INITRD RD_GZIP BINFMT_ELF BINFMT_SCRIPT PROC_FS PROC_SYSCTL
    SYSFS SHMEM TMPFS DEVTMPFS FUTEX EPOLL POSIX_TIMERS HIGH_RES_TIMERS COMPAT_32BIT_TIME MULTIUSER PCI ACPI KERNEL_GZIP PERF_EVENTS
    MODIFY_LDT_SYSCALL X86_16BIT X86_ESPFIX32 X86_IOPL_IOPERM X86_UMIP X86_LEGACY_VM86'
make_vm86() {
    local option
    need_compiler
    for tool in make flex bison bc; do
        command -v $tool >/dev/null || cannot "$tool is missing"
    done
    linux_source --exclude='linux-source-6.1/Documentation/[a-zA-JL-Z]*' --exclude='linux-source-6.1/arch/[a-wyz]*.[chS]' \
        --exclude='linux-source-6.1/drivers/gpu/drm/*.[ch]' --exclude='linux-source-6.1/drivers/net/*.[ch]' linux-source-6.1
    (
        cd "$work/linux"
        make -s ARCH=i386 tinyconfig
        for option in $kernel_options; do
            echo "CONFIG_$option=y"
        done >>.config
        printf '%s\n' '# CONFIG_64BIT is not set' '# CONFIG_VT is not set' CONFIG_M686=y CONFIG_EXPERT=y >>.config
        make -s ARCH=i386 olddefconfig
        make -s ARCH=i386 -j"$(nproc)" KBUILD_BUILD_TIMESTAMP=2023-11-14 bzImage
    ) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2 && fail "the kernel does not compile"; }
    grep -q '^CONFIG_X86_LEGACY_VM86=y' "$work/linux/.config" || fail "the kernel's configuration does not take vm86()"
    cp "$work/linux/arch/x86/boot/bzImage" "$out/vmlinuz-vm86"
    build_selftests
}

# Every source as it is, and once more with each set of options that a test of it (.d file) gives. What does not assemble with --32 is
# 64-bit code or tests the assembler's messages; the lines that do are kept (-Z).
make_gas() {
    local tarball tests=$work/gas/testsuite/gas/i386
    tarball=$(source_package binutils)
    tar -xf "$tarball" -C "$work" --strip-components=1 --wildcards '*/gas/testsuite/gas/i386'
    [ -d "$tests" ] || fail "the source package binutils has no gas/testsuite/gas/i386"
    (
        cd "$tests"
        for test in *.s; do
            echo "$test"
        done
        for test in *.d; do
            options=$(sed -nE 's/^# *as: *(.*[^ ]) *$/\1/p' "$test" | head -n 1)
            source=$(sed -n 's/^# *source: *\([^ ]*\).*/\1/p' "$test" | head -n 1)
            [ -z "$options" ] || echo "${source:-${test%.d}.s} $options"
        done | grep -vE -e ' --(64|x32)'
    ) | sort -u >"$work/jobs"
    # A job: NUMBER SOURCE OPTIONS. A failing one leaves no object.
    # shellcheck disable=SC2016 # the inner shell expands
    nl -w1 -nrz -w4 -s' ' "$work/jobs" | (cd "$tests" && xargs -P "$(nproc)" -L 1 sh -c '
        object=$0/$1-$(basename "$2" .s).o
        shift && source=$1 && shift
        as --32 -Z "$@" -o "$object" "$source" 2>/dev/null || objdump -f "$object" >/dev/null 2>&1 || rm -f "$object"' "$out")
    [ "$(find "$out" -name '*.o' | wc -l)" -ge 1000 ] || fail "too few files of gas' i386 test suite assemble"
}

find "$out" -mindepth 1 -maxdepth 1 -not -name '.*' -exec rm -rf {} +
mkdir -p "$root/test"
case $suite in
valgrind | selftests | vm86)
    "make_$suite"
    add_libraries
    pack
    ;;
gas) make_gas ;;
*) usage >&2 && exit 2 ;;
esac
