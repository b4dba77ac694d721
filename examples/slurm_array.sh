#!/bin/bash
# Extract with an array of four Slurm tasks, then check and train in a job that waits for them:
#
#     bash slurm_array.sh VIDEOS/ features/ scores.csv
#
# docker/slurm_array.sh is the job of one task: it requests a GPU, extracts its part of the videos, and requeues.
set -euo pipefail
if [[ $# -ne 3 ]]; then
    echo "usage: bash $0 VIDEOS STORE LABELS" >&2
    exit 2
fi
videos=$1 store=$2 labels=$3
job=$(dirname "${BASH_SOURCE[0]}")/../docker/slurm_array.sh

id=$(sbatch --parsable --array=1-4 "$job" "$videos" "$store" --recipe starter)
sbatch --dependency="afterok:$id" --wrap \
    "arabesque status '$store' && arabesque verify '$store' && arabesque train '$store' --labels '$labels'"
