package command

import (
	"context"
	"slices"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/spf13/cobra"
)

// completionTimeout is how long a shell that completes waits for the agent.
const completionTimeout = 2 * time.Second

// Completion makes a shell's completion of what names gives. Where the agent
// does not answer nothing is completed; a shell is no place for an error.
func Completion(names func(ctx context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTimeout)
		defer cancel()
		all, err := names(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(all)
		all = slices.DeleteFunc(slices.Compact(all), func(name string) bool {
			return !strings.HasPrefix(name, begin) || slices.Contains(args, name)
		})
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// Complete makes a flag's values completed.
func Complete(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	// It fails for a flag that is not there, which no person can mend.
	_ = cmd.RegisterFlagCompletionFunc(flag, fn)
}

// ContainerNames completes the names of containers for which choose is true;
// nil takes all. Those of kubelet are NAMESPACE/POD/CONTAINER.
func (c *CLI) ContainerNames(choose func(*nodev1.Container) bool) cobra.CompletionFunc {
	return Completion(func(ctx context.Context) ([]string, error) {
		client, err := c.Containers()
		if err != nil {
			return nil, err
		}
		resp, err := client.List(ctx, &nodev1.ListRequest{Pods: true})
		var names []string
		for _, container := range resp.GetContainers() {
			if choose == nil || choose(container) {
				names = append(names, FullName(container))
			}
		}
		return names, err
	})
}

// NetworkNames completes the names of networks.
func (c *CLI) NetworkNames() cobra.CompletionFunc {
	return Completion(func(ctx context.Context) ([]string, error) {
		client, err := c.Networks()
		if err != nil {
			return nil, err
		}
		resp, err := client.List(ctx, &nodev1.ListNetworksRequest{})
		var names []string
		for _, n := range resp.GetNetworks() {
			names = append(names, n.GetName())
		}
		return names, err
	})
}

// VolumeNames completes the names of volumes.
func (c *CLI) VolumeNames() cobra.CompletionFunc {
	return Completion(func(ctx context.Context) ([]string, error) {
		client, err := c.Volumes()
		if err != nil {
			return nil, err
		}
		resp, err := client.List(ctx, &nodev1.ListVolumesRequest{})
		var names []string
		for _, v := range resp.GetVolumes() {
			names = append(names, v.GetName())
		}
		return names, err
	})
}

// FullName is what a person calls a container by in a command.
func FullName(c *nodev1.Container) string {
	if pod := c.GetPod(); pod.GetName() != "" {
		return pod.GetNamespace() + "/" + pod.GetName() + "/" + c.GetName()
	}
	return c.GetName()
}

// ImageNames completes the names of images.
func (c *CLI) ImageNames() cobra.CompletionFunc {
	return Completion(func(ctx context.Context) ([]string, error) {
		client, err := c.Images()
		if err != nil {
			return nil, err
		}
		resp, err := client.List(ctx, &nodev1.ListImagesRequest{})
		var names []string
		for _, image := range resp.GetImages() {
			for _, tag := range image.GetTags() {
				names = append(names, strings.TrimPrefix(strings.TrimPrefix(tag, "docker.io/library/"), "docker.io/"))
			}
		}
		return names, err
	})
}
