# A world for Tests/differences/run, to be sourced: a namespace H that stands for the parent, joined by a veth to a namespace S
# with unmodified servers. All worlds have the same addresses, so that answers can be compared. Their names end with the id
# of the test, by which Tests/run finds what was left behind.

# world NAME: makes H and S, and starts what every script needs: the two ends of servers.py, and dnsmasq.
world() {
  local H=tmb-$1h-$id S=tmb-$1s-$id n
  mkdir -p "$D/$1"
  spaces+=("$H" "$S")
  ip netns add "$H"; ip netns add "$S"
  ip link add v0 netns "$H" type veth peer name v1 netns "$S"
  ip -n "$S" link set v1 addrgenmode none
  ip -n "$H" addr add 10.9.0.1/24 dev v0; ip -n "$H" addr add fd09::1/64 dev v0 nodad
  ip -n "$S" addr add fe80::2/64 dev v1 nodad
  # The second address of each family has no server, and is no source.
  for n in 2 3; do ip -n "$S" addr add 10.9.0.$n/24 dev v1; done
  ip -n "$S" addr add fd09::2/64 dev v1 nodad; ip -n "$S" addr add fd09::3/64 dev v1 nodad preferred_lft 0
  for n in "$H" "$S"; do
    ip -n "$n" link set lo up
    # Every refusal is answered, however many there are.
    ip netns exec "$n" sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
  done
  ip -n "$H" link set v0 up; ip -n "$S" link set v1 up
  # IPv6 has no default route: "network is unreachable" comes from the parent itself, with IPv4 from the next router.
  ip -n "$H" route add default via 10.9.0.2
  for n in 66 67 68; do ip -n "$H" route add fd$n::/64 via fd09::2; done
  ip netns exec "$S" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  # The router's answers: none, host unreachable, prohibited.
  for n in blackhole:66 unreachable:67 prohibit:68; do
    ip -n "$S" route add "${n%:*}" 10.${n#*:}.0.0/24; ip -n "$S" route add "${n%:*}" fd${n#*:}::/64
  done
  local long many=() i
  long=$(printf 'x%.0s' $(seq 250))
  for i in $(seq 16); do many+=(--host-record=many.test,10.9.1.$i); done
  ip netns exec "$S" dnsmasq --no-resolv --no-hosts --listen-address=10.9.0.2 --listen-address=fd09::2 --bind-interfaces \
    --local=/test/ --local=/10.in-addr.arpa/ --host-record=web.test,10.9.0.2,fd09::2 --host-record=six.test,fd09::2 \
    --host-record=four.test,10.9.0.2 --cname=alias.test,web.test --host-record=inner.corp.test,10.9.0.2 \
    --host-record=deep.inner.corp.test,10.9.0.2 --host-record=half-dead.test,10.9.0.2,fd09::3 \
    --host-record=half-quiet.test,10.9.0.2,fd66::9 --host-record=dead.test,10.9.0.3,fd09::3 "${many[@]}" \
    --txt-record=big.test,$long,$long,$long,$long,$long,$long --pid-file="$D/$1/dnsmasq.pid" --edns-packet-max=4096 --user=root
  started_by "$D/$1/dnsmasq.pid"
  for n in "$S:far" "$H:parent"; do
    ip netns exec "${n%:*}" /usr/bin/python3 -u "$here/servers.py" "${n#*:}" >"$D/$1/${n#*:}" 2>&1 &
    started+=($!)
    await "$D/$1/${n#*:}" listening
  done
}

# in_parent NAME COMMAND…: runs it in the parent's namespace, with the world's resolver and a name of its own.
in_parent() {
  local H=tmb-$1h-$id
  shift
  ip netns exec "$H" unshare -mu bash -c '
    hostname parent; mount --bind "$0/resolv.conf" /etc/resolv.conf; mount --bind "$0/hosts" /etc/hosts; exec "$@"' "$D" "$@"
}

# await FILE WORD: until the file has the word.
await() {
  local i
  for i in $(seq 300); do grep -qs -- "$2" "$1" && return; sleep 0.1; done
  echo "$1 does not say: $2" >&2; cat "$1" >&2; exit 1
}

# started_by FILE: the process whose number the file has is ended with us.
started_by() {
  local i
  for i in $(seq 100); do [ -s "$1" ] && break; sleep 0.1; done
  started+=("$(cat "$1")")
}

open_worlds() {
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  id=${TOMBOLO_TEST_ID:-$$}
  tombolo=${TOMBOLO_BINARIES:-$here/../../.build/release}/tombolo
  # Seen by local enclaves too, which have a /tmp of their own.
  D=$(mktemp -d "/var/tmp/tombolo-differences-XXXXXX-$id"); chmod 755 "$D"
  started=(); spaces=()
  trap close_worlds EXIT
  printf 'nameserver 10.9.0.2\nsearch corp.test\n' >"$D/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 parent\n' >"$D/hosts"
}

close_worlds() {
  local pid space
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null; done
  for space in "${spaces[@]}"; do
    # What an aborted run left.
    for pid in $(ip netns pids "$space" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
    ip netns del "$space" 2>/dev/null
  done
  rm -rf "$D"
}
