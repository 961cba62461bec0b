package imageservice

import "slices"

// Action is what was done to an image, in docker's words.
type Action string

// The actions that observers are told of.
const (
	ActionPull   Action = "pull"
	ActionPush   Action = "push"
	ActionTag    Action = "tag"
	ActionUntag  Action = "untag"
	ActionDelete Action = "delete"
	ActionSave   Action = "save"
	ActionLoad   Action = "load"
	ActionImport Action = "import"
)

// Change is something done to an image, whoever asked for it.
type Change struct {
	Action Action
	// Image is as it is now; one that was deleted is as it was.
	Image Image
	// Ref is the normalised reference that was pulled, pushed, given or
	// taken away; empty for the other actions.
	Ref string
}

// Observe has f called after each change, by whoever makes it: f must not
// block, nor call the store. It is called once, before images change.
func (s *Store) Observe(f func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer = f
}

// tell tells the observer of changes.
func (s *Store) tell(changes ...Change) {
	s.mu.Lock()
	observer := s.observer
	s.mu.Unlock()
	if observer == nil {
		return
	}
	for _, c := range changes {
		observer(c)
	}
}

// taggedAs is the change of an image that was made under a name, if any.
func taggedAs(img Image, ref string) []Change {
	tags, err := newTags(ref)
	if err != nil || len(tags) == 0 {
		return nil
	}
	return []Change{{Action: ActionTag, Image: img, Ref: tags[0]}}
}

// removedFrom are the changes of an image that lost names, or went with all.
func removedFrom(r *record, untagged []string, deleted bool) []Change {
	img := r.image()
	var changes []Change
	for _, name := range slices.Sorted(slices.Values(untagged)) {
		changes = append(changes, Change{Action: ActionUntag, Image: img, Ref: name})
	}
	if deleted {
		changes = append(changes, Change{Action: ActionDelete, Image: img})
	}
	return changes
}
