#!/bin/sh
# Makes a Debian machine into a node that can run pods on boathook: containerd,
# the stock runtimes beside it, network plugins, and what the kernel must load.
# Run as root; running it again changes nothing. The rig of `cargo xtask vm` and
# the Vagrantfile both use it.
set -eu

if [ "$(id -u)" -ne 0 ]; then
    echo "provision.sh: must run as root" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
packages="dbus containerd runc crun podman containernetworking-plugins iproute2 kmod apparmor iptables ca-certificates"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get update -q
    # shellcheck disable=SC2086 # a list of names
    apt-get install -q -y --no-install-recommends $missing
fi

mkdir -p /etc/modules-load.d /etc/sysctl.d
cat >/etc/modules-load.d/boathook.conf <<'END'
overlay
br_netfilter
END

cat >/etc/sysctl.d/60-boathook.conf <<'END'
net.ipv4.ip_forward = 1
END

# Only where nothing was configured by hand.
config=/etc/containerd/config.toml
if ! grep -q boathook "$config" 2>/dev/null; then
    mkdir -p /etc/containerd
    [ ! -e "$config" ] || cp -p "$config" "$config.before-boathook"
    case "$(containerd --version | sed -n 's/.* v\{0,1\}\([0-9]*\)\..*/\1/p')" in
    1) version=2 plugin=io.containerd.grpc.v1.cri ;;
    *) version=3 plugin=io.containerd.cri.v1.runtime ;;
    esac
    cat >"$config" <<END
version = $version

[plugins.'$plugin'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'$plugin'.containerd.runtimes.boathook]
  runtime_type = 'io.containerd.boathook.v2'
END
fi
