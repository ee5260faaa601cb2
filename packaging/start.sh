#!/bin/sh
# Builds the program that starts the bundle's interpreter, for each architecture that has a compiler here.
#
#     packaging/start.sh [DIRECTORY]
set -eu
here=$(dirname "$0")
target=${1:-$here/../shim/tools/start}
for machine in x86_64 aarch64; do
  compiler=$machine-linux-gnu-gcc
  command -v "$compiler" >/dev/null || { echo "not installed: $compiler" >&2; continue; }
  protection=
  [ "$machine" != x86_64 ] || protection=-fcf-protection=none
  "$compiler" -O2 -Wall -Wextra -Werror -std=gnu11 -nostdlib -static -no-pie -ffreestanding -fno-builtin $protection \
    -fno-stack-protector -fno-tree-loop-distribute-patterns -fno-asynchronous-unwind-tables -Wl,--build-id=none \
    -Wl,-z,noseparate-code -Wl,-z,max-page-size=65536 -s -o "$target/$machine" "$here/start.c"
done
