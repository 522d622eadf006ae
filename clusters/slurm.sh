#!/usr/bin/env bash
# raymc under Slurm: Ray on the nodes of one job, a search on it, and its end with the job.
#
# Starts    Ray on 2 whole nodes with a GPU each, for at most a day. Two minutes before its time is over, and after a node has
#           failed, the job is put into the queue again, and goes on with its study by the same words.
# Costs     an hour of your allocation: nodes * (CPUs + GPUs of a node) as your site bills them, until the search has ended.
# Opens     on the job's nodes a port of Ray's (20000 + job number mod 10000) and those above 10000 to all who reach
#           the nodes; each wants the token that this script makes for the job. The dashboard listens on loopback alone.
#
# Once      make setup                                       (in a folder that all nodes see; the job uses its .venv)
# Use       sbatch clusters/slurm.sh nmce_cifar20 --data /shared/data    (from the repository's root; words of `raymc tune`)
#           sbatch --nodes 8 --gpus-per-node 4 clusters/slurm.sh SPACE   (options of sbatch come first)
#           sbatch --export ALL,STUDY=NAME clusters/slurm.sh SPACE       (a study by its name: made, or gone on with)
#           scancel JOB                                      (ends it; it is not put into the queue again)
#
# Where things are: the storage is RAYMC_STORAGE, a URI (s3://BUCKET/raymc) or a folder that all nodes see; ./raymc-storage if unset.
#           MLflow is ./mlflow.db, which the job's one driver opens, or the server that MLFLOW_TRACKING_URI names.
#SBATCH --job-name=raymc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
set -euo pipefail
[[ $# -ge 1 ]] || { echo "usage: sbatch [OPTIONS] clusters/slurm.sh SPACE [OPTIONS OF raymc tune]" >&2 && exit 2; }
export PATH=$PWD/.venv/bin:$PATH
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAYMC_STORAGE=${RAYMC_STORAGE:-$PWD/raymc-storage}
study=${STUDY:-$(basename "$1" .yaml)-$SLURM_JOB_ID}

export RAY_AUTH_TOKEN_PATH=$PWD/.slurm/token-$SLURM_JOB_ID
mkdir -p .slurm
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"; kill $(jobs -p) 2>/dev/null || true' EXIT

# Not `ray symmetric-run`: on two nodes it exited with 1 after a search that went well, and its worker stayed on.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$head:$((20000 + SLURM_JOB_ID % 10000))
workers=$((SLURM_JOB_NUM_NODES - 1))
# A step gets one core unless it asks for more, and is bound to it; Ray's processes are for all cores of the node. A busy node
# may take longer than the 30 seconds that Ray gives itself to start.
start() { # where, and how
  local words=("$@")
  srun --overlap --cpus-per-task "$SLURM_CPUS_ON_NODE" --cpu-bind none "${words[@]:0:6}" \
    bash -c "until ray start ${words[*]:6} --block; do sleep 5; done" &
}
start --nodes 1 --ntasks 1 --nodelist "$head" --head --port "${address##*:}" --dashboard-host 127.0.0.1
((!workers)) || start --nodes "$workers" --ntasks "$workers" --exclude "$head" --address "$address"
count="import ray; ray.init('$address', logging_level='ERROR', log_to_driver=False); print(len(ray.nodes()))"
for _ in {1..60}; do
  there=$(python -c "$count" 2>/dev/null || echo 0)
  ((there < SLURM_JOB_NUM_NODES)) || break
  sleep 5
done
((there == SLURM_JOB_NUM_NODES)) || { echo "slurm.sh: Ray came up on $there of $SLURM_JOB_NUM_NODES nodes" >&2 && exit 1; }
raymc tune "$@" --address "$address" --name "$study" --resume=auto &
driver=$! again='' code=0
trap 'again=yes; kill -TERM "$driver"' USR1 # the time is almost over
trap 'kill -TERM "$driver"' TERM
while kill -0 "$driver" 2>/dev/null; do # a signal ends `wait`, not the driver
  wait "$driver" && code=0 || code=$?
done
[[ -z $again || $code == 0 ]] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
