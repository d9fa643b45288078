# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# mount: a mount for a shell test. Needs tap.sh and servers.sh.
#
#   MLOPSFS_STORE=local|minio|versitygw   which store (default local)
#   MLOPSFS_BIN                           the program (default build/mlopsfs)
#   MLOPSFS_PLAIN=1                       a plain directory instead of a mount, to try the tests themselves
#
#   store_up              starts the store; sets SOURCE (what to mount) and S3_BUCKET
#   mnt_up [OPTION…]      mounts SOURCE at MNT (each OPTION as after -o; they come after the tests' own)
#   mnt_down              `mlopsfs umount`, and the daemon must end with 0; returns umount's status
#   mnt_again [OPTION…]   both
#   mnt_kill              kill -9 for the daemon; the dead mount stays
#   mnt_pid               the daemon's process
#   mnt_status NAME       the value of a line of `mlopsfs status` ("requests GET", "staged", …)
#   mnt_sum NAME          the sum of the lines NAME VERB n of `mlopsfs status` (NAME: requests or errors)
#   mnt_peak              the daemon's peak resident memory, bytes
#   needs_mount           skips the script in plain mode
#   needs_foreign         skips it unless another client can reach the bucket (not on local)
#   foreign               whether one can
#   sanitized             whether the program is a sanitizer build (slow, much memory)
#   clear                 empties the mount
#
# done_testing adds two test points: no sanitizer report or failed assertion, and no daemon ended badly.

