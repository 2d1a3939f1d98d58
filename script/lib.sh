# shellcheck shell=bash
#
# lib.sh: what the scripts share.
#
# PostgreSQL does not run as root, and a checkout is not another user's to
# write in.  So the scripts copy the tree into a folder of their own, build it
# there as whoever called them, install it as root (through sudo if need be;
# script/test into a copy of the server), hand the copy to the OS user postgres, and run servers and tests as that user
# in an environment made from nothing: no PG* and no UPLOAD_DIR leaks in.
#
# To be sourced after "set -euo pipefail".

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
scratch=                        # the caller's own folder, made by make_scratch
pg_config=${PG_CONFIG:-}        # set by choose_server
pg_major=                       # the same; empty: not a server of Debian's
lists_fresh=
child=                          # what waited() runs
not_offered=()                  # packages that apt does not have for this server
unset "${!PG@}"                 # PGHOST and its like are about the caller's own servers
umask 022                       # what is made here, the OS user postgres has to read

say() { printf '%s\n' "$*"; }

die()
{
    printf '%s: %s\n' "script/${0##*/}" "$*" >&2
    exit 1
}

# the comment at the head of the script
usage() { sed -n '3,/^set /s/^#\( \|$\)//p' "$0"; }

# at_exit COMMAND: at the end, by whatever signal, and with the status as its argument
at_exit()
{
    # shellcheck disable=SC2064
    trap "leave $1" EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

leave()
{
    local status=$?

    trap - EXIT
    trap '' HUP INT TERM
    stop_process "$child"
    "$1" "$status"
    exit "$status"
}

as_root()
{
    if ((EUID == 0)); then
        "$@"
    else
        command -v sudo >/dev/null || die "neither root nor sudo: cannot run $1"
        sudo -- "$@"
    fi
}

# as_postgres DIR COMMAND...: in DIR, which is its home too, so that no ~/.psqlrc or ~/.pgpass has a say, and the place
# for its temporary files, so that nothing is left in /tmp if it is killed
as_postgres()
{
    local dir=$1
    shift
    local clean=(env -i -C "$dir" HOME="$dir" TMPDIR="$dir" USER=postgres LOGNAME=postgres LANG=C.UTF-8
        PATH="$(pg_bindir):/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@")

    # a server goes on when we have ended, and must not keep our turn
    if ((EUID == 0)); then
        runuser -u postgres -- "${clean[@]}" 9<&-
    else
        command -v sudo >/dev/null || die "neither root nor sudo: cannot become postgres"
        sudo -u postgres -- "${clean[@]}" 9<&-
    fi
}

pg_bindir() { dirname "$pg_config"; }

# waited COMMAND...: so that a signal need not wait for its end
waited()
{
    local status=0

    "$@" &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

# quietly LOG COMMAND...: output only if it fails
quietly()
{
    local log=$1
    shift
    waited "$@" >>"$log" 2>&1 && return
    printf '\nThis failed: %s\n' "$*" >&2
    tail -n 60 "$log" >&2
    return 1
}

# ---- packages ----

# apt-get update does not wait for another one, whatever DPkg::Lock::Timeout says; and it is content with lists of which
# some could not be had.  The network may be away for a moment, so the first three failures are not believed.  A source of
# packages that never answers is not ours to judge.
refresh_package_lists()
{
    local try failures=0 all=(-o APT::Update::Error-Mode=any)

    [[ -z $lists_fresh ]] || return 0
    for try in {1..300}; do
        as_root env LC_ALL=C apt-get -q "${all[@]}" update >"$scratch/update.log" 2>&1 && lists_fresh=yes && return
        if ! grep -q 'Could not get lock' "$scratch/update.log"; then
            ((++failures < 4)) || break
            ((failures < 3)) || all=()
        fi
        sleep 2
    done
    say "apt-get update failed ($try times):" >&2
    tail -n 20 "$scratch/update.log" >&2
    return 1
}

# All the scripts' make and apt output goes into logs here; and programs that are run.
make_scratch()
{
    local tmp=${AUDIO_CLEANUP_TMP:-/tmp}

    # names of sockets in there have room for 107 bytes
    [[ $tmp == /* && ${#tmp} -le 20 ]] || die "AUDIO_CLEANUP_TMP must be an absolute path of 20 bytes at most"
    scratch=$(mktemp -d "${tmp%/}/audio_cleanup.${0##*/}.XXXXXX")
    chmod 755 "$scratch"
    cp /bin/true "$scratch/true"
    "$scratch/true" 2>/dev/null || die "$tmp does not let programs be executed: set AUDIO_CLEANUP_TMP to another folder"
}

# Where none was made there is none to remove.
remove_scratch()
{
    case $scratch in
        */audio_cleanup.*.??????) as_root rm -rf -- "$scratch" ;;
    esac
}

# by its English words, whatever the language of this machine is
offered() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [0-9] ]]; }

