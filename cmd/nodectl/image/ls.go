package image

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

const none = "<none>"

// listFlags are the flags of images.
type listFlags struct {
	all, quiet, noTrunc, digests, tree bool
	format                             string
	filters                            []string
}

// NewList is `nodectl images`, and with the name "ls" `nodectl image ls`.
func NewList(cli *command.CLI, name string) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:   name + " [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Args:  command.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "" {
				flags.filters = append(flags.filters, "reference="+args[0])
			}
			shown, err := flags.run(cmd.Context(), cli)
			if err == nil && shown == 0 && len(args) == 1 && name == "images" && slices.Contains(verbs, args[0]) {
				fmt.Fprintf(cli.Err, "No images found matching %q: did you mean \"nodectl image %[1]s\"?\n", args[0])
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all images (default hides those without a tag that no container uses)")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only show image IDs")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVar(&flags.digests, "digests", false, "Show digests")
	f.BoolVar(&flags.tree, "tree", false, "List each image with its platform below it")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	command.AddFilter(f, &flags.filters, "f", "Filter output based on conditions provided")
	return cmd
}

// verbs are commands below image that people ask images for by mistake.
var verbs = []string{"build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag"}

// run prints the list and says how many images are in it.
func (f *listFlags) run(ctx context.Context, cli *command.CLI) (shown int, err error) {
	table, err := f.wantsTable()
	if err != nil {
		return 0, err
	}
	filters, err := command.ParseFilters(f.filters, "dangling", "label", "before", "since", "reference", "until")
	if err != nil {
		return 0, err
	}
	client, err := cli.Images()
	if err != nil {
		return 0, err
	}
	resp, err := client.List(ctx, &nodev1.ListImagesRequest{})
	if err != nil {
		return 0, err
	}
	chosen, err := choose(resp.GetImages(), filters)
	if err != nil {
		return 0, err
	}
	// The view has nothing to tell images without a tag apart by, so where they
	// alone are wanted they are shown in the table.
	dangling, _, _ := filters.Bool("dangling") // choose has read it
	if !f.all && !dangling {
		chosen = slices.DeleteFunc(chosen, func(img *nodev1.Image) bool { return len(img.GetTags()) == 0 && img.GetContainers() == 0 })
	}
	if !table && !f.tree && f.format == "" && !f.quiet {
		f.format = cli.DockerConfig().ImagesFormat
	}
	if table || f.format != "" || dangling && !f.tree {
		return len(chosen), f.writeTable(cli, chosen, filters)
	}
	return len(chosen), newView(cli.Out, chosen, filters["reference"], f.tree).write()
}

// wantsTable says whether a flag was given that only the table of columns has.
func (f *listFlags) wantsTable() (bool, error) {
	for _, flag := range []struct {
		name string
		set  bool
	}{{"quiet", f.quiet}, {"no-trunc", f.noTrunc}, {"digests", f.digests}, {"format", f.format != ""}} {
		if flag.set && f.tree {
			return false, fmt.Errorf("--%s is not yet supported with --tree", flag.name)
		}
		if flag.set {
			return true, nil
		}
	}
	return false, nil
}

