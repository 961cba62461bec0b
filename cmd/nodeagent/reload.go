package main

import (
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// live are the keys that hold at once after SIGHUP. What else the agent reads
// anew it does by itself: registries' files at each pull, CNI configurations
// at each pod.
var live = map[string]func(from Config, to *Config){
	// The daemon tells the image store.
	"pinned_images": func(from Config, to *Config) { to.PinnedImages = from.PinnedImages },
	"log_level": func(from Config, to *Config) {
		to.LogLevel = from.LogLevel
		if level, err := logrus.ParseLevel(from.LogLevel); err == nil { // validated
			logrus.SetLevel(level)
			quietLibraries(level)
		}
	},
}

// reloads tells of SIGHUP, which otherwise would end the agent; stop ends that.
func reloads() (hangups <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}

// reload reads the configuration again, makes hold what can, says what needs a
// restart, and returns what holds now. A configuration that is wrong changes
// nothing.
func reload(running Config, load func() (Config, error)) Config {
	next, err := load()
	if err != nil {
		logrus.WithError(err).Error("the configuration is not reloaded, and the former one holds")
		return running
	}
	applied, waiting := changes(running, next)
	for _, key := range applied {
		live[key](next, &running)
	}
	log := logrus.WithField("applied", strings.Join(applied, " "))
	if len(waiting) > 0 {
		log.WithField("needs_restart", strings.Join(waiting, " ")).Warn("configuration reloaded; some of it holds only after a restart of nodeagent, which pods survive")
		return running
	}
	log.Info("configuration reloaded")
	return running
}

// changes are the keys that differ: those that can be applied, and the others.
func changes(from, to Config) (applied, waiting []string) {
	a, b := reflect.ValueOf(from), reflect.ValueOf(to)
	for i := range a.NumField() {
		key, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("toml"), ",")
		if reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			continue
		}
		if live[key] != nil {
			applied = append(applied, key)
		} else {
			waiting = append(waiting, key)
		}
	}
	slices.Sort(applied)
	slices.Sort(waiting)
	return applied, waiting
}
