package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/cri"
)

const (
	// scrapeTimeout bounds one scrape.
	scrapeTimeout = 10 * time.Second
	// maxScrapes bounds them at one time.
	maxScrapes = 4
)

// buildMetrics serves Prometheus' metrics where the configuration wants them.
func (d *daemon) buildMetrics(context.Context) error {
	d.measured = cri.NewCallMetrics()
	if d.cfg.MetricsAddress == "" {
		return nil
	}
	listener, err := net.Listen("tcp", d.cfg.MetricsAddress)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.measured, d.images.Metrics(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: scrapeTimeout, MaxRequestsInFlight: maxScrapes}))
	server := &http.Server{Handler: mux, ReadTimeout: scrapeTimeout, WriteTimeout: 2 * scrapeTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() { // ends with server.Close, below
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logrus.WithError(err).Error("metrics are no longer served")
		}
	}()
	logrus.WithField("address", listener.Addr().String()).Info("metrics are served")
	d.onStop(func(context.Context) error {
		err := server.Close()
		<-done
		return err
	})
	return nil
}
