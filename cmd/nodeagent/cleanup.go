package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	for _, folder := range []string{cfg.State, filepath.Join(cfg.Root, "volumes")} {
		if err := unmountBelow(folder); err != nil {
			return err
		}
	}
	if !purge {
		return nil
	}
	return errors.Join(removeFolder(cfg.State), removeFolder(cfg.Root))
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

// removeFolder removes a folder and what is in it. One that is a symbolic link,
// or has a file system mounted on it, was made by somebody else: it is emptied.
func removeFolder(folder string) error {
	// A volume may be a folder of the host, so nothing is removed before all
	// of them are unmounted.
	if err := unmountBelow(folder); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(folder, entry.Name())))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	info, lerr := os.Lstat(folder)
	if err = errors.Join(err, lerr); err != nil || !info.IsDir() {
		return err
	}
	if err := os.Remove(folder); !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// unmountBelow takes away what is still mounted below folder, and nothing that
// is mounted on the folder itself.
func unmountBelow(folder string) error {
	real, err := filepath.EvalSymlinks(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", folder, err)
	}
	for {
		mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
			return !strings.HasPrefix(m.Mountpoint, real+"/"), false
		})
		if err != nil {
			return fmt.Errorf("list mounts below %s: %w", folder, err)
		}
		if len(mounts) == 0 {
			return nil
		}
		if err := unmountAll(mounts); err != nil {
			return err
		}
	}
}

// unmountAll takes mounts away, the deepest first. It fails when it can do so
// with none of them: one may be hidden by another, and has its turn later.
func unmountAll(mounts []*mountinfo.Info) error {
	slices.SortFunc(mounts, func(a, b *mountinfo.Info) int {
		return strings.Count(b.Mountpoint, "/") - strings.Count(a.Mountpoint, "/")
	})
	var first error
	gone := 0
	for _, m := range mounts {
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			logrus.WithField("path", m.Mountpoint).Warn("unmounted what was left")
			gone++
		} else if first == nil {
			first = fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	if gone > 0 {
		return nil
	}
	return first
}
