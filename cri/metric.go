package cri

import (
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// baseLabels are those of every metric, in the order of their values; names and
// labels are cAdvisor's, which these metrics stand in for.
var baseLabels = []string{"pod", "namespace", "container", "id", "image", "name"}

// sample is one value of a metric with those of its extra labels.
type sample struct {
	value  uint64
	labels []string
}

// metric is a metric that is read from a subject: what describes it, and how
// its samples are had. No samples means that the host does not offer it.
type metric[T any] struct {
	name, help string
	kind       runtime.MetricType
	labels     []string
	read       func(*T) []sample
}

const (
	counter = runtime.MetricType_COUNTER
	gauge   = runtime.MetricType_GAUGE
)

// one is the only sample of a metric.
func one(value uint64, labels ...string) []sample {
	return []sample{{value: value, labels: labels}}
}

// wholeSeconds is a time told in seconds: CRI's values are whole numbers.
func wholeSeconds(n uint64, unit time.Duration, labels ...string) []sample {
	return one(n/uint64(time.Second/unit), labels...)
}

// limit is the sample of a limit of the configuration; none when it is not set.
func limit(n int64) []sample {
	if n <= 0 {
		return nil
	}
	return one(uint64(n))
}

// limitOrZero is the sample of a limit that cAdvisor tells as zero when it is
// not set.
func limitOrZero(n int64) []sample { return one(uint64(max(0, n))) }

// descriptors describe a table of metrics.
func descriptors[T any](table []metric[T]) []*runtime.MetricDescriptor {
	described := make([]*runtime.MetricDescriptor, len(table))
	for i, m := range table {
		keys := make([]string, 0, len(baseLabels)+len(m.labels))
		described[i] = &runtime.MetricDescriptor{
			Name: m.name, Help: m.help, LabelKeys: append(append(keys, baseLabels...), m.labels...),
		}
	}
	return described
}

// readMetrics reads a table of metrics of one subject as it was at a time. Its
// values of the base labels are base.
func readMetrics[T any](table []metric[T], subject *T, at time.Time, base []string) []*runtime.Metric {
	var metrics []*runtime.Metric
	for _, m := range table {
		for _, sample := range m.read(subject) {
			values := make([]string, 0, len(base)+len(sample.labels))
			metrics = append(metrics, &runtime.Metric{
				Name:        m.name,
				Timestamp:   at.UnixNano(),
				MetricType:  m.kind,
				LabelValues: append(append(values, base...), sample.labels...),
				Value:       &runtime.UInt64Value{Value: sample.value},
			})
		}
	}
	return metrics
}
