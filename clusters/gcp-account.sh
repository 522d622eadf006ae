#!/usr/bin/env bash
# What gcp.yaml needs in the project, made once: a network that admits SSH from one place alone, a bucket, and the accounts of
# head and workers, which may read and write in it. `ray up` adds to the head's what it needs to start machines.
#
# Starts nothing that runs. Costs a month: the bucket by the GB. Opens port 22 to SSH_FROM.
# Needs the rights of an owner of the project (`gcloud auth login`), and a project with billing.
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

cloud services enable compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com storage.googleapis.com
cloud compute networks create raymc --subnet-mode custom
cloud compute networks subnets create raymc --network raymc --region "$region" --range "$inside"
cloud compute firewall-rules create raymc-ssh --network raymc --allow tcp:22 --source-ranges "$ssh_from"
cloud compute firewall-rules create raymc-inside --network raymc --allow all --source-ranges "$inside"

cloud storage buckets create "gs://$bucket" --location "$region" --uniform-bucket-level-access --public-access-prevention
# legacyBucketReader: gcloud and MLflow may ask for the bucket itself, which no role of objects allows.
for account in raymc-worker ray-autoscaler-sa-v1; do
  cloud iam service-accounts create "$account"
  for role in roles/storage.objectUser roles/storage.legacyBucketReader; do
    for _ in {1..12}; do # a new account is known everywhere after some seconds
      cloud storage buckets add-iam-policy-binding "gs://$bucket" --role "$role" \
        --member "serviceAccount:$account@$project.iam.gserviceaccount.com" && continue 2
      sleep 5
    done
    echo "gcp-account.sh: $account could not be given $role" >&2 && exit 1
  done
done
echo "BUCKET=gs://$bucket"
