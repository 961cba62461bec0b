package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// cleanupTimeout bounds the whole of a clean-up.
const cleanupTimeout = 2 * time.Minute

// newCleanupCommand is "nodeagent cleanup".
func newCleanupCommand(flags *flagValues) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "With the agent stopped, end every pod and take away what the agent made",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), cleanupTimeout)
			defer cancel()
			return cleanup(ctx, cfg, purge)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove root and state too, with all images")
	return cmd
}

// cleanup builds the parts below the servers, which finds everything again,
// ends all pods through them, and then takes the parts themselves away. Of an
// agent that runs it fails, at the lock. What is gone already is no error.
func cleanup(ctx context.Context, cfg Config, purge bool) error {
	if _, err := os.Stat(cfg.State); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(cfg.Root); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	d := &daemon{cfg: cfg}
	err := d.build(ctx, d.mechanisms())
	if err == nil {
		err = d.takeAway(ctx)
	}
	if stopErr := d.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	if err := unmountBelow(cfg.State); err != nil {
		return err
	}
	if !purge {
		return nil
	}
	return errors.Join(unmountBelow(cfg.Root), os.RemoveAll(cfg.State), os.RemoveAll(cfg.Root))
}

// takeAway ends all pods, then what they shared.
func (d *daemon) takeAway(ctx context.Context) error {
	for _, pod := range d.sandboxes.Pods() {
		if err := d.sandboxes.RemovePod(ctx, pod.ID); err != nil {
			return err
		}
	}
	if err := d.people.Cleanup(ctx); err != nil {
		return err
	}
	if err := d.network.Cleanup(ctx); err != nil {
		return err
	}
	// The cgroup goes last, once the supervisor is out of it.
	d.stops = slices.Insert(d.stops, 0, func(ctx context.Context) error { return d.cgroups.Remove(ctx, d.cfg.CgroupParent) })
	// Who misses the supervisor would start another one.
	if err := d.closeSandboxes(); err != nil {
		return err
	}
	return d.supervisor.Shutdown(ctx)
}

// unmountBelow takes away what is still mounted in folder, deepest first.
func unmountBelow(folder string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(folder))
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", folder, err)
	}
	slices.SortFunc(mounts, func(a, b *mountinfo.Info) int {
		return strings.Count(b.Mountpoint, "/") - strings.Count(a.Mountpoint, "/")
	})
	for _, m := range mounts {
		logrus.WithField("path", m.Mountpoint).Warn("unmount what was left")
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}
