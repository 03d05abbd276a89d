# For an enclave with NAMES below: what each client gets, and what it is refused at once, whatever server it asks and however.
#   names.sh V4 V6    of name-world.sh
. "$(dirname "$0")/fetch.sh"
v4=$1 v6=$2
web=http://$v4.2:8080/file
echo "the address alone: $(fetch $web)"
echo "the name: $(fetch http://ok.test:8080/file)"
echo "then the address: $(fetch $web)"
echo "spelled otherwise: $(fetch http://OK.Test.:8080/file)"
echo "another port: $(fetch http://ok.test:8081/file)"
echo "an alias into a foreign zone: $(fetch http://www.alias.test:8080/file)"
echo "the foreign name: $(dig target.foreign | grep -o 'status: [A-Z]*')"
echo "IPv6 alone: $(fetch http://six.test:8080/file)"
echo "a TTL of 0: $(fetch http://zero.test:8080/file) $(dig +noall +answer zero.test | awk '{ print $2 }')"
echo "an answer with metadata and loopback in it: $(fetch http://rebind.test:8080/file) $(dig +short rebind.test | sed "s/^$v4/N/")"
echo "another name: $(fetch http://other.test:8080/file)"
for server in 8.8.8.8 2606:4700::1111; do
  echo "a server of its own: $(dig +short @$server ok.test | sed "s/^$v4/N/") $(dig +short +tcp @$server ok.test | sed "s/^$v4/N/")"
  echo "and another name: $(dig @$server other.test | grep -o 'status: [A-Z]*') $(dig +tcp @$server other.test | grep -o 'status: [A-Z]*')"
done
echo "cut, and over TCP whole: $(dig +ignore +noedns big.test TXT | grep -o 'flags:.* tc' | grep -o tc) $(dig +short +noedns big.test TXT | wc -c)"
quick getent hosts other.test
python3 -c 'import urllib.request as u; print("python", u.urlopen("http://ok.test:8080/file").read().decode(), end="")'
quick python3 -c 'import urllib.request as u; u.urlopen("http://other.test:8080/file")'
node -e 'fetch("http://ok.test:8080/file").then(r => r.text()).then(t => process.stdout.write("node " + t))'
quick node -e 'fetch("http://other.test:8080/file").then(r => 0)'
sleep 2.6
echo "the address behind its TTL: $(fetch $web)"
