// Package imageconfig makes and changes image configurations: the JSON
// document of the OCI image specification with what docker adds to it.
//
// A document made from another keeps all that this package does not know. A
// change is written as an instruction of a Dockerfile; those that only change
// the configuration are known.
//
// Errors are ErrInvalidArgument.
package imageconfig

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is how containers of an image are run.
type Config struct {
	ocispec.ImageConfig
	// Healthcheck, OnBuild and Shell are docker's.
	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
	OnBuild     []string     `json:"OnBuild,omitempty"`
	Shell       []string     `json:"Shell,omitempty"`
}

// Healthcheck is how a container is found to be healthy.
type Healthcheck struct {
	// Test is empty to inherit, or begins with NONE, CMD or CMD-SHELL.
	Test []string `json:"Test,omitempty"`
	// Zero times and retries are to be inherited.
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// Document is a configuration as a whole. It is for one goroutine.
type Document struct {
	fields map[string]json.RawMessage
	// Image and Config are the parts known; Config is the one written.
	Image  ocispec.Image
	Config Config
}

// New begins a document for a platform.
func New(platform ocispec.Platform) *Document {
	d := &Document{fields: map[string]json.RawMessage{}}
	d.Image.Platform = platform
	d.Image.RootFS.Type = "layers"
	return d
}

// Parse reads a document.
func Parse(raw []byte) (*Document, error) {
	d := &Document{fields: map[string]json.RawMessage{}}
	var known struct {
		Config Config `json:"config"`
	}
	for _, into := range []any{&d.fields, &d.Image, &known} {
		if err := json.Unmarshal(raw, into); err != nil {
			return nil, fmt.Errorf("image configuration: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	d.Config = known.Config
	return d, nil
}

// AddLayer puts a layer on top, with how it came about.
func (d *Document) AddLayer(diffID digest.Digest, step ocispec.History) {
	d.Image.RootFS.DiffIDs = append(d.Image.RootFS.DiffIDs, diffID)
	d.Image.History = append(d.Image.History, step)
	d.Image.Created = step.Created
	d.Image.Author = step.Author
}

// builders are fields that say how docker built an image, and are not true of
// one that is made from it.
var builders = []string{"id", "parent", "container", "container_config", "docker_version", "moby.buildkit.buildinfo.v1", "moby.buildkit.cache.v0"}

// Encode writes the document; the same one always gives the same bytes.
func (d *Document) Encode() ([]byte, error) {
	fields := map[string]any{}
	for name, value := range d.fields {
		fields[name] = value
	}
	for _, name := range builders {
		delete(fields, name)
	}
	known, err := json.Marshal(d.Image)
	if err != nil {
		return nil, err
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(known, &own); err != nil {
		return nil, err
	}
	// A field that is empty now is left out, whatever it was.
	for _, name := range []string{"created", "author", "history", "os.version", "os.features", "variant"} {
		delete(fields, name)
	}
	for name, value := range own {
		fields[name] = value
	}
	fields["config"] = d.Config
	return json.Marshal(fields)
}
