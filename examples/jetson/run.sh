#!/usr/bin/env bash
# Bundles an artifact for a Jetson, puts it there over ssh and runs it.
#   examples/jetson/run.sh build/demo/smollm2.edge user@jetson "The capital of France is"
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "usage: $0 FILE.edge USER@HOST PROMPT" >&2
    exit 2
fi
artifact=$1 host=$2 prompt=$3
out=${OUT:-build/jetson} target=${TARGET:-jetson-orin-nano}

edgesdk bundle "$artifact" --targets "$target" -o "$out"
# Only edge-run and the artifact are needed there. `edgesdk deploy` does this too, and verifies, resumes and pushes only
# what changed; here are the bare commands.
folder=edgesdk-example
ssh "$host" mkdir -p "$folder"
scp -q "$out/$target/edge-run" "$artifact" "$host:$folder/"
# ssh hands the remote shell one line: quote what the prompt may contain.
printf -v command '%q ' "./edge-run" generate "$(basename "$artifact")" --prompt "$prompt" --max-tokens 24
ssh "$host" "cd $folder && $command"