# Sets pg_config and pg_major.  A server that is there wins over a newer one that could be.
choose_server()
{
    local n

    command -v apt-get >/dev/null ||
        die "this script sets up Debian and its kin; elsewhere: make && make install && make installcheck"

    if [[ -n $pg_config ]]; then
        pg_config=$(command -v "$pg_config" || printf '%s' "$pg_config")
        [[ $pg_config == /usr/bin/pg_config ]] && pg_config=$(pg_config --bindir)/pg_config
        [[ $pg_config =~ ^/usr/lib/postgresql/([0-9]+)/bin/pg_config$ ]] && pg_major=${BASH_REMATCH[1]}
        [[ -n $pg_major || -x $pg_config ]] || die "PG_CONFIG=$pg_config cannot be run"
        return
    fi

    for n in 19 18 17 16 15; do
        [[ ! -x /usr/lib/postgresql/$n/bin/postgres ]] || { pg_major=$n; break; }
    done
    if [[ -z $pg_major ]]; then
        refresh_package_lists
        for n in 19 18 17 16 15; do
            ! offered "postgresql-server-dev-$n" || { pg_major=$n; break; }
        done
    fi
    [[ -n $pg_major ]] || die "no PostgreSQL 15 to 19 is installed or offered by apt; set PG_CONFIG"
    pg_config=/usr/lib/postgresql/$pg_major/bin/pg_config
}

