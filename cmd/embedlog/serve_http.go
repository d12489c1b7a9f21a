package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/x/embedlog"
	"github.com/x/embedlog/prom"
)

// httpAddress is what to listen on for metrics and health: loopback, unless said
// otherwise in words.
func httpAddress(address string, allowInsecure bool) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("http is HOST:PORT, not %q", address)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	ip := net.ParseIP(host)
	if loopback := host == "localhost" || ip != nil && ip.IsLoopback(); !loopback && !allowInsecure {
		return "", fmt.Errorf("http is %s, which is not loopback: whoever reaches it may read the metrics; --allow-insecure allows that", address)
	}
	return net.JoinHostPort(host, port), nil
}

// httpServer serves metrics and health.
type httpServer struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{}
	stopping atomic.Bool
}

func serveHTTP(address string, db *embedlog.DB, m *prom.Metrics, logger *slog.Logger) (*httpServer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s := &httpServer{listener: l, served: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, true, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		// A partition that is damaged is for an alarm: the others are served.
		stats := db.Stats()
		answerHealth(w, !s.stopping.Load(), map[string]int{"partitions": stats.Partitions, "failed_partitions": stats.Failed})
	})
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(s.served)
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics and health are not served any more", "error", err)
		}
	}()
	return s, nil
}

// answerHealth says in one line of JSON whether it is well.
func answerHealth(w http.ResponseWriter, ok bool, more map[string]int) {
	w.Header().Set("Content-Type", "application/json")
	body := map[string]any{"ok": ok}
	for name, n := range more {
		body[name] = n
	}
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
}

// stop ends it. Requests that run are answered until ctx ends.
func (s *httpServer) stop(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	<-s.served
	return err
}
