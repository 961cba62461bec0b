package cri

import (
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzFilters holds the filters against the plainest reading of api.proto.
func FuzzFilters(f *testing.F) {
	f.Add("aa,ab,b", "a", "", "k", "v", int32(1))
	f.Add("aa", "aa", "pod", "", "", int32(-1))
	f.Add("aa,aab", "aa", "p", "k", "", int32(9))
	f.Fuzz(func(t *testing.T, ids, id, pod, key, value string, state int32) {
		var ctrs []sandbox.Container
		for i, ctrID := range strings.Split(ids, ",") {
			if slices.ContainsFunc(ctrs, func(c sandbox.Container) bool { return c.ID == ctrID }) {
				continue
			}
			ctr := sandbox.Container{ID: ctrID, PodID: "pod" + string(rune('0'+i%3)), Config: &runtime.ContainerConfig{}}
			ctr.State = []sandbox.ContainerState{sandbox.ContainerRunning, sandbox.ContainerExited, ""}[i%3]
			if i%2 == 0 {
				ctr.Config.Labels = map[string]string{"k": "v", key: value}
			}
			ctrs = append(ctrs, ctr)
		}
		filter := &runtime.ContainerFilter{Id: id, PodSandboxId: pod}
		if key != "" {
			filter.LabelSelector = map[string]string{key: value}
		}
		if state >= 0 {
			filter.State = &runtime.ContainerStateValue{State: runtime.ContainerState(state)}
		}
		var want []string
		for _, ctr := range ctrs {
			got, labelled := ctr.Config.Labels[key]
			if matchesPrefix(ctrs, ctr.ID, id) &&
				(pod == "" || strings.HasPrefix(ctr.PodID, pod) && onlyPod(ctrs, id, pod)) &&
				(key == "" || labelled && got == value) &&
				(state < 0 || int32(containerState(ctr.State)) == state) {
				want = append(want, ctr.ID)
			}
		}
		var got []string
		for _, ctr := range filterContainers(slices.Clone(ctrs), filter) {
			got = append(got, ctr.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("filter %v of %v: got %v, want %v", filter, ids, got, want)
		}
	})
}

// matchesPrefix: id is the prefix itself, or the only one that begins with it.
func matchesPrefix(ctrs []sandbox.Container, id, prefix string) bool {
	if prefix == "" || id == prefix {
		return true
	}
	n := 0
	for _, ctr := range ctrs {
		if ctr.ID == prefix {
			return false
		}
		if strings.HasPrefix(ctr.ID, prefix) {
			n++
		}
	}
	return n == 1 && strings.HasPrefix(id, prefix)
}

// onlyPod: among the containers that id leaves, one pod begins with prefix.
func onlyPod(ctrs []sandbox.Container, id, prefix string) bool {
	pods := map[string]bool{}
	for _, ctr := range ctrs {
		if matchesPrefix(ctrs, ctr.ID, id) && strings.HasPrefix(ctr.PodID, prefix) {
			pods[ctr.PodID] = true
		}
	}
	return pods[prefix] || len(pods) == 1
}

// FuzzImageUser: what is taken for a number is one that Linux has.
func FuzzImageUser(f *testing.F) {
	f.Add("0")
	f.Add("1003:1004")
	f.Add("4294967296")
	f.Add("-0")
	f.Fuzz(func(t *testing.T, user string) {
		uid, name := imageUser(user)
		if uid != nil && (name != "" || uid.GetValue() < 0 || uid.GetValue() > 1<<31-1) {
			t.Errorf("%q: %v, %q", user, uid, name)
		}
		if uid == nil && name == "" && strings.SplitN(user, ":", 2)[0] != "" {
			t.Errorf("%q is lost", user)
		}
	})
}