# packages_for SCRIPT-OR-TEST...: what of script/packages is for them; with a server from elsewhere, not Debian's
packages_for()
{
    local package comment reader readers=" $* "

    while IFS='#' read -r package comment; do
        package=${package//[[:space:]]/}
        [[ -n $package && ( $package != *-NN* || -n $pg_major ) ]] || continue
        for reader in ${comment%%:*}; do
            [[ $readers != *" $reader "* ]] || { say "${package/-NN/-$pg_major}" && break; }
        done
    done <"$root/script/packages"
}

installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# apt_install ARGUMENT...: waits for another apt, which on a new machine updates all of it, and for the network
apt_install()
{
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y -o DPkg::Lock::Timeout=900 -o Acquire::Retries=6 install --no-install-recommends "$@" </dev/null
}

# A new server package would create and start a cluster "main".  Nobody asked for one: it is told not to, for as
# long as this takes.  Clusters that exist are none of our business.  A signal ends the download, and waits for the end
# of what dpkg must not be disturbed at.
install_without_main_cluster()
{
    local setting=/etc/postgresql-common/createcluster.d/audio_cleanup.conf

    quietly "$scratch/apt.log" apt_install --download-only "$@"
    (
        trap 'as_root rm -f "$setting" && as_root rmdir --ignore-fail-on-non-empty "${setting%/*}"' EXIT
        as_root mkdir -p "${setting%/*}"
        say 'create_main_cluster = false' | as_root tee "$setting" >/dev/null
        apt_install "$@" >>"$scratch/apt.log" 2>&1 || { tail -n 60 "$scratch/apt.log" >&2 && exit 1; }
    )
}

# install_missing SCRIPT-OR-TEST...: installs what is missing; a package that apt does not have is left out, and what
# cannot do without it fails
install_missing()
{
    local package missing=() here=()

    for package in $(packages_for "$@"); do
        installed "$package" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    refresh_package_lists
    for package in "${missing[@]}"; do
        if offered "$package"; then
            here+=("$package")
        else
            not_offered+=("$package")
            say "apt does not offer $package"
        fi
    done
    ((${#here[@]} > 0)) || return 0
    say "Installing packages: ${here[*]}"
    install_without_main_cluster "${here[@]}"
}

# install_packages SCRIPT-OR-TEST...: chooses the server, and installs what is missing
install_packages()
{
    choose_server
    install_missing "$@"
    [[ -x $pg_config ]] || die "$pg_config is missing"
    # it comes with Debian's server, and not with one from elsewhere
    id postgres >/dev/null 2>&1 || die 'servers run as the OS user postgres, and there is none: useradd --system postgres'
}

# ---- building ----

# copy_tree DIR: the sources as they are, nothing that was built
copy_tree()
{
    mkdir -p "$1"
    tar -C "$root" -cf - --exclude-vcs --exclude='*.o' --exclude='*.bc' --exclude='*.so' --exclude='./src/*/*.inc' \
        --exclude='./*--*--*.sql' --exclude=./exports.list --exclude=./results --exclude=./output_iso --exclude=./log --exclude='./tmp_check*' --exclude='./regression.*' --exclude=./unit/.flags . |
        tar -C "$1" --no-same-owner -xf -
    chmod -R u+rwX,go+rX "$1"
}

# take_turn: what is installed into a server, another call must not replace before we have ended; descriptor 9 holds our turn
take_turn()
{
    local libraries
    libraries=$("$pg_config" --pkglibdir)

    exec 9<"$libraries"
    flock -n 9 || { say "Waiting for another call that uses $libraries" && waited flock 9; }
}

# build_and_install [MAKE-ARGUMENT...]: in $scratch/build, as whoever called
build_and_install()
{
    local build=$scratch/build

    copy_tree "$build"
    quietly "$scratch/build.log" env -u MAKEFLAGS -u MAKELEVEL LC_ALL=C.UTF-8 TMPDIR="$scratch" \
        make -s -C "$build" -j"$(nproc)" PG_CONFIG="$pg_config" "$@"
    take_turn
    quietly "$scratch/build.log" as_root make -s -C "$build" install install-old PG_CONFIG="$pg_config" "$@"
}

# copy_server: in $scratch; pg_config is the copy's from now on, as a server looks for its files from where it lies.  So
# the server of this machine stays what it is, whoever else builds or tests beside us.
copy_server()
{
    local kind paths=() library

    for kind in bindir pkglibdir sharedir includedir-server; do
        paths+=("$("$pg_config" "--$kind")")
    done
    for library in "$("$pg_config" --libdir)"/lib{pgcommon,pgport}.a; do
        [[ ! -e $library ]] || paths+=("$library")
    done
    waited copy_files "$scratch/server" "${paths[@]#/}"
    # what somebody has installed there is not what is to be tested
    find "$scratch/server" -name 'audio_cleanup*' -type f -delete
    pg_config=$scratch/server$pg_config
}

# copy_files TO PATH...: with all folders above them
copy_files()
{
    mkdir "$1"
    tar -C / -cf - "${@:2}" | tar -C "$1" --no-same-owner -xf -
}

# ---- the campaign ----

# torture OPTION...: test/torture.py in a folder of its own below $scratch, which must have been built
torture()
{
    local folder
    folder=$(as_root mktemp -d "$scratch/torture.XXXXXX")
    as_root chown postgres "$folder"
    as_postgres "$folder" /usr/bin/python3 "$scratch/build/test/torture.py" --bindir "$(pg_bindir)" --folder "$folder" "$@"
}

# ---- leaving nothing behind ----

# stop_servers_in DIR: whose data directories are below it
stop_servers_in()
{
    local pidfile

    as_root find "$1" -name postmaster.pid -type f -print0 2>/dev/null |
        while IFS= read -r -d '' pidfile; do
            as_postgres / pg_ctl stop -s -m immediate -D "${pidfile%/*}" </dev/null >/dev/null 2>&1 || true
        done
}

# stop_process PID: and all below it, with five seconds to clean up
stop_process()
{
    local pid pids try

    [[ -n $1 ]] || return 0
    mapfile -t pids < <(descendants "$1" && say "$1")
    send TERM "${pids[@]}"
    for try in {1..25}; do
        for pid in "${pids[@]}"; do
            # a process that has ended but was not waited for has no command line
            ! grep -qs . "/proc/$pid/cmdline" || { sleep 0.2 && continue 2; }
        done
        return 0
    done
    say "after $try looks some processes still run: killing them" >&2
    mapfile -t pids < <(descendants "$1" && printf '%s\n' "$1" "${pids[@]}")
    send KILL "${pids[@]}"
}

# send SIGNAL PID...: by the shell's own kill, as a minimal system has no program of that name for sudo
send() { as_root bash -c 'kill "$@"' bash "-$1" "${@:2}" 2>/dev/null || true; }

# descendants PID: every process below it, children first
descendants()
{
    local child children=()

    IFS=' ' read -r -a children 2>/dev/null <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do
        descendants "$child"
        say "$child"
    done
}