MLOPSFS_STORE=${MLOPSFS_STORE:-local}
MLOPSFS_BIN=${MLOPSFS_BIN:-$TOP/build/mlopsfs}
MLOPSFS_PLAIN=${MLOPSFS_PLAIN-}
case $MLOPSFS_BIN in /*) ;; *) MLOPSFS_BIN=$PWD/$MLOPSFS_BIN ;; esac
MNT=$T/mnt
mnt_daemon='' mnt_bad=0
export XDG_RUNTIME_DIR=$T/run HOME=$T/home
export GIT_CONFIG_NOSYSTEM=1
mkdir -p "$MNT" "$T/cache" "$T/home" "$T/san"
mkdir -p -m 700 "$T/run"
unset MLOPSFS_CONF S3_BUCKET

# GLib's own slab allocator hands memory from thread to thread behind the sanitizers' backs.
export G_SLICE=always-malloc
sanitizer_options="log_path=$T/san/report:exitcode=66"
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}$sanitizer_options:detect_leaks=1:abort_on_error=0"
export TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS:}$sanitizer_options"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}$sanitizer_options:print_stacktrace=1"

[ -n "$MLOPSFS_PLAIN" ] || [ -x "$MLOPSFS_BIN" ] || bail_out "$MLOPSFS_BIN is not built"
[ -n "$MLOPSFS_PLAIN" ] || [ -c /dev/fuse ] || skip_all "no /dev/fuse"

sanitized() { [ -z "$MLOPSFS_PLAIN" ] && grep -Eqa '__(asan|tsan)_init' "$MLOPSFS_BIN"; }
needs_mount() { [ -z "$MLOPSFS_PLAIN" ] || skip_all "needs a mount"; }
foreign() { [ -z "$MLOPSFS_PLAIN" ] && [ "$MLOPSFS_STORE" != local ]; }
needs_foreign() { foreign || skip_all "nobody else can reach the bucket of a $MLOPSFS_STORE store"; }

store_up() {
    [ -z "$MLOPSFS_PLAIN" ] || return 0
    case $MLOPSFS_STORE in
    local) SOURCE=local:$T/store; return 0 ;;
    minio) start_minio ;;
    versitygw) start_versitygw ;;
    *) bail_out "MLOPSFS_STORE is local, minio or versitygw, not $MLOPSFS_STORE" ;;
    esac
    export S3_BUCKET=testbucket
    s3_mb || bail_out "cannot make a bucket"
    SOURCE=s3://$S3_BUCKET
}

mnt_is_mounted() { grep -q " ${1:-$MNT} fuse" /proc/self/mounts; }
# The mount answers requests, or its daemon has ended. (It may replace a dead mount between two looks; then a directory answers.)
mnt_is_ready() { tap_gone "$mnt_daemon" || { mnt_is_mounted && timeout 60 stat -f "$MNT" >/dev/null 2>&1 && mnt_is_mounted; }; }
mnt_up() {
    local opts="cache_dir=$T/cache,commit=${MLOPSFS_COMMIT:-close}" o # what a test has closed, it looks for in the bucket
    [ -z "$MLOPSFS_PLAIN" ] || return 0
    at_exit mnt_cleanup # before the servers that were started earlier end
    for o in "$@"; do opts+=",$o"; done
    printf -- '-- mount %s -o %s\n' "$SOURCE" "$opts" >>"$T/mount.log"
    "$MLOPSFS_BIN" mount -f -o "$opts" "$SOURCE" "$MNT" >>"$T/mount.log" 2>&1 </dev/null &
    mnt_daemon=$!
    wait_until 60 mnt_is_ready
    mnt_is_mounted && ! tap_gone "$mnt_daemon" && return 0
    diag "no mount: $(tail -n 5 "$T/mount.log")"
    return 1
}
# Waits for the daemon's end and remembers a bad one. $1: the status that is right (0).
mnt_reap() {
    local rc
    [ -n "$mnt_daemon" ] || return 0
    if ! wait_until 60 tap_gone "$mnt_daemon"; then
        diag "the daemon does not end after its unmount"
        mnt_bad=$((mnt_bad + 1))
        mnt_stacks
        kill -KILL "$mnt_daemon" 2>/dev/null
    fi
    wait "$mnt_daemon" 2>/dev/null
    rc=$?
    mnt_daemon=
    if [ $rc != "${1:-0}" ]; then
        diag "the daemon ended with status $rc: $(tail -n 5 "$T/mount.log")"
        mnt_bad=$((mnt_bad + 1))
    fi
}
mnt_stacks() {
    have gdb && [ -n "$mnt_daemon" ] &&
        diag "$(timeout 30 gdb -p "$mnt_daemon" -batch -ex 'thread apply all bt 12' 2>/dev/null | grep -E '^(Thread|#)' | head -n 150)"
}
mnt_down() {
    local rc
    [ -z "$MLOPSFS_PLAIN" ] || return 0
    timeout -k 5 300 "$MLOPSFS_BIN" umount "$MNT" >"$T/umount.log" 2>&1
    rc=$?
    if [ $rc = 0 ]; then mnt_reap; else diag "umount returned $rc: $(head -n 5 "$T/umount.log")"; fi
    return $rc
}
mnt_again() {
    mnt_down && mnt_up "$@" || bail_out "cannot mount again"
}
mnt_kill() {
    kill -KILL "$mnt_daemon"
    mnt_reap 137
}
mnt_pid() { echo "$mnt_daemon"; }
mnt_status() {
    "$MLOPSFS_BIN" status "$MNT" 2>/dev/null | sed -n "s/^ *$1:* \{1,\}//p" | head -n 1
}
mnt_sum() { "$MLOPSFS_BIN" status "$MNT" 2>/dev/null | awk -v n="$1" '$1 == n { sum += $3 } END { print sum + 0 }'; }
mnt_peak() { awk '/^VmHWM/ { print $2 * 1024 }' "/proc/$mnt_daemon/status"; }
clear() { find "$MNT" -mindepth 1 -delete; }
drop_caches() { sync "$MNT" 2>/dev/null; { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || :; }

mnt_cleanup() {
    local m
    cd /
    for m in $(awk -v t="$T/" 'index($2, t) == 1 { print $2 }' /proc/self/mounts | sort -r); do
        umount "$m" 2>/dev/null || fusermount3 -u -z "$m" 2>/dev/null || umount -l "$m" 2>/dev/null
    done
    if [ -n "$mnt_daemon" ]; then
        wait_until 10 tap_gone "$mnt_daemon" || kill -KILL "$mnt_daemon" 2>/dev/null
    fi
    if [ $tap_failed != 0 ] && [ -s "$T/mount.log" ] && [ -z "${mnt_said-}" ]; then
        mnt_said=1
        diag "the daemon said: $(tail -n "${MLOPSFS_LOG_LINES:-40}" "$T/mount.log")"
    fi
}
at_exit mnt_cleanup

mnt_check() {
    local reports
    [ -z "$MLOPSFS_PLAIN" ] || return 0
    if mnt_is_mounted && [ -n "$mnt_daemon" ]; then mnt_down; fi
    reports=$(cat "$T"/san/* 2>/dev/null
        grep -E 'Sanitizer|runtime error:|Assertion|[aA]ssert.*failed|lock (order|inversion)' "$T"/*.log 2>/dev/null)
    is "$(head -c 6000 <<<"$reports")" "" "no sanitizer report, no failed assertion"
    is "$mnt_bad" 0 "every daemon ended well"
}
before_done mnt_check
