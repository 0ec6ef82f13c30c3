# Sourced by run.sh: counts what holds and what does not, and says so.
# shellcheck shell=bash disable=SC2154

passed=0
failed=0

# check WHAT COMMAND...: one check. What a failed command printed is shown.
check() {
  local what=$1
  shift
  # No subshell: a function may leave variables.
  if "$@" >"$work/said" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$what"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$what"
    tail -n 40 "$work/said" | sed 's/^/        /'
    return 1
  fi
}

# Conditions that say what they found when they don't hold.
same() { [[ $1 == "$2" ]] || { printf 'is        %s\nshould be %s\n' "$1" "$2"; return 1; }; }
contains() { [[ $1 == *"$2"* ]] || { printf 'no %s in:\n%s\n' "$2" "$1"; return 1; }; }
refuses() { ! "$@"; }

# What runs beside the checks, stopped with them.
started=()
stop_all() {
  ((${#started[@]})) || return 0
  kill -KILL "${started[@]}" 2>/dev/null
  wait "${started[@]}" 2>/dev/null
}
trap stop_all EXIT
trap 'exit 130' INT TERM

# until_true COMMAND...: ten seconds at most.
until_true() {
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  "$@"
}

# ends_in_order PROCESS CHILD: SIGTERM to the process ends the child of this shell that waits for it, with 0, within 45 seconds.
ends_in_order() {
  kill -TERM "$1" || return
  timeout 45 tail --pid="$2" -f /dev/null || kill -KILL "$1"
  wait "$2" || { echo "exit code $?"; return 1; }
}

# Four ports in a row that nobody uses.
free_ports() {
  python3 - <<'PYTHON'
import socket
for base in range(21000, 31000, 4):
    held = []
    try:
        for port in range(base, base + 4):
            held.append(socket.create_server(("127.0.0.1", port)))
        print(base)
        break
    except OSError:
        continue
    finally:
        for one in held:
            one.close()
PYTHON
}
