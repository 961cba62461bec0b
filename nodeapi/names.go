package nodeapi

import (
	"fmt"
	"math/rand/v2"
	"regexp"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
)

// namePattern is docker's rule for container names, but that one character is
// enough.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// nameTries is how many random names are tried before a number is added.
const nameTries = 16

// reserveName takes a name for a container that is being made, a random one
// when name is empty. The caller gives it back with releaseName once the pod
// exists or the making failed.
func (s *Server) reserveName(name string) (string, error) {
	if name != "" && !namePattern.MatchString(name) {
		return "", failf(errdefs.ErrInvalidArgument,
			"Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.takenNames()
	if name == "" {
		name = randomName(taken)
	} else if id, ok := taken[name]; ok {
		return "", failf(errdefs.ErrAlreadyExists,
			"Conflict. The container name %q is already in use by container %q. "+
				"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, id)
	}
	s.names[name] = true
	return name, nil
}

// releaseName gives back what reserveName took.
func (s *Server) releaseName(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// takenNames maps each name in use to the container's ID, which is empty
// while it is being made. s.mu is held.
func (s *Server) takenNames() map[string]string {
	taken := map[string]string{}
	for name := range s.names {
		taken[name] = ""
	}
	// A pod keeps the name of its making when its container is renamed.
	made := map[string]bool{}
	for _, c := range s.sandboxes.Containers() {
		if c.Owner == sandbox.OwnerNodectl {
			taken[c.Config.GetMetadata().GetName()] = c.ID
			made[c.PodID] = true
		}
	}
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner == sandbox.OwnerNodectl && !made[pod.ID] {
			taken[pod.Config.GetMetadata().GetName()] = pod.ID
		}
	}
	return taken
}

// randomName returns a name that is not taken.
func randomName(taken map[string]string) string {
	for range nameTries {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + nouns[rand.IntN(len(nouns))]
		if _, ok := taken[name]; !ok {
			return name
		}
	}
	for {
		name := fmt.Sprintf("%s_%s%d", adjectives[rand.IntN(len(adjectives))],
			nouns[rand.IntN(len(nouns))], rand.IntN(100000))
		if _, ok := taken[name]; !ok {
			return name
		}
	}
}

var adjectives = []string{
	"amber", "ample", "brave", "brisk", "bright", "calm", "candid", "careful", "cheerful", "chilly", "clever",
	"cosy", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "easy", "fair", "famous", "fancy",
	"fleet", "fluffy", "fond", "frosty", "gentle", "glad", "golden", "grand", "handy", "happy", "hardy", "honest",
	"humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mighty", "mild",
	"modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet",
	"rapid", "ready", "robust", "rosy", "serene", "sharp", "shiny", "silent", "sincere", "sleek", "smart", "snug",
	"sober", "spry", "steady", "sturdy", "sunny", "swift", "tidy", "tranquil", "trusty", "upbeat", "vivid", "warm",
	"wary", "wise", "witty", "zealous",
}

var nouns = []string{
	"acorn", "alder", "anchor", "anvil", "aspen", "badger", "barley", "beacon", "birch", "bison", "bobbin",
	"bridge", "brook", "buoy", "canyon", "cedar", "cello", "clover", "comet", "compass", "condor", "coral",
	"cricket", "curlew", "dahlia", "delta", "dune", "eagle", "ember", "falcon", "fern", "ferry", "finch", "fjord",
	"gannet", "garnet", "gecko", "geyser", "glacier", "hamlet", "harbor", "hazel", "heron", "hollow", "ibex",
	"island", "jasper", "juniper", "kestrel", "kettle", "lagoon", "lantern", "larch", "lemur", "linnet", "lotus",
	"lynx", "magpie", "maple", "marlin", "marmot", "meadow", "mesa", "minnow", "mistral", "nebula", "nettle",
	"oasis", "ocelot", "orchid", "osprey", "otter", "pebble", "pelican", "petrel", "plover", "prairie", "puffin",
	"quartz", "quince", "raven", "reef", "ridge", "robin", "rudder", "saffron", "sparrow", "spruce", "summit",
	"tapir", "thicket", "thistle", "tundra", "valley", "walnut", "willow", "wombat", "yarrow", "zephyr",
}
