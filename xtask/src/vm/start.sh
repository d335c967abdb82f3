#!/bin/sh
# In the guest, as root, once it is up. The payload disk says what to do.
# The ports appear when udev has seen to them; a failure before that is on the console.
udevadm settle --timeout=300 --exit-if-exists=/dev/virtio-ports/status
for port in out status; do
    [ -e "/dev/virtio-ports/$port" ] || { echo "boathook-vm: there is no port $port"; exit 1; }
done
exec >/dev/virtio-ports/out 2>&1 </dev/null
echo "boathook-vm: up"
finish() {
    echo "$1" >/dev/virtio-ports/status
    sync
    systemctl poweroff --force --force
    exit
}
fail() {
    echo "the guest: $1"
    finish 125
}
payload=/run/boathook-vm/payload
upper=/run/boathook-vm/upper
mkdir -p "$payload" "$upper" || fail "no directory for the payload"
mount -o ro /dev/vdb "$payload" || fail "the payload cannot be mounted"
mount -t tmpfs -o size=40% tmpfs "$upper" || fail "no tmpfs"
# At the paths where they are on the host, because programs have those within them; writable.
place() {
    mkdir -p "$2" "$upper/$1" "$upper/$1.work" &&
        mount -t overlay -o "lowerdir=$payload/$1,upperdir=$upper/$1,workdir=$upper/$1.work" overlay "$2"
}
workspace=$(cat "$payload/workspace") && place tree "$workspace" || fail "the workspace cannot be mounted"
if [ -e "$payload/cache-path" ]; then
    BOATHOOK_CACHE_DIR=$(cat "$payload/cache-path") && place cache "$BOATHOOK_CACHE_DIR" || fail "the packages cannot be mounted"
    export BOATHOOK_CACHE_DIR
fi
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Not /tmp: systemd mounts that without device nodes.
export TMPDIR=/var/tmp BOATHOOK_BIN_DIR="$payload/bin" BOATHOOK_TESTS_DIR="$payload/tests"
cd "$workspace" || fail "no workspace"
if [ -e "$payload/shell" ]; then
    setsid sh -c 'exec /bin/bash -l </dev/ttyS0 >/dev/ttyS0 2>&1'
else
    sh "$payload/job"
fi
finish $?
