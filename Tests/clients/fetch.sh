# For scripts in enclaves.
# What a server sends; else why not.
fetch() { curl -sS --noproxy '*' --max-time 10 "$@" 2>/dev/null || { [ $? = 6 ] && echo unknown || echo refused; }; }
# A command that must end at once, and its status.
quick() {
  local start=$(date +%s%N)
  "$@" >/dev/null 2>&1
  local status=$?
  [ $(($(date +%s%N) - start)) -lt 3000000000 ] || echo slow: "$@"
  echo $1 $status
}
