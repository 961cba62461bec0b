package image

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The types below have docker's names, which templates use.
type (
	inspected struct {
		ID           string `json:"Id"`
		RepoTags     []string
		RepoDigests  []string
		Comment      string
		Created      string
		Author       string
		Config       imageConfig
		Architecture string
		Variant      string `json:",omitempty"`
		Os           string
		OsVersion    string `json:",omitempty"`
		Size         int64
		RootFS       rootFS
		Metadata     metadata
		Descriptor   descriptor
	}
	imageConfig struct {
		User         string
		ExposedPorts map[string]struct{} `json:",omitempty"`
		Env          []string
		Cmd          []string
		Volumes      map[string]struct{} `json:",omitempty"`
		WorkingDir   string
		Entrypoint   []string
		Labels       map[string]string
		StopSignal   string `json:",omitempty"`
		// What follows is docker's, and shown as it is written.
		Healthcheck any      `json:",omitempty"`
		OnBuild     []string `json:",omitempty"`
		Shell       []string `json:",omitempty"`
	}
	rootFS struct {
		Type   string
		Layers []string
	}
	metadata struct {
		LastTagTime string
	}
	descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
)

// Inspect returns an image as docker's inspect shows it, a value that encodes
// to JSON with docker's names.
func Inspect(ctx context.Context, cli *command.CLI, name, platform string) (any, error) {
	client, err := cli.Images()
	if err != nil {
		return nil, err
	}
	info, err := client.Inspect(ctx, &nodev1.InspectImageRequest{Image: name, Platform: platform})
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(info.GetConfig(), &config); err != nil {
		return nil, fmt.Errorf("decode configuration of image %s: %w", name, err)
	}
	out := inspection(info, config)
	var more struct {
		Config struct {
			Healthcheck    any
			OnBuild, Shell []string
		} `json:"config"`
	}
	if err := json.Unmarshal(info.GetConfig(), &more); err != nil {
		return nil, fmt.Errorf("decode configuration of image %s: %w", name, err)
	}
	out.Config.Healthcheck, out.Config.OnBuild, out.Config.Shell = more.Config.Healthcheck, more.Config.OnBuild, more.Config.Shell
	return out, nil
}

func inspection(info *nodev1.InspectImageResponse, config ocispec.Image) inspected {
	img := info.GetImage()
	out := inspected{
		ID: img.GetId(), RepoTags: familiar(img.GetTags()), RepoDigests: familiar(img.GetDigests()),
		Author: config.Author, Architecture: config.Architecture, Variant: config.Variant,
		Os: config.OS, OsVersion: config.OSVersion, Size: img.GetSize(),
		Config: imageConfig{
			User: config.Config.User, ExposedPorts: config.Config.ExposedPorts, Env: config.Config.Env,
			Cmd: config.Config.Cmd, Volumes: config.Config.Volumes, WorkingDir: config.Config.WorkingDir,
			Entrypoint: config.Config.Entrypoint, Labels: config.Config.Labels, StopSignal: config.Config.StopSignal,
		},
		RootFS:     rootFS{Type: config.RootFS.Type},
		Metadata:   metadata{LastTagTime: img.GetPulledAt().AsTime().Format(time.RFC3339Nano)},
		Descriptor: descriptor{MediaType: info.GetMediaType(), Digest: info.GetManifest(), Size: info.GetManifestSize()},
	}
	for _, id := range config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, id.String())
	}
	if config.Created != nil {
		out.Created = config.Created.UTC().Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		out.Comment = config.History[n-1].Comment
	}
	return out
}

// familiar are references in their short form.
func familiar(refs []string) []string {
	out := []string{}
	for _, text := range refs {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			text = reference.FamiliarString(ref)
		}
		out = append(out, text)
	}
	return out
}
