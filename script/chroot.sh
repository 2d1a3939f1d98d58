# shellcheck shell=bash
#
# chroot.sh: other releases of Debian, each in a folder of its own.
#
# They are kept for the next call in $AUDIO_CLEANUP_CHROOTS, by default
# /var/cache/audio_cleanup-chroots.  Packages come from the mirror that this
# machine's apt has for Debian.
#
# To be sourced after lib.sh.  Functions that bring a chroot up return 1 when
# that cannot be done here, and are called where "set -e" does not work.

chroots=${AUDIO_CLEANUP_CHROOTS:-/var/cache/audio_cleanup-chroots}
mirror=                         # set by find_mirror
bring_up_seconds=1800           # for each of its two steps: a mirror may hang

# Where Debian has each version of PostgreSQL, the most stable release first.
# shellcheck disable=SC2034
declare -A suites=([15]=bookworm [17]=trixie [18]='forky sid' [19]=experimental)

# chroots_work: whether this machine lets us mount
chroots_work()
{
    mkdir -p "$scratch/proc"
    # shellcheck disable=SC2016
    as_root unshare --mount --pid --ipc --fork sh -c 'mount -t proc proc "$1" && mount -t tmpfs tmpfs "$1"' sh "$scratch/proc" 2>/dev/null
}

# find_mirror: Debian's own, as apt knows it
find_mirror()
{
    local format="\$(ORIGIN) \$(COMPONENT) \$(REPO_URI)"

    [[ -z $mirror ]] || return 0
    refresh_package_lists && install_missing chroot && command -v debootstrap >/dev/null || return
    mirror=$(apt-get indextargets --format "$format" 'Created-By: Packages' |
        awk '/^Debian main / && $3 ~ "/debian/*$" && !found++ { print $3 }')
    [[ -n $mirror ]] || { say 'apt has no mirror of Debian' && return 1; }
}

# suite_of VERSION: sets suite to the release of its chroot, or to the first one that the mirror has
suite_of()
{
    suite=$(cat "$chroots/$1/etc/audio_cleanup_suite" 2>/dev/null) && return
    find_mirror || return
    for suite in ${suites[$1]:-}; do
        ! timeout 120 /usr/lib/apt/apt-helper download-file "${mirror%/}/dists/$suite/InRelease" "$scratch/$suite" \
            >>"$scratch/apt.log" 2>&1 || return 0
    done
    say "$mirror has no ${suites[$1]:-release with it}"
    return 1
}

# write_in_chroot DIR FILE: from standard input
write_in_chroot()
{
    as_root mkdir -p "$1$(dirname "$2")" && as_root tee "$1$2" >/dev/null
}

# make_chroot NAME SUITE [VERSION]: unless it is there; one that is not finished has another name
make_chroot()
{
    local dir=$chroots/$1

    ! as_root test -e "$dir" || return 0
    find_mirror || return
    say "Making a chroot with Debian $2"
    as_root rm -rf --one-file-system -- "$dir.unfinished" &&
        bootstrap "$dir.unfinished" "$2" && configure "$dir.unfinished" "$2" "${3:-}" &&
        say "$2" | write_in_chroot "$dir.unfinished" /etc/audio_cleanup_suite &&
        as_root mv "$dir.unfinished" "$dir"
}

# bootstrap DIR SUITE: what it mounts is nobody else's, and gone with it.  One script of debootstrap's is for all
# releases, those that it does not know by name, too; experimental is no release, but an addition to sid.
bootstrap()
{
    local script=/usr/share/debootstrap/scripts/sid proxies

    mapfile -t proxies < <(apt-config dump | sed -n 's/^Acquire::\(https\?\)::Proxy "\([^ "]\+\)";$/\1_proxy=\2/p')
    quietly "$scratch/chroot.log" as_root env "${proxies[@]}" timeout -s KILL "$bring_up_seconds" \
        unshare --mount --pid --fork --kill-child \
        debootstrap --variant=minbase --include=sudo,ca-certificates "${2/experimental/sid}" "$1" "$mirror" "$script"
}

