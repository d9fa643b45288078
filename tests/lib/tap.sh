# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# tap: what every shell test needs. Source it first; it gives
#
#   T                        a scratch directory of this run, removed at the end (MLOPSFS_KEEP=1 keeps it)
#   pass fail NAME           a test point
#   ok RC NAME               passes when RC is 0
#   is GOT WANT NAME         passes when both are the same text
#   like TEXT REGEX NAME     passes when TEXT matches (bash, extended)
#   unlike TEXT REGEX NAME
#   cmd_ok NAME COMMAND…     passes when the command returns 0; shows its output when not
#   cmd_fails NAME COMMAND…  passes when the command fails of itself (not by a signal or a time limit)
#   errno_is CODE NAME COMMAND…  passes when the command fails and says the text of that errno
#   skip NAME REASON         a test point that cannot be had here
#   skip_all REASON          ends the script: nothing of it can be had here
#   bail_out REASON          ends the script: it cannot go on
#   diag TEXT                for people
#   within SECONDS COMMAND…  the command, killed after that long (a function is run in a subshell)
#   wait_until SECONDS COMMAND…  repeats the command until it returns 0; 1 when the time is over
#   at_exit COMMAND          runs at the end, last one first, however the script ends
#   before_done COMMAND      runs in done_testing, and may add test points
#   done_testing             last line of every script
#
# A script runs at most MLOPSFS_TEST_TIMEOUT seconds (600): a time limit against hangs, no test point depends on it.

set -u
export LC_ALL=C TZ=UTC0

if [ -z "${TAP_LIMITED-}" ]; then
    TAP_LIMITED=1 exec timeout -k 30 "${MLOPSFS_TEST_TIMEOUT:-600}" "$BASH" "$0" "$@"
fi
unset TAP_LIMITED
# In this process group, so that the limit above ends what runs under it too.
timeout() { command timeout --foreground "$@"; }

tap_count=0 tap_failed=0 tap_done=0 tap_exit=() tap_before=() tap_group=
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
T=$(mktemp -d "${TMPDIR:-/tmp}/mlopsfs-test.XXXXXX") || exit 99
exec {tap_out}>&1
: "${MLOPSFS_SEED:=$RANDOM$RANDOM}"
export MLOPSFS_SEED

diag() { printf '# %s\n' "${*//$'\n'/$'\n# '}" >&"$tap_out"; }
pass() {
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s\n' "$tap_count" "$*" >&"$tap_out"
}
fail() {
    tap_count=$((tap_count + 1)) tap_failed=$((tap_failed + 1))
    printf 'not ok %d - %s\n' "$tap_count" "$*" >&"$tap_out"
    diag "at ${BASH_SOURCE[-1]##*/} line ${BASH_LINENO[-2]}"
    return 0
}
ok() {
    if [ "$1" -eq 0 ]; then pass "$2"; else fail "$2 (returned $1)"; fi
}
is() {
    if [ "$1" = "$2" ]; then
        pass "$3"
    else
        fail "$3"
        diag "got:    $(head -c 1500 <<<"$1")"
        diag "wanted: $(head -c 1500 <<<"$2")"
    fi
}
like() {
    if [[ $1 =~ $2 ]]; then pass "$3"; else
        fail "$3"
        diag "got:           $(head -c 1500 <<<"$1")"
        diag "does not match $2"
    fi
}
unlike() {
    if ! [[ $1 =~ $2 ]]; then pass "$3"; else
        fail "$3"
        diag "got:    $(head -c 1500 <<<"$1")"
        diag "matches $2"
    fi
}
tap_show() {
    diag "ran: $(printf '%q ' "$@" | head -c 600)"
    head -n 25 "$T/.output" | head -c 4000 | sed 's/^/#   /' >&"$tap_out"
}
cmd_ok() {
    local name=$1 rc
    shift
    "$@" >"$T/.output" 2>&1 </dev/null
    rc=$?
    if [ $rc = 0 ]; then pass "$name"; else
        fail "$name (returned $rc)"
        tap_show "$@"
    fi
    return $rc
}
cmd_fails() {
    local name=$1 rc
    shift
    "$@" >"$T/.output" 2>&1 </dev/null
    rc=$?
    if [ $rc != 0 ] && [ $rc -lt 124 ]; then pass "$name"; else
        fail "$name (returned $rc)"
        tap_show "$@"
    fi
}
tap_errno_text() {
    case $1 in
    EPERM) echo "Operation not permitted" ;; ENOENT) echo "No such file or directory" ;; EIO) echo "Input/output error" ;;
    EACCES) echo "Permission denied" ;; EBUSY) echo "resource busy" ;; EEXIST) echo "File exists" ;;
    ENOTDIR) echo "Not a directory" ;; EISDIR) echo "Is a directory" ;; EINVAL) echo "Invalid argument" ;;
    EFBIG) echo "File too large" ;; ENOSPC) echo "No space left on device" ;; EROFS) echo "Read-only file system" ;;
    ENAMETOOLONG) echo "File name too long" ;; ENOTEMPTY) echo "Directory not empty" ;; ESTALE) echo "Stale file handle" ;;
    ENOTCONN) echo "Transport endpoint is not connected" ;; ETIMEDOUT) echo "Connection timed out" ;; ENODATA) echo "No such attribute|No data available" ;;
    EINTR) echo "Interrupted system call" ;; EOPNOTSUPP) echo "Operation not supported" ;; EXDEV) echo "Invalid cross-device link" ;;
    *) echo "unknown errno $1" ;;
    esac
}
errno_is() {
    local code=$1 name=$2 rc
    shift 2
    "$@" >"$T/.output" 2>&1 </dev/null
    rc=$?
    if [ $rc != 0 ] && grep -Eq "$(tap_errno_text "$code")" "$T/.output"; then pass "$name"; else
        fail "$name (returned $rc, wanted $code)"
        tap_show "$@"
    fi
}
skip() {
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2" >&"$tap_out"
}
skip_all() {
    printf '1..0 # SKIP %s\n' "$*" >&"$tap_out"
    tap_done=1
    exit 0
}
bail_out() {
    printf 'Bail out! %s\n' "$*" >&"$tap_out"
    tap_done=1 tap_failed=1
    exit 99
}
have() { command -v "$1" >/dev/null 2>&1; }

