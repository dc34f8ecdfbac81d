#!/usr/bin/env bash
# deploy/step.sh MESSAGE COMMAND…: a step of make. After a second it prints MESSAGE, then every ten seconds how long
# it has taken and what the command said last. All that it said is printed if it fails.
#
# deploy/step.sh --show MESSAGE COMMAND…: the same for a command that is used, and prints for itself.
#
# Ctrl-C ends the command, whatever it does, and then make, which prints no error of its own.
set -u
show=
if [ "$1" = --show ]; then
    show=1
    shift
fi
message=$1
shift
pid= ticker= log=

# Each in a process group of its own: Ctrl-C on the terminal reaches this script alone, which ends the others.
end_group() {
    [ -z "$1" ] || kill -s "$2" -- "-$1" 2>/dev/null || true
}

stopped() {
    trap '' INT TERM HUP
    exec 3>&2 2>/dev/null # the shell would say which signal ended the command
    end_group "$ticker" KILL
    # SIGTERM, since Python prints a traceback if Ctrl-C comes while it loads modules.
    if [ -n "$show" ]; then
        [ -z "$pid" ] || kill -s TERM "$pid" # it ends its own children, in order
    else
        end_group "$pid" TERM
    fi
    [ -z "$pid" ] || wait "$pid"
    [ -z "$log" ] || rm -f "$log"
    [ -n "$show" ] || echo "stopped while $message; the same command continues from there" >&3
    # make may not have had the signal. It must not take this step for done, and prints an error for any other exit.
    kill -s INT "$PPID"
    for _ in {1..100}; do
        is_catching "$PPID" || break
        sleep 0.02
    done
    exit 0
}

# Whether a process has yet to take SIGINT. make prints an error if its child has ended before it does; then it sets
# the signal to its default.
is_catching() {
    local name value
    while read -r name value; do
        if [ "$name" = SigCgt: ]; then
            ((0x$value & 2))
            return
        fi
    done <"/proc/$1/status"
    return 1
} 2>/dev/null
# While processes are started their numbers are not known yet.
asked=
trap 'asked=1' INT TERM HUP

tick() {
    sleep 1
    echo "$message …"
    local seconds=0
    while sleep 10; do
        seconds=$((seconds + 10))
        echo "  $seconds s: $(tail -c 2000 "$log" | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-100)"
    done
}

if [ -n "$show" ]; then
    set -m
    "$@" </dev/null &
    pid=$!
    set +m
else
    log=$(mktemp)
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    tick &
    ticker=$!
    disown "$ticker" # or the shell says that it was killed
    set +m
fi
trap stopped INT TERM HUP
[ -z "$asked" ] || stopped
wait "$pid"
status=$?
trap '' INT TERM HUP
end_group "$ticker" KILL
if [ -n "$log" ]; then
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
fi
exit "$status"
