package pod

import (
	"context"
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// find gives the ID of the pod that a person means by its ID, the beginning of
// that, NAMESPACE/NAME, or NAME; the newest of a name.
func find(ctx context.Context, client runtime.RuntimeServiceClient, name string) (string, error) {
	all, err := list(ctx, client)
	if err != nil {
		return "", err
	}
	var byPrefix, byName []*runtime.PodSandbox
	for _, p := range all {
		meta := p.GetMetadata()
		switch {
		case p.GetId() == name:
			return name, nil
		case meta.GetNamespace()+"/"+meta.GetName() == name || meta.GetName() == name:
			byName = append(byName, p)
		case name != "" && strings.HasPrefix(p.GetId(), name):
			byPrefix = append(byPrefix, p)
		}
	}
	for _, p := range byName {
		if p.GetMetadata().GetNamespace() != byName[0].GetMetadata().GetNamespace() {
			return "", fmt.Errorf("several namespaces have a pod %s: name one as NAMESPACE/%s", name, name)
		}
	}
	switch {
	case len(byName) > 0:
		return byName[0].GetId(), nil
	case len(byPrefix) == 1:
		return byPrefix[0].GetId(), nil
	case len(byPrefix) > 1:
		return "", fmt.Errorf("multiple IDs found with provided prefix: %s", name)
	}
	return "", fmt.Errorf("No such pod: %s", name)
}

// Completion completes the names of pods.
func Completion(cli *command.CLI) cobra.CompletionFunc {
	return command.Completion(func(ctx context.Context) ([]string, error) {
		client, err := cli.Runtime()
		if err != nil {
			return nil, err
		}
		all, err := list(ctx, client)
		var names []string
		for _, p := range all {
			names = append(names, p.GetMetadata().GetNamespace()+"/"+p.GetMetadata().GetName())
		}
		return names, err
	})
}

func completeNamespaces(cli *command.CLI) cobra.CompletionFunc {
	return command.Completion(func(ctx context.Context) ([]string, error) {
		client, err := cli.Runtime()
		if err != nil {
			return nil, err
		}
		all, err := list(ctx, client)
		var names []string
		for _, p := range all {
			names = append(names, p.GetMetadata().GetNamespace())
		}
		return names, err
	})
}
