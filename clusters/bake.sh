#!/usr/bin/env bash
# An image for aws.yaml or gcp.yaml with raymc and the pins of a run installed, so that a machine that comes need only start.
# Once more when requirements-run.txt has changed; node.sh puts the wheel of the day in its place at every start.
#
# Starts    one machine without a GPU for about 15 minutes, which installs and stops by itself, and is deleted.
# Costs     a quarter of an hour of it; a month: the image by the GB (about 20 GB of snapshot).
# Opens     nothing: the machine fetches wheel and scripts from the bucket, by the workers' account.
#
# usage: bake.sh aws BUCKET                    after aws-account.yaml and `make wheel`; region: AWS_REGION
#        bake.sh gcp BUCKET PROJECT REGION     after gcp-account.sh and `make wheel`; zone: REGION-a
set -euo pipefail
usage() { echo "usage: bake.sh aws BUCKET | bake.sh gcp BUCKET PROJECT REGION" >&2 && exit 2; }
case ${1:-}-$# in aws-2 | gcp-4) ;; *) usage ;; esac
where=$1 bucket=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -f dist/requirements-run.txt ]] || { echo "bake.sh: no dist/requirements-run.txt (make wheel)" >&2 && exit 2; }

script() { # of the new machine, as root; FETCH and MARK are its cloud's commands
  cat <<END
#!/bin/bash
set -eu
id ubuntu >/dev/null 2>&1 || useradd --create-home --shell /bin/bash ubuntu
grep -q ^ubuntu /etc/sudoers.d/* 2>/dev/null || echo "ubuntu ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/ubuntu
sudo -iu ubuntu bash -euc '$1; bash ~/raymc/clusters/node.sh STORAGE=none://image' && echo done >/tmp/done && $2
shutdown -h now
END
}

bake_aws() {
  local base machine image mark=s3://$bucket/image/done
  aws s3 rm --only-show-errors "$mark"
  aws s3 sync --only-show-errors dist "s3://$bucket/image/dist"
  aws s3 sync --only-show-errors clusters "s3://$bucket/image/clusters"
  base=$(aws ssm get-parameter --query Parameter.Value --output text \
    --name /aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id)
  machine=$(aws ec2 run-instances --image-id "$base" --instance-type m7i.xlarge --query 'Instances[0].InstanceId' --output text \
    --iam-instance-profile Name=raymc-worker --metadata-options HttpTokens=required --instance-initiated-shutdown-behavior stop \
    --block-device-mappings 'DeviceName=/dev/sda1,Ebs={VolumeSize=100,VolumeType=gp3,Encrypted=true,DeleteOnTermination=true}' \
    --user-data "$(script "aws s3 cp --recursive --only-show-errors s3://$bucket/image ~/raymc" "aws s3 cp /tmp/done $mark")")
  trap 'aws ec2 terminate-instances --instance-ids '"$machine"' >/dev/null' EXIT
  aws ec2 wait instance-running --instance-ids "$machine"
  for _ in 1 2 3; do aws ec2 wait instance-stopped --instance-ids "$machine" && break; done
  aws s3 ls "$mark" >/dev/null || { echo "bake.sh: the installation failed (aws ec2 get-console-output)" >&2 && exit 1; }
  image=$(aws ec2 create-image --instance-id "$machine" --name "raymc-$(date +%Y%m%d-%H%M%S)" --query ImageId --output text)
  for _ in 1 2 3; do aws ec2 wait image-available --image-ids "$image" && break; done
  aws ssm put-parameter --name /raymc/image --type String --data-type aws:ec2:image --overwrite --value "$image" >/dev/null
  echo "$image"
}

bake_gcp() {
  local project=$1 zone=$2-a mark=gs://$bucket/image/done
  cloud() { gcloud --quiet --project "$project" "$@"; }
  cloud storage rm "$mark" 2>/dev/null || true
  cloud storage rsync --recursive dist "gs://$bucket/image/dist"
  cloud storage rsync --recursive clusters "gs://$bucket/image/clusters"
  script "mkdir -p ~/raymc && gcloud storage cp --recursive gs://$bucket/image/dist gs://$bucket/image/clusters ~/raymc" \
    "gcloud storage cp /tmp/done $mark" >dist/startup.sh
  cloud compute instances create raymc-bake --zone "$zone" --machine-type n2-standard-4 --subnet raymc --boot-disk-size 100GB \
    --image-project deeplearning-platform-release --image-family common-cu129-ubuntu-2404-nvidia-580 \
    --service-account "raymc-worker@$project.iam.gserviceaccount.com" --scopes storage-rw \
    --metadata-from-file startup-script=dist/startup.sh
  trap 'gcloud --quiet --project '"$project"' compute instances delete raymc-bake --zone '"$zone" EXIT
  for _ in {1..180}; do
    [[ $(cloud compute instances describe raymc-bake --zone "$zone" --format 'value(status)') != TERMINATED ]] || break
    sleep 20
  done
  cloud storage ls "$mark" >/dev/null || { echo "bake.sh: the installation failed (its serial port says why)" >&2 && exit 1; }
  cloud compute images create "raymc-$(date +%Y%m%d-%H%M%S)" --family raymc --source-disk raymc-bake --source-disk-zone "$zone"
}

"bake_$where" "${@:3}"
