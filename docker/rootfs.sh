#!/bin/sh
# What the service's image has of Debian: the interpreter and the libraries it loads, put into ROOT.
#
#   rootfs.sh ROOT
#
# There is no shell, no package manager and no other program. The closed list below is what the
# service loads, not what the packages recommend; the build ends by starting the service in it.
set -eu
root=$1
packages="
    base-files gcc-12-base libc6 libgcc-s1 libstdc++6 zlib1g libbz2-1.0 liblzma5 libcrypt1 libexpat1 libffi8
    libsqlite3-0 libssl3 libuuid1 media-types netbase
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"

mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/sbin" \
    "$root/var/lib/dpkg/status.d" "$root/etc" "$root/models" "$root/proc" "$root/sys" "$root/dev"
for folder in bin lib lib64 sbin; do ln -s "usr/$folder" "$root/$folder"; done
install -d -m 1777 "$root/tmp"
install -d -m 700 -o 65532 -g 65532 "$root/data" # a volume of collections begins as this

debs=$(mktemp -d)
cd "$debs"
# shellcheck disable=SC2086  # a list of words
apt-get download -qq -o APT::Sandbox::User=root $packages
for deb in *.deb; do
    # What stays of the documentation is the licence; gconv is character sets that Python has itself
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink \
        --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
        --exclude='./usr/share/lintian/*' --exclude='./usr/share/doc/*/changelog*' \
        --exclude='./usr/share/doc/*/NEWS*' --exclude='./usr/share/doc/*/README*' \
        --exclude='./usr/share/gdb/*' --exclude='./usr/share/gcc/*' --exclude='./usr/lib/python3.11/test/*' \
        --exclude='./usr/lib/*/gconv/*' --exclude='./usr/lib/*/perl-base/*' \
        --exclude='./usr/lib/python3.11/pydoc_data/*' --exclude='./usr/lib/python3.11/turtledemo/*' \
        --exclude='./usr/bin/pdb3*' --exclude='./usr/bin/pydoc3*' --exclude='./usr/bin/pygettext3*' \
        --exclude='./usr/bin/py3*' --exclude='./usr/bin/2to3*'
    # Where scanners look for packages in an image without dpkg
    dpkg-deb -f "$deb" >"$root/var/lib/dpkg/status.d/$(dpkg-deb -f "$deb" Package)"
done
rm -rf "$debs" "$root/boot" "$root/home" "$root/root" "$root/run" "$root/var/spool" \
    "$root/var/local" "$root/var/backups" "$root/var/mail" "$root/var/lock" "$root/var/run" "$root/var/tmp"
ln -s python3.11 "$root/usr/bin/python3"

echo "viola:x:65532:65532:Viola:/tmp:/none" >"$root/etc/passwd"
echo "viola:x:65532:" >"$root/etc/group"
