package imageservice

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts pulls.
type metrics struct {
	duration *prometheus.HistogramVec
	bytes    *prometheus.Desc
	underway *prometheus.Desc
	layer    *prometheus.Desc
	total    *prometheus.Desc
}

func newMetrics() *metrics {
	layer := []string{"image", "layer"}
	return &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nodeagent_image_pull_seconds", Help: "How long pulls took, by result: pulled, present, failed, or abandoned by all callers.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"result"}),
		bytes:    prometheus.NewDesc("nodeagent_image_received_bytes_total", "Bytes of manifests and layers that arrived.", nil, nil),
		underway: prometheus.NewDesc("nodeagent_image_pulls", "Pulls under way.", nil, nil),
		layer:    prometheus.NewDesc("nodeagent_image_pull_layer_bytes", "Bytes that arrived of a layer of a pull under way.", layer, nil),
		total:    prometheus.NewDesc("nodeagent_image_pull_layer_size_bytes", "Size of a layer of a pull under way.", layer, nil),
	}
}

// pulled notes a pull that ended.
func (m *metrics) pulled(res PullResult, err error, took time.Duration) {
	result := "pulled"
	switch {
	case isEnd(err):
		result = "abandoned"
	case err != nil:
		result = "failed"
	case !res.New:
		result = "present"
	}
	m.duration.WithLabelValues(result).Observe(took.Seconds())
}

// Metrics tells prometheus of pulls, those under way layer by layer.
func (s *Store) Metrics() prometheus.Collector { return collected{s} }

type collected struct{ s *Store }

// Describe is for prometheus.Collector.
func (c collected) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is for prometheus.Collector.
func (c collected) Collect(ch chan<- prometheus.Metric) {
	s, m := c.s, c.s.metrics
	m.duration.Collect(ch)
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(s.content.Received()))
	pulls := s.Pulls()
	ch <- prometheus.MustNewConstMetric(m.underway, prometheus.GaugeValue, float64(len(pulls)))
	seen := map[[2]string]bool{}
	for _, p := range pulls {
		for _, l := range p.Layers {
			// The same image may be pulled for several callers.
			if key := [2]string{p.Ref, l.Digest}; seen[key] {
				continue
			} else {
				seen[key] = true
			}
			ch <- prometheus.MustNewConstMetric(m.layer, prometheus.GaugeValue, float64(l.Current), p.Ref, l.Digest)
			ch <- prometheus.MustNewConstMetric(m.total, prometheus.GaugeValue, float64(l.Total), p.Ref, l.Digest)
		}
	}
}