# configure DIR SUITE VERSION: what apt is told here about dates and proxies holds there too; services do not start
configure()
{
    apt-config dump | sed -n -E '/^Acquire::(Check-|https?::Proxy)/p' | write_in_chroot "$1" /etc/apt/apt.conf.d/90audio_cleanup
    say force-unsafe-io | write_in_chroot "$1" /etc/dpkg/dpkg.cfg.d/audio_cleanup
    printf '#!/bin/sh\nexit 101\n' | write_in_chroot "$1" /usr/sbin/policy-rc.d
    as_root chmod 755 "$1/usr/sbin/policy-rc.d"
    if [[ $2 == experimental ]]; then
        say "deb $mirror $2 main" | write_in_chroot "$1" /etc/apt/sources.list.d/audio_cleanup.list
        printf '%s\n' "Package: src:postgresql-$3" "Pin: release a=$2" 'Pin-Priority: 600' |
            write_in_chroot "$1" /etc/apt/preferences.d/audio_cleanup
    fi
    as_root chroot "$1" useradd --create-home --shell /bin/bash tester &&
        say 'tester ALL=(ALL) NOPASSWD: ALL' | write_in_chroot "$1" /etc/sudoers.d/tester
}

# in_chroot SECONDS DIR COMMAND...: with processes, mounts and shared memory of its own: when the command ends, or its
# time is over, all is gone.
in_chroot() { in_overlay "$1" '' "${@:2}"; }

# in_overlay SECONDS BASE DIR COMMAND...: BASE, where DIR/upper and DIR/work take what is written, at DIR/root.  The first
# process of a PID namespace takes all others with it, listens to KILL only, and inherits the processes whose parent has
# ended: a shell waits for them, and a program like runuser would leave them as zombies.
in_overlay()
{
    # shellcheck disable=SC2016
    as_root timeout -s KILL "$1" unshare --mount --pid --ipc --fork --kill-child bash -c '
        set -e
        if [[ -z $1 ]]; then
            mount --bind "$2" "$2" && cd "$2"
        else
            mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" && cd "$2/root"
        fi
        mount -t proc proc proc
        mount -t sysfs -o ro sysfs sys 2>/dev/null || true
        mount -t tmpfs -o mode=1777 tmpfs dev/shm
        mount -t tmpfs -o mode=1777 tmpfs run
        status=0
        chroot . env -i LANG=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${@:3}" || status=$?
        exit "$status"
        ' bash "${@:2}" </dev/null
}

# stage DIR: makes the folders of an overlay; it has what its base has not: the names of hosts, and the sources in /tree
stage()
{
    local name

    as_root mkdir -p "$1"/{upper/etc,work,root}
    as_root chmod 755 "$1"/upper{,/etc}
    for name in resolv.conf hosts; do
        write_in_chroot "$1/upper" "/etc/$name" <"/etc/$name"
    done
    copy_tree "$scratch/tree"
    as_root cp -R "$scratch/tree" "$1/upper/tree"
}

# prepare DIR: the sources as the tester's own, in a path with a space; nothing of an earlier call
prepare()
{
    local name home=/home/tester

    for name in resolv.conf hosts; do
        write_in_chroot "$1" "/etc/$name" <"/etc/$name"
    done
    as_root rm -rf --one-file-system -- "$1$home/audio cleanup" &&
        as_root find "$1/tmp" -xdev -mindepth 1 -delete &&
        copy_tree "$scratch/tree" && as_root cp -R "$scratch/tree" "$1$home/audio cleanup" &&
        as_root chroot "$1" chown -R tester: "$home/audio cleanup"
}

# forget DIR: what prepare has put there
forget()
{
    as_root rm -rf --one-file-system -- "$1/home/tester/audio cleanup"
}

# lock_chroot NAME [--shared]: two callers take turns, unless both share it; sets chroot_lock, to be closed
lock_chroot()
{
    as_root mkdir -p "$chroots"
    as_root touch "$chroots/$1.lock"
    exec {chroot_lock}<"$chroots/$1.lock"
    flock "${@:2}" -n "$chroot_lock" || { say "Waiting for another call that uses $chroots/$1" && waited flock "${@:2}" "$chroot_lock"; }
}
