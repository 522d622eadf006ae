#!/usr/bin/env bash
# raymc under Slurm: Ray on the nodes of one job, a search on it, and its end with the job.
#
# Starts    Ray on 2 whole nodes with a GPU each, for at most a day. Requeued after a node has failed, it goes on.
# Costs     an hour of your allocation: nodes * (CPUs + GPUs of a node) as your site bills them.
# Opens     on the job's nodes a port of Ray's (20000 + job number mod 10000) and those above 10000 to all who reach
#           the nodes; each wants the token that this script makes for the job. The dashboard listens on loopback alone.
#
# Once      make setup                                       (in a folder that all nodes see; the job uses its .venv)
# Use       sbatch clusters/slurm.sh nmce_cifar20 --data /shared/data    (from the repository's root; words of `raymc tune`)
#           sbatch --nodes 8 --gpus-per-node 4 clusters/slurm.sh SPACE   (options of sbatch come first)
#
# Where things are: the storage is RAYMC_STORAGE or ./raymc-storage, and must lie on a file system that all nodes see.
# Ray's end stops every Ray of yours on its nodes: hence whole nodes.
#SBATCH --job-name=raymc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[[ $# -ge 1 ]] || { echo "usage: sbatch [OPTIONS] clusters/slurm.sh SPACE [OPTIONS OF raymc tune]" >&2 && exit 2; }
here=$PWD
export PATH=$here/.venv/bin:$PATH
storage=${RAYMC_STORAGE:-$here/raymc-storage}
study=$1-$SLURM_JOB_ID
resume=()
[[ ! -e $storage/studies/$study ]] || resume=(--resume)

umask 077
mkdir -p "$here/.slurm"
RAY_AUTH_TOKEN_PATH=$here/.slurm/token-$SLURM_JOB_ID
export RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAYMC_STORAGE=$storage
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
umask 022

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes "$SLURM_JOB_NUM_NODES" --ntasks "$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head:$((20000 + SLURM_JOB_ID % 10000))" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  raymc tune "$@" --address auto --name "$study" "${resume[@]}"
