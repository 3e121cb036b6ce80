#!/usr/bin/env bash
# Compares runs of this working tree with runs of an earlier commit, bit for bit.
#
#     tests/compat.sh [BASE [BASE_BIN [HEAD_BIN]]]
#
#     BASE        the earlier commit [default: cc9b797]
#     BASE_BIN    a folder with its `pretrain` and `finetune`; without it they are built in a worktree of BASE, with a
#                 separate target folder
#     HEAD_BIN    the same of this working tree; without it they are built in $CARGO_TARGET_DIR (or target/)
#     PROFILE     environment: the Cargo profile of both, dev or release [default: dev]
#
# Tiny runs of all four recipes on the CPU are compared: fresh, killed and resumed, and begun by BASE and resumed by this
# tree. A line a comparison: `ok` or `DIFFERS` with the first difference. Exit code: 0 if all are equal, 1 if any is not,
# 2 if there is nothing to compare. Needs cargo, git and python3; takes half a minute beside the builds.
set -euo pipefail

usage() {
    sed -n '2,/^set/p' "$0" | sed -n 's/^# \{0,1\}//p'
}
fail() {
    echo "error: $*" >&2
    exit 2
}

case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
esac
[ $# -le 3 ] || fail "three arguments at most; see $0 --help"

base=${1:-cc9b797}
base_bin=${2:-}
head_bin=${3:-}
profile=${PROFILE:-dev}
# Where Cargo puts what a profile builds.
case "$profile" in
dev) built=debug ;;
*) built=$profile ;;
esac
[ -z "$base_bin" ] || base_bin=$(realpath -e "$base_bin") || fail "$2: no such folder"
[ -z "$head_bin" ] || head_bin=$(realpath -e "$head_bin") || fail "$3: no such folder"
cd "$(dirname "$0")/.."
root=$PWD
temp=$(mktemp -d)

clean() {
    cd "$root"
    if [ -d "$temp/base" ]; then
        git worktree remove --force "$temp/base"
    fi
    rm -rf "$temp"
}
trap clean EXIT

# The trainers of the source tree in $1, with the target folder $2.
build() {
    (cd "$1" && CARGO_TARGET_DIR=$2 cargo build --quiet --profile "$profile" -p pretrain -p finetune)
}

if [ -z "$base_bin" ]; then
    git worktree add --quiet --detach "$temp/base" "$base" || fail "$base: no such commit"
    build "$temp/base" "$temp/target" || fail "$base: does not build"
    base_bin=$temp/target/$built
fi
if [ -z "$head_bin" ]; then
    target=${CARGO_TARGET_DIR:-$root/target}
    build "$root" "$target" || fail "the working tree does not build"
    head_bin=$(realpath "$target/$built")
fi

python3 tests/compat.py "$base_bin" "$head_bin"
