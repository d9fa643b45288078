#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The server stands still in the middle of 20 writers: they wait or go on into staging, none fails, and all that they wrote is
# in the bucket once it goes on. It stands until every writer waits or is done; MLOPSFS_TEST_STOP: and so many seconds more (0).
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
more=${MLOPSFS_TEST_STOP:-0}
n=20 big=6000000 small=20000

# A file of two halves, five small ones, and an fsync. The server is stopped between the halves.
cat >"$T/writer.py" <<'PY'
import os, sys
data, dir, fifo = open(sys.argv[1], "rb").read(), sys.argv[2], sys.argv[3]
small = int(sys.argv[4])
def say(word):
    print(word, flush=True)
def make(name):
    return os.open(dir + "/" + name, os.O_CREAT | os.O_WRONLY | os.O_EXCL)
def put(f, data):
    while data:
        data = data[os.write(f, data[:131072]):]
os.mkdir(dir)
f = make("big")
put(f, data[: len(data) // 2])
say("half")
open(fifo, "rb").read()
put(f, data[len(data) // 2 :])
say("waits") # at the latest in what comes now
os.close(f)
for i in range(5):
    f = make("small%d" % i)
    put(f, data[i * small : (i + 1) * small])
    os.close(f)
f = make("synced")
put(f, data[:small])
os.fsync(f)
os.close(f)
say("done")
PY
all_say() { [ "$(cat "$T"/out.* | grep -c "^$1$")" = $n ]; }
# What a writer waits in after that word is a call of the mount, or nothing any more.
waits() { tap_gone "$1" || grep -Eq 'fuse|request_wait' "/proc/$1/wchan" 2>/dev/null; }
all_wait() {
    local p
    all_say waits || return 1
    for p in "${pids[@]}"; do waits "$p" || return 1; done
}
pids=()
all_ended() {
    local p
    for p in "${pids[@]}"; do tap_gone "$p" || return 1; done
}
end_all() {
    kill -CONT "$server_pid"
    kill "${pids[@]}"
}
at_exit end_all

round() { # MODE
    local i wrong=''
    mnt_up commit="$1" || { fail "$1: mount"; return; }
    rm -f "$T"/out.*
    pids=()
    for ((i = 0; i < n; i++)); do
        gen $((i + 1)) $big >"$T/data$i"
        [ -p "$T/go$i" ] || mkfifo "$T/go$i"
        python3 "$T/writer.py" "$T/data$i" "$MNT/$1$i" "$T/go$i" $small >"$T/out.$i" 2>&1 &
        pids+=($!)
    done
    wait_until 120 all_say half
    ok $? "$1: every writer is at work"
    kill -STOP "$server_pid"
    for ((i = 0; i < n; i++)); do : >"$T/go$i"; done
    wait_until 100 all_wait || diag "$(sort "$T"/out.* | uniq -c)"
    all_wait
    ok $? "$1: every writer waits"
    like "$(mnt_status dirty_files)" '^[1-9]' "$1: nothing of it is in the bucket"
    [ "$more" = 0 ] || wait_until "$more" false
    kill -CONT "$server_pid"
    wait_until 300 all_ended
    ok $? "$1: every writer gets to its end"
    is "$(cat "$T"/out.* | sort | uniq -c | tr -s ' \n' ' ')" " $n done $n half $n waits " "$1: none meets an error"
    cmd_ok "$1: sync" "$MLOPSFS_BIN" sync "$MNT"
    for ((i = 0; i < n; i++)); do
        [ "$(s3_sha "$1$i/big")" = "$(sha "$T/data$i")" ] || wrong+=" $1$i/big"
        [ "$(s3_sha "$1$i/small3")" = "$(tail -c +$((3 * small + 1)) "$T/data$i" | head -c $small | sha)" ] || wrong+=" $1$i/small3"
        [ "$(s3_sha "$1$i/synced")" = "$(head -c $small "$T/data$i" | sha)" ] || wrong+=" $1$i/synced"
    done
    is "$wrong" "" "$1: all bytes are in the bucket"
    is "$(s3_ls "$1" | grep -vc '/$')" $((7 * n)) "$1: and all files"
    mnt_down
    ok $? "$1: umount"
}
round close
round background
done_testing
