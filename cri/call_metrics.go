package cri

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// CallMetrics measures calls, of CRI and of the node API. It is a
// prometheus.Collector.
type CallMetrics struct{ *prometheus.HistogramVec }

// NewCallMetrics returns one that has measured nothing.
func NewCallMetrics() CallMetrics {
	return CallMetrics{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "nodeagent_call_seconds", Help: "How long calls took, by service, method and gRPC code. Streams count until their end.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
	}, []string{"service", "method", "code"})}
}

// Options make a gRPC server measure its calls. They come before those of
// ServerOptions, so that errors have their codes.
func (m CallMetrics) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			began := time.Now()
			resp, err := handler(ctx, req)
			m.observe(info.FullMethod, err, began)
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			began := time.Now()
			err := handler(srv, ss)
			m.observe(info.FullMethod, err, began)
			return err
		}),
	}
}

func (m CallMetrics) observe(method string, err error, began time.Time) {
	m.WithLabelValues(path.Base(path.Dir(method)), path.Base(method), status.Code(err).String()).Observe(time.Since(began).Seconds())
}
