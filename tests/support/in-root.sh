#!/bin/sh
# Run a command in another root, in a mount namespace of its own, in which it may mount what it likes.
#
#   in-root.sh ROOT SHARED COMMAND [ARGUMENT]...      SHARED is a directory that is under the same path inside
#
# pivot_root and not chroot, under which neither containers nor mount namespaces can be made.
set -e
[ "$IN_ROOT" ] || IN_ROOT=1 exec unshare --mount --propagation private "$0" "$@"
unset IN_ROOT
root=$1 shared=$2
shift 2
mount --bind "$root" "$root"
cd "$root"
for name in proc sys dev; do mount --rbind "/$name" "$name"; done
mount -t tmpfs none run
mount -t tmpfs none tmp
mkdir -p ".$shared" .old
mount --bind "$shared" ".$shared"
pivot_root . .old
exec chroot . sh -c 'umount -l /.old; exec "$@"' sh env -u TMPDIR PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
