#!/usr/bin/env bash
# After node.sh, on the head only: what Ray's autoscaler and the driver need, PostgreSQL, and MLflow's server as a service of
# systemd that starts again by itself. Both answer on this machine alone. May be run again.
#
# usage: head.sh ARTIFACTS      s3://NAME/mlflow, gs://NAME/mlflow or a folder
#
# PostgreSQL knows the user by his account (peer), so there is no password. Its database may go with the head: a
# study's metrics are in the storage, and `raymc tune --resume` sends them to an empty database again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
artifacts=${1:?usage: head.sh ARTIFACTS}
user=$(id -un)
sockets=${PGHOST:-/var/run/postgresql}

"$here/venv/bin/uv" pip install --quiet --python "$here/venv/bin/python" --no-deps -r "$here/dist/head.txt"

# shellcheck source=/dev/null
source "$here/clusters/packages.sh"
command -v psql >/dev/null || packages postgresql
as_postgres() { (cd / && sudo -u postgres "$@"); }
known() { [[ $(as_postgres psql -h "$sockets" -tAc "$1") == 1 ]]; }
known "select 1 from pg_roles where rolname = '$user'" || as_postgres createuser -h "$sockets" "$user"
known "select 1 from pg_database where datname = 'mlflow'" || as_postgres createdb -h "$sockets" --owner "$user" mlflow

sudo tee /etc/systemd/system/mlflow.service >/dev/null <<END
[Unit]
Description=MLflow of raymc
After=network-online.target postgresql.service
[Service]
User=$user
WorkingDirectory=$here
Environment=MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
ExecStart=$here/venv/bin/mlflow server --host 127.0.0.1 --port 5000 --workers 2 --backend-store-uri postgresql+psycopg2:///mlflow?host=$sockets --artifacts-destination $artifacts
Restart=always
RestartSec=5
[Install]
WantedBy=multi-user.target
END
sudo systemctl daemon-reload
sudo systemctl enable --quiet mlflow
sudo systemctl restart mlflow
