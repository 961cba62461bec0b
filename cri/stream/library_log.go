package stream

import (
	"bytes"
	"flag"
	"sync"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// routeKlog sends what the protocols log by themselves to debug: sessions are
// logged here, and klog would write to standard error in a format of its own.
// klog is one for the whole process, so the first server's log gets it.
var routeKlog = func() func(*logrus.Entry) {
	var once sync.Once
	return func(log *logrus.Entry) {
		once.Do(func() {
			flags := flag.NewFlagSet("klog", flag.ContinueOnError)
			klog.InitFlags(flags)
			for name, value := range map[string]string{
				"logtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true", "skip_headers": "true",
			} {
				if err := flags.Set(name, value); err != nil {
					log.WithError(err).Warn("cannot quieten klog")
				}
			}
			klog.SetOutput(debugWriter{log, "klog"})
		})
	}
}()

// debugWriter logs what a library writes by itself, naming it.
type debugWriter struct {
	log  *logrus.Entry
	from string
}

// Write never fails.
func (w debugWriter) Write(p []byte) (int, error) {
	w.log.WithField("from", w.from).Debug(string(bytes.TrimSpace(p)))
	return len(p), nil
}
