#!/usr/bin/env bash
# What gcp.yaml needs in the project, made once: a network that admits SSH from one place alone, a bucket and the workers'
# account, which may read and write in it.
#
# Starts nothing that runs. Costs a month: the bucket by the GB. Opens port 22 to SSH_FROM.
#
# usage: gcp-account.sh PROJECT REGION SSH_FROM BUCKET      SSH_FROM: for instance 203.0.113.7/32
set -euo pipefail
if [[ $# != 4 || ! $3 =~ ^[0-9.]+/([89]|[12][0-9]|3[0-2])$ ]]; then
  echo "usage: gcp-account.sh PROJECT REGION SSH_FROM BUCKET   (SSH_FROM such as 203.0.113.7/32)" >&2
  exit 2
fi
project=$1 region=$2 ssh_from=$3 bucket=$4
inside=10.128.0.0/20
cloud() { gcloud --quiet --project "$project" "$@"; }

cloud services enable compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com
cloud compute networks create raymc --subnet-mode custom
cloud compute networks subnets create raymc --network raymc --region "$region" --range "$inside"
cloud compute firewall-rules create raymc-ssh --network raymc --allow tcp:22 --source-ranges "$ssh_from"
cloud compute firewall-rules create raymc-inside --network raymc --allow all --source-ranges "$inside"

cloud storage buckets create "gs://$bucket" --location "$region" --uniform-bucket-level-access --public-access-prevention
worker=raymc-worker@$project.iam.gserviceaccount.com
cloud iam service-accounts create raymc-worker
cloud storage buckets add-iam-policy-binding "gs://$bucket" --member "serviceAccount:$worker" --role roles/storage.objectUser
echo "BUCKET=gs://$bucket"
