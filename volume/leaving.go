package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// leavingName is the folder, beside the volumes, with a file for each set of
// volumes that is to go should the program be killed.
const leavingName = ".leaving"

// NewName returns a name for an anonymous volume, for who must know it before
// the volume is there.
func NewName() string { return newName() }

// Leave notes that volumes go with something that is being made or removed. Until
// done is called the note stays, and a store that is opened after a crash tells
// of it by Left. The volumes need not be there yet. Nothing is removed here.
func (s *Store) Leave(names []string) (done func(), err error) {
	if len(names) == 0 {
		return func() {}, nil
	}
	note := filepath.Join(s.root, leavingName, newName())
	if err := os.MkdirAll(filepath.Dir(note), 0o700); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(note, []byte(strings.Join(names, "\n")), 0o600); err != nil {
		return nil, err
	}
	return func() { s.forgetNote(note) }, nil
}

// Left gives the names of the volumes that an earlier program noted as leaving.
// Some may be gone, and some may have stayed what they were. done takes the notes
// away. It is to be called before Leave is.
func (s *Store) Left() (names []string, done func(), err error) {
	dir := filepath.Join(s.root, leavingName)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var notes []string
	for _, e := range entries {
		note := filepath.Join(dir, e.Name())
		notes = append(notes, note)
		if atomicfile.IsTemp(e.Name()) {
			continue // nothing was begun before it was whole
		}
		text, err := atomicfile.Read(note, maxRecord)
		if err != nil {
			logrus.WithError(err).Warn("read which volumes are to go")
			continue
		}
		for name := range strings.SplitSeq(string(text), "\n") {
			if namePattern.MatchString(name) { // a power cut may have left anything
				names = append(names, name)
			}
		}
	}
	return names, func() {
		for _, note := range notes {
			s.forgetNote(note)
		}
	}, nil
}

func (s *Store) forgetNote(note string) {
	if err := os.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		logrus.WithError(err).Warn("forget which volumes were to go")
	}
}
