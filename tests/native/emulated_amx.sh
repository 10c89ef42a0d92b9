#!/bin/sh
# Runs a static program on an emulated Sapphire Rapids, for AVX-512 and AMX where no processor has them:
#   tests/native/emulated_amx.sh PROGRAM [ARGUMENT...]
# Its output comes here, its exit status is the command's (125: the machine did not come up).
# Bochs boots Linux from a CD image with the program and busybox in its initramfs; about 25 s, then
# some 100 million instructions a second, one thread: this shows what is right, never what is fast.
#
# Needs Linux >= 6.15 (vmlinuz; 7.2 does not come up on Bochs 3.0), Bochs >= 3.0, static busybox, genisoimage, isolinux
# and a C compiler. Debian 13: bochs bochsbios vgabios busybox-static genisoimage isolinux syslinux-common, and a kernel
# of its backports; packages that are unpacked, not installed, do. Found in their usual places, or named: KERNEL, BOCHS,
# BUSYBOX, ISOLINUX (folder of isolinux.bin and ldlinux.c32), BXSHARE (folder of Bochs' BIOS), MEMORY (MiB), TIMEOUT (s).
#
# Bochs has no XFD, by which Linux hands out AMX state lazily. `setcpuid=324` makes Linux believe in
# it; tiles are then not saved when threads change places, and a tile instruction that follows is an
# illegal one. So the program runs in real time, without a watchdog: nothing takes its place.
set -eu

lost() { echo "emulated_amx: $1" >&2; exit 125; }
first() { for f; do [ -e "$f" ] && { echo "$f"; return; }; done; return 1; }

[ $# -ge 1 ] || lost "no program is given"
[ -x "$1" ] || lost "$1 cannot be executed"
BOCHS=${BOCHS:-$(command -v bochs || echo)}
[ -n "$BOCHS" ] || lost "no bochs; name it in BOCHS"
KERNEL=${KERNEL:-$(first /boot/vmlinuz-* || echo)}
[ -r "$KERNEL" ] || lost "no kernel image '$KERNEL'; name one in KERNEL"
BUSYBOX=${BUSYBOX:-$(command -v busybox || echo)}
[ -x "$BUSYBOX" ] || lost "no busybox; name a static one in BUSYBOX"
ISO=$(command -v genisoimage || command -v mkisofs) || lost "no genisoimage"
BXSHARE=${BXSHARE:-/usr/share/bochs}
LOADER=$(first "${ISOLINUX:-/usr/lib/ISOLINUX}/isolinux.bin") || lost "no isolinux.bin; name its folder in ISOLINUX"
MODULE=$(first "${ISOLINUX:-/usr/lib/syslinux/modules/bios}/ldlinux.c32") || lost "no ldlinux.c32; name its folder in ISOLINUX"

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || :; rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/root/bin" "$work/root/proc" "$work/root/dev" "$work/cd/isolinux"

# The initramfs: the program, its arguments one a line, and an init that runs it on the serial port.
cp "$1" "$work/root/program"
cp "$BUSYBOX" "$work/root/bin/busybox"
shift
: >"$work/root/arguments"
for argument; do printf '%s\n' "$argument" >>"$work/root/arguments"; done
cat >"$work/realtime.c" <<'END'
#include <sched.h>
#include <unistd.h>
int main(int argc, char** argv) {
  const struct sched_param first = {.sched_priority = 99};
  if (argc < 2 || sched_setscheduler(0, SCHED_FIFO, &first)) return 127;
  execv(argv[1], argv + 1);
  return 127;
}
END
"${CC:-cc}" -static "$work/realtime.c" -o "$work/root/realtime" || lost "no program can be compiled; name a C compiler in CC"
cat >"$work/root/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
/bin/busybox stty -onlcr <&1
set --
while read -r argument; do set -- "$@" "$argument"; done </arguments
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
echo "[program starts]"
/realtime /program "$@"
echo "[program ends with $?]"
exec /bin/busybox sleep 1000000
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | "$BUSYBOX" cpio -o -H newc 2>"$work/cpio.log" | gzip -1 >"$work/cd/isolinux/initrd")

# The CD, and a machine without what Bochs' own ACPI and HPET get wrong.
cp "$KERNEL" "$work/cd/isolinux/kernel"
cp "$LOADER" "$MODULE" "$work/cd/isolinux"
cat >"$work/cd/isolinux/isolinux.cfg" <<'END'
default linux
prompt 0
label linux
kernel kernel
append initrd=initrd console=ttyS0 quiet nokaslr mitigations=off acpi=off hpet=disable tsc=unstable nowatchdog setcpuid=324
END
"$ISO" -quiet -o "$work/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
  -no-emul-boot -boot-load-size 4 -boot-info-table "$work/cd"
cat >"$work/bochsrc" <<END
memory: guest=${MEMORY:-512}, host=${MEMORY:-512}
romimage: file=$BXSHARE/BIOS-bochs-latest
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
cpu: model=sapphire_rapids, count=1, ips=200000000, ignore_bad_msrs=1
pci: enabled=1, chipset=i440fx
ata0-master: type=cdrom, path=$work/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
display_library: rfb, options="timeout=0"
clock: sync=none
log: $work/bochs.log
panic: action=fatal
END

# Until the program ends, the machine dies, or time is up.
: >"$work/serial"
"$BOCHS" -q -f "$work/bochsrc" >"$work/bochs.out" 2>&1 &
pid=$!
left=${TIMEOUT:-3600}
until grep -aqE '^\[program ends|Kernel panic' "$work/serial" || ! kill -0 "$pid" 2>/dev/null || [ "$left" -le 0 ]; do
  sleep 1
  left=$((left - 1))
done
sed '1,/^\[program starts\]/d; /^\[program ends/,$d' "$work/serial"
status=$(sed -n 's/^\[program ends with \([0-9]*\)\].*/\1/p' "$work/serial")
[ -n "$status" ] || { tail -n 20 "$work/serial" "$work/bochs.out" >&2; lost "the program did not end"; }
exit "$status"
