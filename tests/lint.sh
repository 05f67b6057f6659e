#!/bin/bash
# lint.sh [FILE...]: cppcheck and clang-tidy over the sources (all of them without FILE: half an hour), as .clang-tidy and the table
# below configure them. Needs a configured build (BUILD, default build) for its compile_commands.json. Status 1 if anything is found.
set -u
cd "$(dirname "$0")/.." || exit 2
build=${BUILD:-build}
[ -f "$build/compile_commands.json" ] || { echo "no $build/compile_commands.json: run cmake first"; exit 2; }
for tool in cppcheck clang-tidy; do
    command -v "$tool" >/dev/null || { echo "no $tool: apt-get install cppcheck clang-tidy"; exit 2; }
done

# cppcheck's false alarms: what, where, why.
suppressed=$(
    grep -v '^#' <<-'TABLE' | awk '{ print "--suppress=" $1 ":" $2 }'
	# a distance of two labels of one piece of assembly
	comparePointers *
	# constants that are unsigned where they are used
	integerOverflow *tests/unit/*
	# filled by the call
	uninitvar *cache/cache.c
	uninitvar *monitor/signals.c
	uninitvar *tools/listing.c
	uninitvar *tests/unit/test_emu_alu.c
	uninitvar *tests/suites/listing.c
	# null where calloc() failed
	memleak *scanner/image/bootcfg.c
	# the fault for a zero divisor does not return
	zerodivcond *monitor/emu_insn.c
	# arithmetic shift of a negative number: every compiler here does it
	shiftTooManyBitsSigned *monitor/emu_insn.c
	# the pointer is moved on for the caller's next call
	uselessAssignmentPtrArg *monitor/emu_fpu.c
	# a test that is out of memory may leak
	memleakOnRealloc *tests/unit/*
	TABLE
)

status=0
if [ $# = 0 ]; then
    # shellcheck disable=SC2086 # a list of options
    cppcheck --project="$build/compile_commands.json" --enable=warning,performance,portability --suppress=missingIncludeSystem -q \
        --error-exitcode=1 --template='{file}:{line}: {severity}: {id}: {message}' $suppressed || status=1
    mapfile -t files < <(git ls-files 'scanner/*.c' 'translator/*.c' 'cache/*.c' 'devices/*.c' 'monitor/*.c' 'tools/*.c' |
        grep -v -e '^tools/bench/' -e gen_offsets)
else
    files=("$@")
fi

# What clang-tidy's analyzer takes for possible because it does not follow sizes, results and shared tables: file and check.
known='cache/file\.c.*NonNullParamChecker|xxhash\.h.*NonNullParamChecker|scanner/image/internal\.h.*NonNullParamChecker
tools/(gather|cmd_trace)\.c.*NullDereference|translator/serial\.c.*uninitialized\.Assign|translator/translate\.c.*uninitialized\.UndefReturn'
known=${known//$'\n'/|}
for file in "${files[@]}"; do
    clang-tidy -p "$build" --quiet "$file" 2>/dev/null | grep -E ': (warning|error): ' | sort -u | grep -vE "$known" && status=1
done
exit "$status"
