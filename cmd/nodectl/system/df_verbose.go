package system

import (
	"fmt"
	"slices"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/container"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
)

// The columns of system df -v, as docker's.
const (
	dfImages     = `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`
	dfContainers = `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`
	dfVolumes    = `{{.Name}}\t{{.Links}}\t{{.Size}}`
)

// writeVerbose writes each image, container and volume. A template gets all of
// it as one value.
func (u usage) writeVerbose(cli *command.CLI, source string) error {
	if source != "" && !strings.HasPrefix(source, "table") {
		return format.Value(cli.Out, source, map[string]any{"Images": values(u.imageRows()), "Containers": values(container.Rows(u.containers)), "Volumes": values(u.volumeRows())})
	}
	for i, list := range []format.List{
		{Header: dfImagesHeader, Default: dfImages, Rows: u.imageRows()},
		{Header: container.Header, Default: dfContainers, Rows: container.Rows(u.containers)},
		{Header: dfVolumesHeader, Default: dfVolumes, Rows: u.volumeRows()},
	} {
		if i > 0 {
			fmt.Fprintln(cli.Out)
		}
		fmt.Fprintf(cli.Out, "%s space usage:\n\n", []string{"Images", "Containers", "Local Volumes"}[i])
		if err := list.Write(cli.Out); err != nil {
			return err
		}
	}
	return nil
}

// values are rows as their JSON reads.
func values(rows []any) []any {
	out := []any{}
	for _, row := range rows {
		out = append(out, format.Fields(row))
	}
	return out
}

var (
	dfImagesHeader = format.Header{
		"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
		"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
	}
	dfVolumesHeader = format.Header{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
)

// imageRow is an image in system df -v; its methods are the fields of templates.
type imageRow struct {
	img             *nodev1.Image
	shared, unique  int64
	repository, tag string
}

func (u usage) imageRows() []any {
	var rows []any
	for _, img := range u.images {
		r := imageRow{img: img, repository: "<none>", tag: "<none>"}
		if at := slices.IndexFunc(u.store.GetImages(), func(d *nodev1.ImageDiskUsage) bool { return d.GetId() == img.GetId() }); at >= 0 {
			r.shared, r.unique = u.store.GetImages()[at].GetSharedBytes(), u.store.GetImages()[at].GetExclusiveBytes()
		}
		if len(img.GetTags()) > 0 {
			name := image.Familiar(img.GetTags()[0])
			if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
				r.repository, r.tag = name[:i], name[i+1:]
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// Repository is its first name's, and Tag that's tag.
func (r imageRow) Repository() string { return r.repository }

// Tag is that of its first name.
func (r imageRow) Tag() string { return r.tag }

// ID is the image's ID, shortened.
func (r imageRow) ID() string { return format.ID(r.img.GetId(), false) }

// CreatedSince is how long ago it was made.
func (r imageRow) CreatedSince() string { return format.Ago(r.img.GetCreatedAt().AsTime()) }

// Size is what it takes; SharedSize what of it others need too, UniqueSize the
// rest.
func (r imageRow) Size() string { return format.Size(r.shared + r.unique) }

// SharedSize is what other images or containers need too.
func (r imageRow) SharedSize() string { return format.Total(r.shared) }

// UniqueSize is what is had back when it is removed.
func (r imageRow) UniqueSize() string { return format.Total(r.unique) }

// Containers is how many use it.
func (r imageRow) Containers() string { return fmt.Sprint(r.img.GetContainers()) }

// volumeRow is a volume in system df -v; its methods are the fields of templates.
type volumeRow struct{ v *nodev1.Volume }

func (u usage) volumeRows() []any {
	var rows []any
	for _, v := range u.volumes {
		rows = append(rows, volumeRow{v})
	}
	return rows
}

// Name is the volume's name.
func (r volumeRow) Name() string { return r.v.GetName() }

// Links is how many containers use it.
func (r volumeRow) Links() string { return fmt.Sprint(len(r.v.GetUsedBy())) }

// Size is what it takes.
func (r volumeRow) Size() string { return format.Total(max(r.v.GetSize(), 0)) }
