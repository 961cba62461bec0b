package container

import nodev1 "github.com/nodeagent/nodeagent/api/node/v1"

// The types below are docker's forms of --mount.
type (
	mountRequest struct {
		Type          string         `json:",omitempty"`
		Source        string         `json:",omitempty"`
		Target        string         `json:",omitempty"`
		ReadOnly      bool           `json:",omitempty"`
		BindOptions   *bindOptions   `json:",omitempty"`
		VolumeOptions *volumeOptions `json:",omitempty"`
		ImageOptions  *imageOptions  `json:",omitempty"`
		TmpfsOptions  *tmpfsOptions  `json:",omitempty"`
	}
	bindOptions struct {
		Propagation            string `json:",omitempty"`
		NonRecursive           bool   `json:",omitempty"`
		CreateMountpoint       bool   `json:",omitempty"`
		ReadOnlyNonRecursive   bool   `json:",omitempty"`
		ReadOnlyForceRecursive bool   `json:",omitempty"`
	}
	volumeOptions struct {
		NoCopy       bool              `json:",omitempty"`
		Labels       map[string]string `json:",omitempty"`
		Subpath      string            `json:",omitempty"`
		DriverConfig *volumeDriver     `json:",omitempty"`
	}
	volumeDriver struct {
		Name    string            `json:",omitempty"`
		Options map[string]string `json:",omitempty"`
	}
	imageOptions struct {
		Subpath string `json:",omitempty"`
	}
	tmpfsOptions struct {
		SizeBytes int64  `json:",omitempty"`
		Mode      uint32 `json:",omitempty"`
	}
)

// addMounts tells of mounts as they were asked for: with -v, with --tmpfs, or with --mount. Of those of other containers
// VolumesFrom tells, of anonymous ones of -v and of the image the container's configuration.
func addMounts(h *hostConfig, mounts []*nodev1.Mount) {
	for _, m := range mounts {
		switch {
		case m.GetInherited():
		case m.GetDetailed():
			h.Mounts = append(h.Mounts, mountRequestOf(m))
		case m.GetType() == nodev1.Mount_TMPFS:
			if h.Tmpfs == nil {
				h.Tmpfs = map[string]string{}
			}
			h.Tmpfs[m.GetTarget()] = tmpfsText(m)
		case m.GetType() == nodev1.Mount_BIND, m.GetType() == nodev1.Mount_VOLUME && !m.GetAnonymous():
			h.Binds = append(h.Binds, bindText(m))
		}
	}
}

// mountRequestOf is a mount as --mount asked for it.
func mountRequestOf(m *nodev1.Mount) mountRequest {
	r := mountRequest{Source: m.GetSource(), Target: m.GetTarget(), ReadOnly: m.GetReadOnly()}
	for word, kind := range mountTypes {
		if kind == m.GetType() {
			r.Type = word
		}
	}
	switch m.GetType() {
	case nodev1.Mount_BIND:
		options := bindOptions{
			Propagation: m.GetPropagation(), NonRecursive: m.GetNonRecursive(), CreateMountpoint: m.GetCreateSource(),
			ReadOnlyNonRecursive: m.GetReadOnlyNonRecursive(), ReadOnlyForceRecursive: m.GetReadOnlyForceRecursive(),
		}
		r.BindOptions = unlessZero(options)
	case nodev1.Mount_VOLUME:
		r.VolumeOptions = volumeOptionsOf(m)
		if m.GetAnonymous() {
			r.Source = ""
		}
	case nodev1.Mount_IMAGE:
		r.ImageOptions = unlessZero(imageOptions{Subpath: m.GetSubpath()})
	case nodev1.Mount_TMPFS:
		r.TmpfsOptions = unlessZero(tmpfsOptions{SizeBytes: m.GetTmpfsSize(), Mode: m.GetTmpfsMode()})
	}
	return r
}

// volumeOptionsOf are what a volume is made with; nil for none.
func volumeOptionsOf(m *nodev1.Mount) *volumeOptions {
	options := volumeOptions{NoCopy: m.GetNoCopy(), Labels: m.GetVolumeLabels(), Subpath: m.GetSubpath()}
	if m.GetVolumeDriver() != "" || len(m.GetVolumeOptions()) > 0 {
		options.DriverConfig = &volumeDriver{Name: m.GetVolumeDriver(), Options: m.GetVolumeOptions()}
	}
	if !options.NoCopy && len(options.Labels) == 0 && options.Subpath == "" && options.DriverConfig == nil {
		return nil
	}
	return &options
}

// unlessZero is a pointer to a value, and nil where there is nothing in it.
func unlessZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
