package eventlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// past gives what a log tells of the past.
func past(t *testing.T, l *Log) (got []string) {
	t.Helper()
	err := l.Watch(t.Context(), time.Unix(1, 0), time.Now(), func(e Event) error {
		got = append(got, e.Action)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// kept opens the log of a file.
func kept(t *testing.T, path string) *Log {
	t.Helper()
	l := &Log{}
	if err := l.Keep(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestEventsOutliveTheProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	at := time.Now().Add(-time.Hour)
	l := kept(t, path)
	for i := range 3 {
		l.Add(Event{Type: "container", ID: "c", Action: fmt.Sprint(i), Attributes: map[string]string{"name": "x\n"}, At: at})
	}
	l.Add(Event{Type: "container", ID: "other", Action: "large", Attributes: map[string]string{"label": strings.Repeat("x", maxEntry)}, At: at})
	// It is killed in the midst of a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"Type":"container","ID":"c","Act`)
	_ = f.Close()
	l = kept(t, path)
	if got := past(t, l); fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("got %v", got)
	}
	l.Add(Event{Type: "container", ID: "c", Action: "3", At: at})
	if last := l.Last("container", "c", "1", "2"); last != "2" {
		t.Errorf("last is %q", last)
	}
	var all []Event
	_ = kept(t, path).Watch(t.Context(), time.Unix(1, 0), time.Now(), func(e Event) error { all = append(all, e); return nil })
	if len(all) != 4 || !all[0].At.Equal(at) || all[0].Attributes["name"] != "x\n" || all[3].Action != "3" {
		t.Errorf("got %v", all)
	}
}

func TestJournalIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := kept(t, path)
	label := map[string]string{"label": strings.Repeat("x", 10<<10)}
	for i := range 1500 {
		l.Add(Event{Type: "container", Action: fmt.Sprint(i), Attributes: label})
		if info, err := os.Stat(path); err != nil || info.Size() > maxJournal {
			t.Fatalf("%v %v", info.Size(), err)
		}
	}
	got := past(t, kept(t, path))
	if len(got) < 150 || got[len(got)-1] != "1499" || got[0] != fmt.Sprint(1500-len(got)) {
		t.Errorf("%d events from %s to %s", len(got), got[0], got[len(got)-1])
	}
}

// A file that anything is in gives the events that are whole, and a log that works.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("{}\n\n" + `{"Type":"image","Action":"pull","At":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"Type":1}` + "\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "events")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(kept(t, path).events)
		again := kept(t, path)
		if len(again.events) != before {
			t.Errorf("%d events, then %d", before, len(again.events))
		}
		again.Add(Event{Type: "image", Action: "tag"})
		if now := kept(t, path).events; len(now) != min(before+1, capacity) || now[len(now)-1].Action != "tag" {
			t.Errorf("%d events after %d", len(now), before)
		}
	})
}
