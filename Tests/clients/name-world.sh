#!/usr/bin/env bash
# Servers for rules by name, real ones, in the network namespace in which this runs, beside the web server at .2.
#   name-world.sh FOLDER V4 V6    V4 and V6 are prefixes such as 10.9.0 and fd09; FOLDER/*.pid is what was started
# At .3 dnsmasq has the names, at .5 unbound asks it. TLS at .2 and ::2, port 443, and 8443 of .2. At .2 port 2525 a server that
# speaks first; at .2 and .4, UDP port 123, one that answers with the same.
set -e
folder=$1 v4=$2 v6=$3 here=$(realpath "$(dirname "$0")")
cd "$folder"
for last in 3 4 5; do ip addr add $v4.$last/24 dev v1; done
long=$(printf 'x%.0s' $(seq 250))
dnsmasq --no-resolv --no-hosts --listen-address=$v4.3 --bind-interfaces --local-ttl=1 \
  --host-record=ok.test,$v4.2,$v6::2 --host-record=other.test,$v4.2 --host-record=six.test,$v6::2 \
  --host-record=zero.test,$v4.2,0 --host-record=time.test,$v4.4 \
  --host-record=target.foreign,$v4.2 --cname=www.alias.test,target.foreign \
  --txt-record=big.test,$long,$long,$long,$long,$long,$long \
  --host-record=rebind.test,$v4.2 --host-record=rebind.test,169.254.169.254 --host-record=rebind.test,127.0.0.1 \
  --pid-file="$PWD/names.pid" --user=root
cat >unbound.conf <<X
server:
  interface: $v4.5
  outgoing-interface: $v4.5
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  chroot: ""
  username: ""
  use-syslog: no
  directory: "$PWD"
  pidfile: "$PWD/unbound.pid"
  module-config: "iterator"
  local-zone: "test." nodefault
forward-zone:
  name: "."
  forward-addr: $v4.3
remote-control:
  control-enable: no
X
unbound -c unbound.conf
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=ok.test \
  -addext subjectAltName=DNS:ok.test,DNS:other.test 2>/dev/null
chmod a+r key.pem cert.pem
for place in $v4.2:443 $v4.2:8443 "[$v6::2]:443"; do
  openssl s_server -accept "$place" -cert cert.pem -key key.pem -www -quiet >/dev/null 2>&1 & echo $! >tls-$!.pid
done
cat >talk.py <<'X'
import selectors, socket, sys
v4 = sys.argv[1]
sockets = selectors.DefaultSelector()
sockets.register(socket.create_server((v4 + ".2", 2525)), selectors.EVENT_READ, "first")
for last in (4, 2):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((f"{v4}.{last}", 123)); sockets.register(s, selectors.EVENT_READ, "echo")
open("talk.ready", "w").close()
while True:
    for key, _ in sockets.select():
        if key.data == "first":
            c, _ = key.fileobj.accept(); c.sendall(b"220 ready\r\n"); c.close()
        else:
            data, peer = key.fileobj.recvfrom(2000); key.fileobj.sendto(data, peer)
X
python3 talk.py $v4 >/dev/null 2>&1 & echo $! >talk.pid
cp "$here"/{hello.py,fetch.sh,names.sh,tls-names.sh,attack.py} .
chmod a+r ./*
ready() {
  [ -e talk.ready ] && curl -sk -o /dev/null --noproxy '*' https://$v4.2/ && curl -sk -o /dev/null --noproxy '*' https://$v4.2:8443/ &&
    dig +short +time=1 +tries=1 @$v4.5 ok.test | grep -q $v4.2
}
for _ in $(seq 100); do ready && exit 0; sleep 0.1; done
echo "the servers are not there" >&2
exit 1
