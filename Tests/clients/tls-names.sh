# For an enclave that looks at the names which clients ask servers for, with ok.test alone allowed.
#   tls-names.sh V4    of name-world.sh
dig ok.test >/dev/null
here=$(dirname "$0")
tls() { curl -sSk --noproxy '*' --max-time 10 -o /dev/null "$@" 2>/dev/null && echo served || echo refused; }
tls https://ok.test/
tls -6 https://ok.test/
tls https://ok.test:8443/
tls --resolve other.test:443:$1.2 https://other.test/
tls https://$1.2/
say() { if "$@" </dev/null 2>/dev/null | grep -q 'BEGIN CERT'; then echo certificate; else echo nothing; fi; }
say openssl s_client -connect ok.test:443 -servername ok.test
say openssl s_client -connect ok.test:443 -servername other.test
say openssl s_client -connect ok.test:443 -noservername
for way in whole bytes records pq; do
  for name in ok.test other.test; do python3 "$here"/hello.py $way $name 443; done
done
python3 "$here"/hello.py whole - 8443
curl -sS --noproxy '*' http://ok.test:8080/file 2>/dev/null || echo refused
python3 -c 'import socket; print(socket.create_connection(("ok.test", 2525), 5).recv(99).decode().strip())'