within() {
    local s=$1
    shift
    if [ "$(type -t "$1")" = function ]; then
        local rc
        set -m # a process group of its own, so that all of it can be killed
        ("$@") &
        tap_group=$!
        set +m
        wait_until "$s" tap_gone "$tap_group" || { kill -KILL -- -"$tap_group"; s=timeout; } 2>/dev/null
        wait "$tap_group" 2>/dev/null
        rc=$?
        tap_group=
        [ "$s" = timeout ] && return 124
        return $rc
    fi
    timeout -k 5 "$s" "$@"
}
# Whether a process has ended, be it reaped or not.
tap_gone() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    stat=${stat##*) }
    [ "${stat%% *}" = Z ]
}
# A short breath between two looks at a condition.
exec {tap_never}<> <(:)
tap_breath() { read -rt 0.05 -u "$tap_never" _; :; }
wait_until() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt $end ] || return 1
        tap_breath
    done
}

at_exit() { tap_exit+=("$1"); }
before_done() { tap_before+=("$1"); }
done_testing() {
    local c
    for c in ${tap_before[@]+"${tap_before[@]}"}; do eval "$c"; done
    printf '1..%d\n' "$tap_count" >&"$tap_out"
    [ $tap_failed = 0 ] || diag "$tap_failed of $tap_count failed; seed $MLOPSFS_SEED"
    tap_done=1
    exit $((tap_failed > 0))
}
tap_end() {
    local rc=$? i
    trap '' TERM INT HUP
    trap - EXIT
    cd /
    [ -n "$tap_group" ] && kill -KILL -- -"$tap_group" 2>/dev/null
    for ((i = ${#tap_exit[@]} - 1; i >= 0; i--)); do eval "${tap_exit[i]}"; done >/dev/null 2>&1
    if [ $tap_done = 0 ]; then
        printf 'Bail out! %s ended early (status %d)\n' "${0##*/}" "$rc" >&"$tap_out"
        rc=99
    fi
    if [ -n "${MLOPSFS_KEEP-}" ]; then diag "kept $T"; else rm -rf --one-file-system "$T" 2>/dev/null; fi
    exit $rc
}
trap tap_end EXIT
trap 'diag "stopped by a signal or the time limit, at line $LINENO"; exit 98' TERM INT HUP

# ---- small things for test bodies ----

# The first SIZE bytes of the stream SEED: fast, and of no pattern that a mistake could leave in place.
gen() {
    openssl enc -aes-128-ctr -nosalt -K "$(printf '%032x' "$1")" -iv 0 </dev/zero 2>/dev/null | head -c "$2"
}
sha() { openssl dgst -sha256 -r "$@" | cut -c 1-64; }
gen_sha() { gen "$1" "$2" | sha; }
# bytes 64M → 67108864
bytes() { numfmt --from=iec "$1"; }
