#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A power cut at any point: what was closed and synced to the disk is there, whole; what was closed since then may be as it was at an
# earlier close, and is never torn. What the daemon writes and syncs is written down, and cut off at many places; of what was not synced
# there any part may be lost. The bucket gets nothing meanwhile: all must come from the disk.
MLOPSFS_STORE=local
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
! sanitized || skip_all "the library to preload does not live with a sanitizer; the release build shows the same"
CUTS=${MLOPSFS_POWER_CUTS:-40} RANDOM=${MLOPSFS_SEED:-$$}
diag "MLOPSFS_SEED=${MLOPSFS_SEED:-$$}"
${CC:-cc} -shared -fPIC -O1 -o "$T/powerlog.so" "$TOP/tests/crash/powerlog.c" -ldl || bail_out "cannot build powerlog"
store_up
LOG=$T/log
: >"$LOG"
mkdir "$T/want"
logged() { LD_PRELOAD=$T/powerlog.so POWERLOG_DIR=$T/cache POWERLOG_OUT=$LOG "$bin" "$@"; }
bin=$MLOPSFS_BIN
cat >"$T/logged" <<EOS
#!/bin/sh
LD_PRELOAD=$T/powerlog.so POWERLOG_DIR=$T/cache POWERLOG_OUT=$LOG exec $MLOPSFS_BIN "\$@"
EOS
chmod +x "$T/logged"
MLOPSFS_BIN=$T/logged
mnt_up commit=background op_timeout=1s probe=off local_sync=100ms disk=256M "fault=rate=1.0\\,seed=1\\,verbs=PUT+MPU_CREATE+COPY\\,kinds=500" ||
    bail_out "no mount"
MLOPSFS_BIN=$bin

# The workload: five files, each closed some times with another content; now and then all are synced.
mark() { printf 'mark %s 0 0\n' "$1" >>"$LOG"; }
synced() { [ "$(mnt_status unsynced_files)" = 0 ]; }
declare -A gen_of
for i in {1..40}; do
    f=f$((RANDOM % 5)) g=$((${gen_of[$f]:-0} + 1))
    gen_of[$f]=$g
    if [ $g = 1 ] || [ $((RANDOM % 4)) = 0 ]; then
        gen "$i" $((RANDOM * 20)) >"$T/want/$f.$g"
        mark "begin/$f/$g"
        cp "$T/want/$f.$g" "$MNT/$f"
    else
        cp "$T/want/$f.$((g - 1))" "$T/want/$f.$g"
        gen "$i" $((RANDOM % 9000 + 1)) >"$T/piece"
        at=$((RANDOM % 100))
        dd if="$T/piece" of="$T/want/$f.$g" bs=4k seek=$at conv=notrunc status=none
        mark "begin/$f/$g"
        dd if="$T/piece" of="$MNT/$f" bs=4k seek=$at conv=notrunc status=none
    fi || bail_out "cannot write $f"
    mark "closed/$f/$g"
    if [ $((RANDOM % 5)) = 0 ]; then
        wait_until 60 synced || bail_out "never synced"
        mark synced/all/0
    fi
done
cmd_ok "all becomes synced" wait_until 60 synced
mark synced/all/0
is "$(mnt_status sealed_files)" ${#gen_of[@]} "all files are sealed, and none is in the bucket"
mnt_kill

python3 "$TOP/tests/crash/power.py" marks "$LOG" >"$T/marks"
total=$(awk 'END { print $1 }' "$T/marks")
diag "$total records"

# What a file may be after a cut: any content whose close had begun, from the last on that was closed when all was synced.
allowed() { # INDEX FILE: the first, and the last generation
    awk -v cut="$1" -v f="$2" '{ split($2, m, "/") } $1 > cut { exit }
        m[1] == "begin" && m[2] == f { last = m[3] }
        m[1] == "closed" && m[2] == f { closed = m[3] }
        m[1] == "synced" { first = closed + 0 }
        END { print first + 0, last + 0 }' "$T/marks"
}
check_cut() { # INDEX SEED
    local f g first last have bad=0
    rm -rf "$T/cache" "$T/store"
    python3 "$TOP/tests/crash/power.py" cut "$LOG" "$1" "$2" "$T/cache" || return 1
    find "$T/cache" -name journal.db -exec python3 -c '
import sqlite3, sys
try:
    with sqlite3.connect(sys.argv[1]) as db:
        db.execute("UPDATE instance SET boot = \"another\"")
except sqlite3.OperationalError as e:
    if "no such table" not in str(e): raise' {} \; || return 1
    mnt_up probe=off || return 1
    for f in f0 f1 f2 f3 f4; do
        read -r first last < <(allowed "$1" "$f")
        if [ ! -e "$MNT/$f" ]; then
            [ "$first" = 0 ] || { diag "$f is gone; it was closed and synced ($first to $last)"; bad=1; }
            continue
        fi
        have=''
        for ((g = first ? first : 1; g <= last; g++)); do cmp -s "$MNT/$f" "$T/want/$f.$g" && have=$g; done
        [ -n "$have" ] || { diag "$f is none of what it was from $first to $last"; bad=1; }
    done
    "$MLOPSFS_BIN" sync "$MNT" >/dev/null 2>"$T/sync.err" || { diag "sync: $(head -n 3 "$T/sync.err")"; bad=1; }
    mnt_down || bad=1
    return $bad
}
failed=0
for ((n = 0; n < CUTS; n++)); do
    at=$((n == 0 ? total : (RANDOM * 32768 + RANDOM) % (total + 1))) seed=$RANDOM
    check_cut $at $seed || { failed=$((failed + 1)); diag "failed: power cut after record $at, seed $seed"; }
done
is $failed 0 "$CUTS power cuts: nothing synced is lost, and nothing is torn"
done_testing
