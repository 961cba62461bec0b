package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/imageservice/pack"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// images shows sandboxes the part of an image that a container needs.
type images struct {
	*imageservice.Store
	cfg *Config
}

// ResolveImage finds a local image by ID, unique prefix, tag or digest.
func (i images) ResolveImage(ctx context.Context, ref string) (sandbox.Image, error) {
	image, err := i.Image(ctx, ref)
	if errdefs.IsNotFound(err) {
		image, err = i.Kept(ctx, ref)
	}
	if err != nil {
		return sandbox.Image{}, err
	}
	return sandbox.Image{ID: image.ID, ChainID: image.ChainID, Config: image.Config}, nil
}

// Unpack makes sure that an image's layers are whole where a runtime handler's
// pods have theirs.
func (i images) Unpack(ctx context.Context, imageID, handler string) (snapshots.Opt, error) {
	name := i.cfg.handlerSnapshotter(handler)
	label := snapshots.WithLabels(map[string]string{snapshotter.LabelSnapshotter: name})
	return label, i.Store.Unpack(ctx, imageID, name)
}

// applyLayer unpacks a layer that a checkpoint brought.
func applyLayer(ctx context.Context, r io.ReadCloser, dir string, lowers []string) error {
	below, err := unpack.OpenLowers(lowers)
	if err != nil {
		r.Close()
		return err
	}
	defer unpack.CloseLowers(below)
	_, err = unpack.Apply(ctx, r, unpack.Options{
		Dir: dir, Lowers: func(context.Context) ([]*unpack.Lower, error) { return below, nil },
	})
	return err
}

// packLayer writes the writable layer of a container for a checkpoint.
func packLayer(ctx context.Context, w io.Writer, dir string) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return pack.Tree(ctx, w, root, pack.Options{Layer: true})
}

// mounter mounts what the snapshotter gives.
type mounter struct{}

// Mount mounts a snapshot at target.
func (mounter) Mount(ctx context.Context, mounts []mount.Mount, target string) error {
	return snapshotter.Mount(ctx, mounts, target)
}

// Unmount takes it away; nothing mounted is no error.
func (mounter) Unmount(target string) error { return snapshotter.Unmount(target) }

// networks wires pods to what is configured, and people's to their networks.
type networks struct {
	*network.Manager
	people *userdefined.Manager
}

// Add wires a pod.
func (n networks) Add(ctx context.Context, a network.Attachment) (*network.Result, error) {
	if a.Membership == nil {
		return n.Manager.Add(ctx, a)
	}
	if !a.Membership.Node {
		return n.people.Add(ctx, a)
	}
	result, err := n.Manager.Add(ctx, a)
	if err != nil {
		return nil, err
	}
	if _, err := n.people.Add(ctx, a); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undo.DefaultTimeout)
		defer cancel()
		return nil, errors.Join(err, n.Manager.Del(ctx, a))
	}
	return result, nil
}

// Del takes everything back.
func (n networks) Del(ctx context.Context, a network.Attachment) error {
	if err := n.people.Del(ctx, a.PodID); err != nil {
		return err
	}
	return n.Manager.Del(ctx, a)
}

// GC gives back what belongs to none of keep, and recovers people's networks.
func (n networks) GC(ctx context.Context, keep []network.Attachment) error {
	kept := map[string]bool{}
	for _, a := range keep {
		kept[a.PodID] = true
	}
	// People's first: what hangs over the node's leaves them no time.
	return errors.Join(n.people.Recover(ctx, kept), n.Manager.GC(ctx, keep))
}
