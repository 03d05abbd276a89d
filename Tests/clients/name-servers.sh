#!/usr/bin/env bash
# Name servers of real programs, with certificates of a CA made here, in the network namespace in which this runs.
#   name-servers.sh FOLDER ADDRESS    makes FOLDER/good.pem, the CA, and FOLDER/*.pid of what was started
# Ports: 53 plain; 853 TLS and 443 HTTPS with the right certificate; 1853 and 1443 an expired one; 2853 and 2443 one of another
# CA; 3853 resets in the handshake; 4853 answers in plain text; 4443 TLS with the right certificate and no word of ALPN; 5443 of
# HTTP/1.1 alone.
set -e
address=$2
mkdir -p "$1"; cd "$1"
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
for ca in good stranger; do
  openssl req -x509 "${key[@]}" -keyout $ca.key -out $ca.pem -days 30 -subj "/CN=$ca" 2>/dev/null
done
printf 'subjectAltName=DNS:dns.test,IP:%s\nbasicConstraints=CA:FALSE\n' "$address" >extensions
mkdir -p db; : >db/index; echo 01 >db/serial
cat >ca.conf <<E
[ca]
default_ca = one
[one]
database = db/index
serial = db/serial
new_certs_dir = db
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
E
# certificate NAME CA OPTIONS…
certificate() {
  openssl req "${key[@]}" -keyout $1.key -out $1.csr -subj /CN=dns.test 2>/dev/null
  openssl ca -batch -config ca.conf -cert $2.pem -keyfile $2.key -in $1.csr -out $1.crt -extfile extensions -notext "${@:3}" 2>/dev/null
}
certificate right good -days 30
certificate expired good -startdate 20200101000000Z -enddate 20200201000000Z
certificate unknown stranger -days 30
# server NAME TLS-PORT HTTPS-PORT OPTIONS…
server() {
  cat >$1.conf <<E
server:
  interface: $address@$2
  interface: $address@$3
  tls-port: $2
  https-port: $3
  tls-service-key: "$PWD/$1.key"
  tls-service-pem: "$PWD/$1.crt"
  access-control: 0.0.0.0/0 allow
  local-zone: "test." static
  local-data: "ok.test. 60 IN A 10.9.0.2"
  local-data: "other.test. 60 IN A 10.9.0.2"
  local-zone: "many.test." redirect
  local-data: "many.test. 60 IN A 10.9.0.9"
  chroot: ""
  username: ""
  directory: "$PWD"
  pidfile: "$PWD/$1.pid"
  logfile: "$PWD/$1.log"
  use-syslog: no
  module-config: "iterator"
$(printf '  %s\n' "${@:4}")
E
  unbound -c $1.conf
}
# A connection without queries ends after 300 ms.
server right 853 443 "interface: $address@53" "tcp-idle-timeout: 300" "log-queries: yes"
server expired 1853 1443
server unknown 2853 2443
cat >others.py <<'E'
import selectors, socket, ssl, struct, sys, threading
def serve(port, talk):
    listener = socket.create_server((sys.argv[1], port))
    def run():
        while True:
            connection, _ = listener.accept()
            try: talk(connection)
            except OSError: pass
            connection.close()
    threading.Thread(target=run).start()
def reset(connection):
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
def plain(connection):
    connection.recv(100)
    connection.sendall(b"220 this is no TLS\r\n")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("right.crt", "right.key")
serve(3853, reset)
serve(4853, plain)
serve(4443, lambda connection: context.wrap_socket(connection, server_side=True).recv(100))
old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
old.load_cert_chain("right.crt", "right.key")
old.set_alpn_protocols(["http/1.1"])
serve(5443, lambda connection: old.wrap_socket(connection, server_side=True).recv(100))
open("others.ready", "w").close()
E
python3 others.py "$address" >others.log 2>&1 & echo $! >others.pid
for _ in $(seq 100); do [ -e others.ready ] && break; sleep 0.05; done
chmod a+rx . ; chmod a+r good.pem
