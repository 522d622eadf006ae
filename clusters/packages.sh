# shellcheck shell=bash
# For node.sh and head.sh: `packages NAME …` installs packages of Debian or Ubuntu.
set -euo pipefail

# A machine that has just started runs apt itself; the lock's timeout does not cover its update.
packages() {
  local apt=(sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
  for _ in {1..60}; do
    "${apt[@]}" update && "${apt[@]}" -y install "$@" && return
    sleep 10
  done
  echo "${0##*/}: apt-get could not install $*" >&2 && exit 1
}
