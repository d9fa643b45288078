#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A bad network between the mount and a server: latency, connections cut in the middle, a link that is down for a while.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
start_toxiproxy
direct=$S3_ENDPOINT
through=http://$(toxi_proxy s3 "127.0.0.1:$server_port")
with_proxy() { S3_ENDPOINT=$through mnt_up "$@"; }
with_proxy attr_ttl=0s dir_ttl=0s || bail_out "no mount"
round() { # NAME
    cmd_ok "$1: write" timeout 300 bash -c "$(declare -f gen); gen 1 20000000 >'$MNT/f'"
    is "$(s3_sha f)" "$(gen_sha 1 20000000)" "$1: the object"
    mnt_down
    with_proxy attr_ttl=0s dir_ttl=0s
    is "$(timeout 300 cat "$MNT/f" | sha)" "$(gen_sha 1 20000000)" "$1: read"
    cmd_ok "$1: many small" timeout 300 bash -c "mkdir '$MNT/d' && for i in {1..15}; do echo \$i >'$MNT'/d/\$i || exit 1; done && cat '$MNT'/d/* | sort -n | cmp - <(seq 15) && rm -r '$MNT/d'"
}
toxi_add s3 latency downstream '{"latency":30,"jitter":10}'
round "30 ms"
toxi_del s3 latency_downstream
toxi_add s3 limit_data downstream '{"bytes":3000000}'
toxi_add s3 limit_data upstream '{"bytes":25000000}'
round "connections cut after some bytes"
toxi_del s3 limit_data_downstream
toxi_del s3 limit_data_upstream
# Down for a while, with work going on.
(gen 2 60000000 >"$MNT/g") 2>"$T/err" &
writer=$!
grown() { [ "$(stat -c %s "$MNT/g" 2>/dev/null || echo 0)" -gt 20000000 ] || tap_gone $writer; }
wait_until 60 grown
toxi_enable s3 false
refused() { ! curl -s -o /dev/null "$through/"; }
wait_until 10 refused
toxi_enable s3 true
wait_until 100 tap_gone $writer
wait $writer
ok $? "a writer survives that the link goes down: $(<"$T/err")"
is "$(s3_sha g)" "$(gen_sha 2 60000000)" "and the object is whole"
toxi_add s3 reset_peer downstream '{"timeout":0}'
cmd_fails "while every connection is reset, reads end in an error" timeout 200 env S3_ENDPOINT="$through" "$MLOPSFS_BIN" mount -o "cache_dir=$T/cache3,op_timeout=2s" "$SOURCE" "$T/home"
toxi_del s3 reset_peer_downstream
is "$(timeout 100 cat "$MNT/g" | sha)" "$(gen_sha 2 60000000)" "afterwards all is well"
done_testing
