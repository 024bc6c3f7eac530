#!/bin/sh
# What HTCondor starts on a machine that does not see the directory of the workflow (job_wrapper of profiles/htcondor-transfer): a
# Snakemake for one job, with what came along. Packages and workflow are in sfxflow.tar.gz (`sfxflow pack`); where the machine keeps them
# between jobs, or has them from a container, it need not be unpacked again:
#   SFXFLOW_CACHE   folder of this machine where unpacked archives stay, for all jobs of one user
# Exit status 75: the disk of this machine is full, so that the pool holds the job and releases it later (the profile says when).
set -u
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
here=$PWD

fail() {
    said=$1
    finish 1
}

# Whether the disk is to blame. Asked before room is made; `tail`, since a log may be long.
disk_is_full() {
    free=$(df -Pk "$here" | awk 'NR == 2 { print $4 }')
    [ "${free:-0}" -lt 10240 ] && return 0
    find "$here/_condor_stderr" "$here/logs" -type f -exec tail -n 50 {} + 2>/dev/null | grep -q "No space left on device"
}

# The pool would put a job without its results on hold, and its logs would not come back. Snakemake deletes what a failed job left.
finish() {
    cd "$here" || exit 1
    status=$1
    if [ "$status" -ne 0 ] && disk_is_full; then
        status=75
        full="No space left on device: $(df -Pk "$here" | awk 'NR == 2 { printf "%d of %d MB are free", $4 / 1024, $2 / 1024 }')"
    fi
    # Room for what is said, and for what goes back.
    [ "$status" -eq 0 ] || rm -rf "$here/.sfxflow" "$here/.sfxflow.$$" "${unpacked:-$here/.sfxflow}.$$"
    [ -z "${said:-}" ] || echo "htcondor_job.sh on $(hostname): $said" >&2
    [ -z "${full:-}" ] || echo "htcondor_job.sh on $(hostname): $full" >&2
    outputs=$(sed -n 's/^TransferOutput = "\(.*\)"$/\1/p' "${_CONDOR_JOB_AD:-.job.ad}" 2>/dev/null)
    mkdir -p logs/.times
    old=$IFS
    IFS=,
    # In the order of their names they come back, with new times; transfer.smk puts these right, so that no result looks older than its input.
    for path in $outputs; do
        [ -f "$path" ] && stat -c '%.Y %n' "$path"
    done >"logs/.times/$(hostname)-$$-$(date +%s)"
    for path in $outputs; do
        path=${path# }
        case $path in
            logs | benchmarks) mkdir -p "$path" ;;
            *) [ -e "$path" ] || { mkdir -p "$(dirname "$path")" && : >"$path"; } ;;
        esac
    done
    IFS=$old
    exit "$status"
}

# Snakemake's arguments, without what comes before them and without its place of the Snakefile.
while [ $# -gt 0 ] && [ "$1" != --snakefile ]; do shift; done
[ $# -ge 2 ] || fail "no --snakefile among the arguments"
shift 2

archive=$(find . -maxdepth 4 -name sfxflow.tar.gz | head -n 1)
[ -n "$archive" ] || fail "sfxflow.tar.gz did not come along; what came: $(find . -maxdepth 3 | head -n 20 | tr '\n' ' ')"

unpacked=$here/.sfxflow
if [ -n "${SFXFLOW_CACHE:-}" ]; then
    mkdir -p "$SFXFLOW_CACHE" || fail "SFXFLOW_CACHE=$SFXFLOW_CACHE can't be made"
    unpacked=$SFXFLOW_CACHE/$(cksum <"$archive" | tr ' ' '-')
fi
if [ ! -e "$unpacked/python" ]; then
    # Under another name until it is whole: several jobs may begin together.
    mkdir -p "$unpacked.$$" && tar -xzf "$archive" -C "$unpacked.$$" ||
        fail "sfxflow.tar.gz can't be unpacked in ${unpacked%/*}"
    mv -T "$unpacked.$$" "$unpacked" 2>/dev/null || rm -rf "$unpacked.$$"
fi

wanted=$(cat "$unpacked/python")
SFXFLOW_PYTHON=$(command -v "$wanted") ||
    fail "no $wanted on PATH ($PATH): packages were packed for it; ask for machines that have it (requirements), or for a container"
export SFXFLOW_PYTHON
export PYTHONPATH="$unpacked/packages" PATH="$unpacked/bin:$PATH" PYTHONNOUSERSITE=1 HOME="$here"
export TMPDIR="${_CONDOR_SCRATCH_DIR:-$here}" XDG_CACHE_HOME="$here/.cache"

# -S: none of the packages that the machine itself has.
"$SFXFLOW_PYTHON" -S -m snakemake --snakefile "$unpacked/workflow/Snakefile" "$@"
finish $?
