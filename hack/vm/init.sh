#!/bin/busybox sh
# The machine's first process, and the jobs, which are a service where systemd is to be the first. The kernel's own
# first file system cannot be pivoted away from, as containers must, so everything moves to a tmpfs before.
case $1 in
jobs)
	export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp NODEAGENT_TEST_REQUIRE=yes NODEAGENT_TEST_MACHINE=yes
	for job in /jobs/*; do
		echo "vm: begin ${job##*/}"
		sh "$job" </dev/null 2>&1
		echo "vm: end ${job##*/} $?"
	done
	echo "vm: done"
	exit
	;;
moved) ;;
*)
	/bin/busybox mkdir /new
	/bin/busybox mount -t tmpfs -o mode=755,size=80% tmpfs /new
	for entry in /*; do
		[ "$entry" = /new ] || /bin/busybox cp -a "$entry" /new/
	done
	exec /bin/busybox switch_root /new /init moved
	;;
esac

export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var /etc
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
chmod 1777 /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
while read -r module; do
	insmod "/modules/$module" || echo "vm: $module was not loaded"
done </modules/order
hostname machine
ip link set lo up
ln -s /run /var/run
dmesg -n 1

if [ -e /systemd ]; then
	# It mounts the cgroups itself.
	exec /lib/systemd/systemd --unit=jobs.service --show-status=false --log-target=kmsg
fi
mount -t cgroup2 cgroup2 /sys/fs/cgroup
sh /init jobs
poweroff -f
