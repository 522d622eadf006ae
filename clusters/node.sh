#!/usr/bin/env bash
# Sets up one machine of a cluster, head or worker: the storage, the data, raymc with the pins of a run in a virtual
# environment, and what every shell must know. May be run again: what is there, as in an image of bake.sh, is not fetched
# again. Wheel and pins lie in ../dist (`make wheel`), the environment goes to ../venv.
#
# usage: node.sh [BUCKET=s3://NAME|gs://NAME] [FILES=HOST:/EXPORT] [STORAGE=URI|FOLDER] [DATA=/data] [PYTHON=python3]
#   BUCKET   its folder data/ is copied to DATA; without it the datasets must be in DATA already
#   FILES    NFS that is mounted at /shared
#   STORAGE  of studies and stages: BUCKET/raymc; without a bucket the folder /shared/raymc, which all machines must see
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FILES='' BUCKET='' STORAGE='' DATA=/data PYTHON=python3
for pair in "$@"; do
  case $pair in
    FILES=* | BUCKET=* | STORAGE=* | DATA=* | PYTHON=*) declare "$pair" ;;
    *) echo "node.sh: $pair is none of FILES, BUCKET, STORAGE, DATA, PYTHON" >&2 && exit 2 ;;
  esac
done
[[ -n $STORAGE ]] || STORAGE=${BUCKET:-/shared}/raymc

# shellcheck source=/dev/null
source "$here/clusters/packages.sh"

own_folder() {
  mkdir -p "$1" 2>/dev/null || { sudo mkdir -p "$1" && sudo chown "$(id -u):$(id -g)" "$1"; }
}

mount_files() {
  [[ -n $FILES ]] || return 0
  command -v mount.nfs4 >/dev/null || packages nfs-common
  sudo mkdir -p /shared
  mountpoint -q /shared || sudo mount -t nfs4 -o nfsvers=4.1,rsize=1048576,wsize=1048576,hard,noresvport "$FILES" /shared
}

copy_data() {
  case $BUCKET in
    '') ;;
    s3://*) aws s3 sync --only-show-errors "$BUCKET/data" "$DATA" ;;
    gs://*) gcloud storage rsync --recursive --no-user-output-enabled "$BUCKET/data" "$DATA" ;;
    *) echo "node.sh: BUCKET=$BUCKET is neither s3:// nor gs://" >&2 && exit 2 ;;
  esac
}

install_raymc() {
  local wheels=("$here"/dist/raymc-*.whl)
  [[ ${#wheels[@]} == 1 && -f ${wheels[0]} ]] || { echo "node.sh: not one wheel in $here/dist (make wheel)" >&2 && exit 2; }
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || packages python3-venv
  [[ -x $here/venv/bin/python ]] || "$PYTHON" -m venv "$here/venv"
  "$here/venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$here/dist/requirements-run.txt" uv
  "$here/venv/bin/uv" pip install --quiet --python "$here/venv/bin/python" --compile-bytecode --no-deps \
    --reinstall-package raymc -r "$here/dist/requirements-run.txt" "${wheels[0]}"
}

# RAY_AUTH_MODE must be the same for every `ray` and `raymc` command of the cluster.
write_environment() {
  cat >"$here/environment.sh" <<END
export PATH="$here/venv/bin:\$PATH"
export RAYMC_STORAGE="$STORAGE" RAYMC_DATA="$DATA" MLFLOW_TRACKING_URI=http://127.0.0.1:5000
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
unset OMP_NUM_THREADS
END
  grep -qxF ". $here/environment.sh" ~/.bashrc 2>/dev/null || echo ". $here/environment.sh" >>~/.bashrc
}

mount_files
[[ $STORAGE == *://* ]] || own_folder "$STORAGE"
own_folder "$DATA"
copy_data
install_raymc
write_environment
RAYMC_DATA=$DATA "$here/venv/bin/raymc" data list
