#!/bin/bash
# Extract a folder of videos with a Slurm array job, one GPU per task:
#
#     sbatch --array=1-16 docker/slurm_array.sh VIDEOS/ features/ --recipe pamfn
#
# Task 3 of 16 extracts part 3/16 of the videos, selected by their ids. All tasks write to one store, on a file system
# whose locks work across machines (NFSv4, GPFS, Lustre with flock). A task that is killed or requeued resumes where it
# stopped; the same command resumes all. Without such a file system, STORE_EACH=1 gives every task a store of its own,
# e.g. features/part-3; docs/scale.md explains how to merge them.
#
#SBATCH --job-name=arabesque
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --output=arabesque-%A-%a.log

set -euo pipefail

if [[ $# -lt 2 || -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
    echo "usage: sbatch --array=1-N $0 VIDEOS STORE --recipe RECIPE [options of arabesque extract]" >&2
    exit 2
fi
if [[ ${SLURM_ARRAY_TASK_MIN:-1} -ne 1 || ${SLURM_ARRAY_TASK_MAX:-0} -ne ${SLURM_ARRAY_TASK_COUNT:-0} ]]; then
    # an array that repeats failed tasks needs the number of parts of the first array: PARTS=16 sbatch --array=3,7
    : "${PARTS:?the array is not 1-N: set PARTS to the total number of parts}"
fi

videos=$1
store=$2
shift 2
if [[ ${STORE_EACH:-0} == 1 ]]; then
    store=$store/part-$SLURM_ARRAY_TASK_ID
fi

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # since Slurm 22.05, srun does not inherit it
# exec: the signal before the time limit reaches arabesque, which writes its finished work and exits
exec srun arabesque extract "$videos" --out "$store" \
    --partition "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}" "$@"
