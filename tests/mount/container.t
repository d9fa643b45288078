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
run() { pod run --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --rm --network=none -v "$MNT:/data${volume:+:$volume}" "$@"; }
volume=
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
# A container reads over and over, until it is told to stop; each round says what it has read.
read_on() {
    rm -rf "$T/talk"
    mkdir "$T/talk"
    run -v "$T/talk:/talk" localhost/mlopsfs-test:1 /bin/sh -c 'exec 3</data/big; until [ -e /talk/stop ]; do sha256sum /data/big; done; sha256sum <&3; echo inside >/data/last' >"$T/reader" 2>"$T/reader.err" &
    reader=$!
    wait_until 60 beyond 1
    cmd_ok "a container reads, $(rounds) rounds so far" [ "$(rounds)" -gt 1 ]
}
reads_on() {
    local n
    n=$(rounds)
    wait_until 60 beyond $((n + 1))
    cmd_ok "it reads on" [ "$(rounds)" -gt $((n + 1)) ]
}
rounds() { sed -n 's/ .*//; /^[0-9a-f]\{64\}$/p' "$T/reader" | wc -l; }
beyond() { [ "$(rounds)" -gt "$1" ] || tap_gone $reader; }
ends_well() {
    : >"$T/talk/stop"
    wait_until 60 tap_gone $reader
    wait $reader
    ok $? "it ends well: $(tail -n 1 "$T/reader.err")"
    is "$(sed 's/ .*//' "$T/reader" | sort -u)" "$(gen_sha 3 30000000)" "every round has read all of it, and so has the handle that was open all the time"
}
read_on
for i in 1 2 3; do
    "$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err"
    is "$?" 4 "umount while it reads, try $i, fails busy: $(<"$T/err")"
    reads_on
done
cmd_ok "so does the host" cmp <(gen 3 30000000) "$MNT/big"
ends_well
unused() { ! fuser -sm "$MNT"; }
wait_until 30 unused
cmd_ok "when it has ended, umount works" mnt_down
# umount(8) does not look into containers. One whose volume is private, as podman makes it, has a mount of its own, which goes on.
mnt_up || bail_out "no mount"
read_on
cmd_ok "umount(8) while it reads takes the host's mount away" umount "$MNT"
mnt_is_mounted
is $? 1 "it is gone"
reads_on
tap_gone "$mnt_daemon"
is $? 1 "the daemon serves the container"
ends_well
mnt_reap
mnt_up || bail_out "no mount"
is "$(cat "$MNT/last")" inside "and has stored what the container wrote afterwards"
mnt_down
# Where the host's mounts are shared, as systemd makes them, the volume may be a slave (rslave): its place in the container is another
# one all the same, which umount(8) does not reach, and `mlopsfs umount` finds.
mkdir "$T/shared"
{ mount --bind "$T/shared" "$T/shared" && mount --make-private "$T/shared" && mount --make-shared "$T/shared"; } || bail_out "no shared mount"
at_exit 'umount "$T/shared"'
mkdir "$T/shared/mnt"
MNT=$T/shared/mnt volume=rslave
mnt_up || bail_out "no mount"
read_on
"$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err"
is "$?:$(grep -c 'busy: a container' "$T/err")" 4:1 "a slave: umount while it reads fails busy: $(<"$T/err")"
reads_on
cmd_ok "a slave: umount(8) takes the host's mount away" umount "$MNT"
reads_on
ends_well
mnt_reap
# A namespace that has all the mounts in their places, as services of systemd have it, is not in the way unless it uses them.
mkfifo "$T/hold"
for reads in yes no; do
    mnt_up || bail_out "no mount"
    [ $reads = yes ] && hold=$MNT/big || hold=/dev/null
    # Its copies of other mounts would keep whoever unmounts those meanwhile.
    unshare -m --propagation slave bash -c 'awk "/ - fuse\\.mlopsfs / { print \$5 }" /proc/self/mountinfo | while IFS= read -r m; do
            [ "$(printf %b "$m")" = "$2" ] || umount -l "$(printf %b "$m")"
        done
        exec 3<"$1"; echo open; read -r; exec sha256sum <&3' sh "$hold" "$MNT" <"$T/hold" >"$T/out2" 2>&1 &
    other=$!
    exec {h}>"$T/hold"
    wait_until 30 grep -q open "$T/out2"
    if [ $reads = yes ]; then
        for u in "umount" "fusermount3 -u" "$MLOPSFS_BIN umount"; do
            $u "$MNT" >"$T/out" 2>"$T/err"
            is "$(($? != 0)):$(grep -c busy "$T/err")" 1:1 "a namespace that reads: ${u##*/} fails busy: $(<"$T/err")"
        done
    else
        cmd_ok "a namespace that does not read: umount works" mnt_down
    fi
    echo >&"$h"
    exec {h}>&-
    wait $other
    [ $reads = no ] || is "$(sed -n 's/ .*//; 2p' "$T/out2")" "$(gen_sha 3 30000000)" "and it reads all of it"
    wait_until 30 unused
    [ $reads = no ] || cmd_ok "when it has ended, umount works" mnt_down
done
done_testing
