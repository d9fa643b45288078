# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# torture: rounds of work on a mount, kill -9 for its daemon, a mount that finds what is left, and a look whether all that was promised is in
# the bucket (torture.py). One in twenty requests fails all the time. Needs mount.sh, and store_up.
#
#   torture_mount SEED      mounts, with the faults of that seed
#   torture_round SEED      one round; 1 when something is wrong, and says what
#   torture_end             no journal, nothing staged and no upload is left
#   torture_left            says how much of what finding out what the server can do had made was left in the bucket
#
# A round's mount is the one that found what the round before had left. commit is close in one round and background in the next.

torture_state=$T/torture torture_n=0
mkdir -p "$torture_state/objects"

torture_mount() { # SEED
    local modes=(close background)
    mnt_up part_size=5M commit="${modes[torture_n % 2]}" "fault=rate=${TORTURE_RATE:-0.05}\\,seed=$1"
}


torture_clean() { [ "$(mnt_status dirty_files) $(mnt_status sealed_files)" = "0 0" ]; }
torture_wait() { # WHAT
    wait_until 120 torture_clean && return 0
    diag "$1: not all comes into the bucket by itself: $("$MLOPSFS_BIN" status "$MNT" 2>&1 | head -n 30)"
    return 1
}
torture_python() { python3 "$TOP/tests/crash/torture.py" "$@"; }

torture_round() { # SEED
    local seed=$1 said out rc=0
    said=$(torture_python work "$MNT" "$torture_state" "$seed" "$(mnt_pid)") || rc=1
    if [ "$said" = finished ]; then torture_wait "all is closed" || rc=1; fi
    mnt_kill 2>/dev/null
    [ "$rc $said" = "0 finished" ] || [ "$rc $said" = "0 killed" ] || { diag "round $seed: $said (nothing went on)"; return 1; }
    torture_n=$((torture_n + 1))
    if [ $((seed % 4)) = 0 ]; then # another kill, while it finds what is left
        torture_mount $((seed + 1)) || return 1
        [ $((seed % 8)) = 0 ] || torture_python view "$MNT" "$torture_state" # some time
        mnt_kill 2>/dev/null
    fi
    torture_mount $((seed + 2)) || return 1
    torture_python view "$MNT" "$torture_state" || rc=1
    torture_wait "after the kill" || rc=1
    out=$(torture_python check "$torture_state" "$S3_BUCKET" "$T/cache" 2>&1) || rc=1
    grep '^left over' <<<"$out" >>"$torture_state/left"
    [ $rc = 0 ] || diag "round $seed, after $said: $out"
    return $rc
}

torture_journals() { find "$T/cache" -name journal.db | wc -l; }
torture_staged() { find "$T/cache" -name '*.staged' -size +0 | wc -l; }
# What was adopted goes with its mount; uploads whose creation was not answered are looked for until no answer can have an effect any more.
torture_nothing_left() { mnt_down && mnt_up && [ "$(torture_journals) $(torture_staged)" = "1 0" ]; }
torture_end() {
    mnt_down && mnt_up || return 1 # without faults
    wait_until 120 torture_nothing_left || { diag "$(torture_journals) journals, $(torture_staged) staged files"; return 1; }
    torture_python ended "$torture_state" "$S3_BUCKET" >"$T/ended" || { diag "$(<"$T/ended")"; return 1; }
}
torture_left() { diag "left by kills while it was found out what the server can do, and removed here: $(grep -c . "$torture_state/left")"; }
