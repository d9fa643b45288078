#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mount as a container's volume.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
have podman && have runc && [ -x /bin/busybox ] || skip_all "no podman, runc or busybox"
[ "$(id -u)" = 0 ] || skip_all "not root"
HOME=$(getent passwd 0 | cut -d : -f 6)
export HOME
podrun=$(mktemp -d /tmp/pod.XXXXXX) || bail_out "no /tmp" # podman takes no run directory of more than 50 characters
unset XDG_RUNTIME_DIR
mkdir -p "$T/root/bin" "$T/root/data" "$T/root/tmp"
cp /bin/busybox "$T/root/bin/"
for a in sh cat ls cp sha256sum head wc mkdir rm mv stat touch tail; do ln -s busybox "$T/root/bin/$a"; done
pod() { timeout -k 5 120 podman --root "$T/podman" --runroot "$podrun" --cgroup-manager=cgroupfs --runtime runc --storage-driver vfs "$@"; }
at_exit 'pod rm -f -a; umount "$T/podman" 2>/dev/null; rm -rf --one-file-system "$podrun"'
tar -C "$T/root" -c . | pod import - localhost/mlopsfs-test:1 >"$T/pod.log" 2>&1 || skip_all "podman cannot make an image: $(tail -n 1 "$T/pod.log")"
run() { pod run --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --rm --network=none -v "$MNT:/data" "$@"; }
export XDG_RUNTIME_DIR=$T/run
store_up
mnt_up || bail_out "no mount"
echo outside >"$MNT/file"
gen 3 30000000 >"$MNT/big"
out=$(run localhost/mlopsfs-test:1 /bin/sh -c 'ls /data; cat /data/file' 2>"$T/err")
[ -n "$out" ] || { diag "$(tail -n 3 "$T/err")"; run localhost/mlopsfs-test:1 /bin/sh -c : >/dev/null 2>&1 || skip_all "podman cannot run here"; }
is "$out" $'big\nfile\noutside' "lists and reads"
is "$(run localhost/mlopsfs-test:1 /bin/sh -c 'sha256sum /data/big' 2>/dev/null | head -c 64)" "$(gen_sha 3 30000000)" "reads a big one"
cmd_ok "writes" run localhost/mlopsfs-test:1 /bin/sh -c 'echo inside >/data/new && mkdir /data/d && cp /data/big /data/d/copy && mv /data/d /data/e && rm /data/file'
is "$(cat "$MNT/new"):$(sha "$MNT/e/copy"):$(ls "$MNT" | tr '\n' ' ')" "inside:$(gen_sha 3 30000000):big e new " "what it wrote is there"
[ -z "$MLOPSFS_PLAIN" ] || done_testing
# While it reads: over and over, until it is told to stop; each round says what it has read.
mkdir "$T/talk"
run -v "$T/talk:/talk" localhost/mlopsfs-test:1 /bin/sh -c 'exec 3</data/big; until [ -e /talk/stop ]; do sha256sum /data/big; done; sha256sum <&3' >"$T/reader" 2>"$T/reader.err" &
reader=$!
rounds() { sed -n 's/ .*//; /^[0-9a-f]\{64\}$/p' "$T/reader" | wc -l; }
beyond() { [ "$(rounds)" -gt "$1" ] || tap_gone $reader; }
wait_until 60 beyond 1
cmd_ok "a container reads, $(rounds) rounds so far" [ "$(rounds)" -gt 1 ]
for i in 1 2 3; do
    n=$(rounds)
    "$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err"
    is "$?" 4 "umount while it reads, try $i, fails busy: $(<"$T/err")"
    wait_until 60 beyond $((n + 1))
    cmd_ok "it reads on" [ "$(rounds)" -gt $((n + 1)) ]
done
cmd_ok "so does the host" cmp <(gen 3 30000000) "$MNT/big"
: >"$T/talk/stop"
wait_until 60 tap_gone $reader
wait $reader
ok $? "it ends well: $(tail -n 1 "$T/reader.err")"
is "$(sed 's/ .*//' "$T/reader" | sort -u)" "$(gen_sha 3 30000000)" "every round has read all of it, and so has the handle that was open all the time"
unused() { ! fuser -sm "$MNT"; }
wait_until 30 unused
cmd_ok "when it has ended, umount works" mnt_down
done_testing
