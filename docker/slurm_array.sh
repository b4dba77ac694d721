#!/bin/bash
# A folder of videos over the tasks of a Slurm array, one GPU each:
#
#     sbatch --array=1-16 docker/slurm_array.sh VIDEOS/ features/ --recipe pamfn
#
# Task 3 of 16 extracts part 3/16 of the videos, by their ids. All write to one store, which must lie where locks hold
# across machines (NFSv4, GPFS, Lustre with flock). A task that is killed or requeued goes on where it stopped; so does
# the same command. Where there is no such file system: STORE_EACH=1 gives every task a store of its own,
# features/part-3; the README says how to put them together.
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
    # a later array of the tasks that failed: say how many parts the first one had, as in PARTS=16 sbatch --array=3,7
    : "${PARTS:?the array does not count 1-N: set PARTS to how many parts there are in all}"
fi

videos=$1
store=$2
shift 2
if [[ ${STORE_EACH:-0} == 1 ]]; then
    store=$store/part-$SLURM_ARRAY_TASK_ID
fi

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # since Slurm 22.05 srun does not take it over by itself
# exec: the signal before the time limit reaches arabesque, which then writes what is finished and ends
exec srun arabesque extract "$videos" --out "$store" \
    --shard "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}" "$@"