// writeTable writes images in columns, or by a template.
func (f *listFlags) writeTable(cli *command.CLI, chosen []*nodev1.Image, filters command.Filters) error {
	list := format.List{Format: f.format, Header: listHeader, Default: `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`}
	if f.digests {
		list.Default = `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	}
	if f.quiet {
		list.Format = "{{.ID}}"
	}
	for _, img := range chosen {
		for _, row := range rows(img, filters["reference"], f.noTrunc) {
			list.Rows = append(list.Rows, row)
			if f.quiet {
				break // an ID once
			}
		}
	}
	return list.Write(cli.Out)
}

// choose leaves out what was not asked for.
func choose(all []*nodev1.Image, filters command.Filters) ([]*nodev1.Image, error) {
	var before, since time.Time
	for name, bound := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, value := range filters[name] {
			i := slices.IndexFunc(all, func(img *nodev1.Image) bool { return named(img, value) })
			if i < 0 {
				return nil, fmt.Errorf("No such image: %s", Familiar(value))
			}
			*bound = all[i].GetCreatedAt().AsTime()
		}
	}
	for _, value := range filters["until"] {
		until, err := command.ParseTime(value)
		if err != nil {
			return nil, err
		}
		if t := until.AsTime(); before.IsZero() || t.Before(before) {
			before = t
		}
	}
	dangling, given, err := filters.Bool("dangling")
	if err != nil {
		return nil, err
	}
	var out []*nodev1.Image
	for _, img := range all {
		created := img.GetCreatedAt().AsTime()
		if filters.Labels(img.GetLabels()) && (before.IsZero() || created.Before(before)) && (since.IsZero() || created.After(since)) &&
			(!given || dangling == (len(img.GetTags()) == 0)) &&
			filters.Any("reference", func(v string) bool {
				return slices.ContainsFunc(img.GetTags(), func(tag string) bool { return matches(tag, v) })
			}) {
			out = append(out, img)
		}
	}
	return out, nil
}

// named says whether a name or an ID means an image.
func named(img *nodev1.Image, name string) bool {
	if prefix := strings.TrimPrefix(name, "sha256:"); prefix != "" && strings.HasPrefix(strings.TrimPrefix(img.GetId(), "sha256:"), prefix) {
		return true
	}
	ref, err := reference.ParseDockerRef(name)
	return err == nil && (slices.Contains(img.GetTags(), ref.String()) || slices.Contains(img.GetDigests(), ref.String()))
}

// matches says whether a tag matches a pattern, with its tag or without.
func matches(tag, pattern string) bool {
	ref, err := reference.ParseNormalizedNamed(tag)
	if err != nil {
		return false
	}
	for _, text := range []string{reference.FamiliarString(ref), reference.FamiliarName(ref), ref.String(), ref.Name()} {
		if ok, err := path.Match(pattern, text); ok && err == nil {
			return true
		}
	}
	return false
}

// rows are an image's lines: one for each tag that was asked for, or one
// without a tag.
func rows(img *nodev1.Image, patterns []string, whole bool) []row {
	digests, untagged := map[string]string{}, none
	for _, text := range img.GetDigests() {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			if d, ok := ref.(reference.Digested); ok {
				untagged = reference.FamiliarName(ref)
				digests[untagged] = d.Digest().String()
			}
		}
	}
	var out []row
	for _, text := range img.GetTags() {
		wanted := len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return matches(text, p) })
		ref, err := reference.ParseNormalizedNamed(text)
		tagged, ok := ref.(reference.Tagged)
		if err == nil && ok && wanted {
			name := reference.FamiliarName(ref)
			out = append(out, row{img: img, repository: name, tag: tagged.Tag(), digest: cmp.Or(digests[name], none), whole: whole})
		}
	}
	if len(out) == 0 && len(img.GetTags()) == 0 {
		out = append(out, row{img: img, repository: untagged, tag: none, digest: cmp.Or(digests[untagged], none), whole: whole})
	}
	return out
}

// listHeader are the headers of images.
var listHeader = format.Header{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
	"CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "VIRTUAL SIZE",
}

// row is an image as images shows it; its methods are the fields of templates.
type row struct {
	img                     *nodev1.Image
	repository, tag, digest string
	whole                   bool
}

// ID is the image's ID, shortened unless asked for whole.
func (r row) ID() string { return format.ID(r.img.GetId(), r.whole) }

// Repository is the name without its tag.
func (r row) Repository() string { return r.repository }

// Tag is the tag.
func (r row) Tag() string { return r.tag }

// Digest is that of the manifest in its registry.
func (r row) Digest() string { return r.digest }

// CreatedSince is how long ago the image was made.
func (r row) CreatedSince() string {
	if r.img.GetCreatedAt() == nil {
		return "N/A"
	}
	return format.Ago(r.img.GetCreatedAt().AsTime())
}

// CreatedAt is when the image was made.
func (r row) CreatedAt() string {
	if r.img.GetCreatedAt() == nil {
		return "N/A"
	}
	return format.Time(r.img.GetCreatedAt().AsTime())
}

// Size is what the image takes on the disk.
func (r row) Size() string { return format.Size(diskUsage(r.img)) }

// VirtualSize is Size: a name of it that older scripts use.
func (r row) VirtualSize() string { return r.Size() }

// Containers is how many containers use the image.
func (r row) Containers() string { return strconv.FormatInt(r.img.GetContainers(), 10) }

// SharedSize and UniqueSize are not told here; `system df -v` has them.
func (r row) SharedSize() string { return notTold }

// UniqueSize is not told here either.
func (r row) UniqueSize() string { return notTold }

// notTold stands for what a list does not tell.
const notTold = "N/A"
