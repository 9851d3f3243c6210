#!/usr/bin/env bash
# First process of a node: containerd, kubelet and kube-proxy in namespaces of their own. When it ends, the kernel ends every process
# of the node, containers too, and takes its mounts, interfaces and packet filter rules with it.
#
#   setpriv --pdeathsig KILL unshare --pid --mount --net --fork --kill-child --mount-proc --propagation private node.sh FOLDER
#
# FOLDER has settings (shell variables: interface, address, gateway, programs), containerd.toml, kubelet.yaml and kubeconfigs.
set -euo pipefail
cd "$1"
node=$PWD
# shellcheck source=/dev/null
. ./settings

# Before /run goes: on many machines the file is a link into it.
cat /etc/resolv.conf > resolv.conf

# What these programs write at fixed places is the node's, never the machine's.
for place in /run /var/lib /var/log; do
  mkdir -p "private$place"
  mount --bind "private$place" "$place"
done
mkdir -p /run/netns /run/lock

# The kubelet sets these for the whole machine; here it finds them set.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=private/sysctl/${setting%=*}
  mkdir -p "${file%/*}"
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done

echo > waiting-for-network
until ip link show "$interface" > /dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip link set "$interface" name eth0
ip address add "$address" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
echo 1 > /proc/sys/net/ipv4/ip_forward
# Without it, answers of a pod to a pod of the same node bypass the translation back to the Service's address.
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables 2> /dev/null || true

containerd --config containerd.toml > log/containerd.log 2>&1 &
containerd=$!
until ctr --address run/containerd.sock version > /dev/null 2>&1; do
  kill -0 "$containerd" || exit 1
  sleep 0.05
done
echo > containerd-is-up

"$programs/kubelet" --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --root-dir="$node/kubelet" \
  --cert-dir="$node/kubelet/pki" --hostname-override="$name" --node-ip="${address%/*}" \
  --node-labels="$labels" > log/kubelet.log 2>&1 &
"$programs/kube-proxy" --kubeconfig=kube-proxy.kubeconfig --proxy-mode=iptables --hostname-override="$name" \
  --cluster-cidr="$pods" --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s \
  --conntrack-tcp-timeout-close-wait=0s > log/kube-proxy.log 2>&1 &

# One that ends ends the node: whoever started it reads the logs.
wait -n
