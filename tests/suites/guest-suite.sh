# shellcheck shell=sh
# shellcheck disable=SC2094 # sourced by guest-init.sh, which has say()
# Runs a suite inside the guest (script=suite): each line of /test/suite.list is NAME, FOLDER, PREREQUISITE and COMMAND, separated by
# tabs. What a command writes to its standard output goes to the console in base64, byte for byte, between two lines:
#   T: begin NAME
#   T: end NAME STATUS        STATUS is "unmet" where the prerequisite does not hold
tab=$(printf '\t')
while IFS=$tab read -r name folder prerequisite command <&3; do
    say "begin $name"
    cd "/test/$folder" || exit 1
    if sh -c "$prerequisite" >/dev/null 2>&1 3<&-; then
        # The pipe ends when the last process that has it ends: children that outlive the program are waited for.
        {
            timeout 120 sh -c "$command" 2>/tmp/suite.err </dev/null 3<&-
            echo $? >/tmp/suite.status
        } | base64 | sed 's/^/B: /'
        status=$(cat /tmp/suite.status)
    else
        status=unmet
    fi
    say "end $name $status"
done 3</test/suite.list
say "suite done"
