package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
	"github.com/x/embedlog/prom"
)

func (a *app) serve() *cobra.Command {
	var config string
	var print bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the database to Kafka's clients until it is told to stop",
		Long: `serve opens the directory, makes a database there if there is none, and serves
it to Kafka's clients. Commands reach it, too, as they reach any program that
has the directory open.

When it is ready it prints one line of JSON with the addresses it listens on.
SIGTERM and SIGINT end it in order: what clients were promised is kept, and they
hear of it. Nothing outside of loopback is listened on without TLS and clients
that say who they are, by a certificate (--tls-client-ca) or a password
(--sasl), unless --allow-insecure says so.

Users and their passwords are the database's: see embedlog user. With
--authorize what they may do is, too: see embedlog acl. Commands that reach the
database by its directory may do everything.

With --node the directory is one node of a cluster, whose nodes keep copies of
each other's topics. --peers names those that begin it together, each with an
empty directory; with neither --peers nor --join a node begins one by itself,
with what its directory holds; --join and an empty directory add one: see
embedlog cluster.

What flags say can be in a TOML file, and more; a flag is stronger.
--print-config prints all there is, with what was said.`,
		Example: `  embedlog serve --data data --kafka localhost:9092
  embedlog serve --kafka :0 --http :9644
  embedlog serve --kafka :0 --sasl --authorize --super-users User:admin
  embedlog serve --kafka :0 --node 1 --cluster shop --peer-listen :9192
  embedlog serve --kafka :0 --node 2 --cluster shop --peer-listen :9193 --join localhost:9192
  embedlog serve --config embedlog.toml --print-config`,
		Args: takes(0, 0, "no argument"),
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "TOML file with the configuration")
	f.BoolVar(&print, "print-config", false, "print the configuration as a file, and end")
	for _, k := range append((&listenerConfig{}).keys(), (&serveConfig{}).keys()...) {
		switch k.value.(type) {
		case *boolValue:
			if k.flag != "" {
				f.Bool(k.flag, false, k.doc)
			}
		case *durationValue:
			if k.flag != "" {
				f.Duration(k.flag, 0, k.doc)
			}
		case *intValue:
			if k.flag != "" {
				f.Int64(k.flag, 0, k.doc)
			}
		default:
			if k.flag != "" {
				f.String(k.flag, "", k.doc)
			}
		}
	}
	f.Lookup("shutdown-timeout").DefValue = defaultStopTimeout.String()
	f.Lookup("lock-timeout").DefValue = patience.String()
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.serveConfig(config, f)
		if err != nil {
			return err
		}
		o, k, err := c.options()
		if err != nil {
			return usagef("%w", err)
		}
		if print {
			return c.print(a.stdout)
		}
		return a.runServer(cmd.Context(), c, o, k)
	}
	return cmd
}

// defaultStopTimeout is below the time that service managers give a program.
const defaultStopTimeout = 10 * time.Second

// serveConfig is what the file and the flags say together. Of the directory it is
// the flag, then EMBEDLOG_DATA, then the file that counts.
func (a *app) serveConfig(file string, f *pflag.FlagSet) (*serveConfig, error) {
	c := &serveConfig{stopTimeout: defaultStopTimeout, lockTimeout: patience}
	if file != "" {
		if err := c.readConfig(file); err != nil {
			return nil, err
		}
	}
	if c.data == "" || f.Changed("data") || os.Getenv("EMBEDLOG_DATA") != "" {
		c.data = a.data
	}
	one := &listenerConfig{}
	if len(c.kafka) == 1 {
		one = c.kafka[0]
	}
	said := false
	var bad []error
	for _, k := range one.keys() {
		if f.Changed(k.flag) {
			said = true
			bad = append(bad, fromFlag(k, f))
		}
	}
	for _, k := range c.keys() {
		if k.flag != "" && f.Changed(k.flag) {
			bad = append(bad, fromFlag(k, f))
		}
	}
	switch {
	case said && len(c.kafka) > 1:
		bad = append(bad, fmt.Errorf("%s has %d listeners: flags could mean any of them", file, len(c.kafka)))
	case said && one.listen == "":
		bad = append(bad, errors.New("there is nothing to listen on: --kafka is missing"))
	case said && len(c.kafka) == 0:
		c.kafka = append(c.kafka, one)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, usagef("%w", err)
	}
	return c, nil
}

// fromFlag gives a key the value of its flag.
func fromFlag(k configKey, f *pflag.FlagSet) error {
	text := f.Lookup(k.flag).Value.String()
	switch k.value.(type) {
	case *boolValue:
		return k.value.set(text == "true")
	case *intValue:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		return k.value.set(n)
	}
	return k.value.set(text)
}

// ready is the line that says so.
type ready struct {
	Ready     bool     `json:"ready"`
	Data      string   `json:"data"`
	ClusterID string   `json:"cluster_id"`
	NodeID    int32    `json:"node_id"`
	Peer      string   `json:"peer,omitempty"` // where the cluster's other nodes find this one
	PID       int      `json:"pid"`
	Kafka     []string `json:"kafka"` // where it listens
	HTTP      string   `json:"http,omitempty"`
	Unix      string   `json:"unix,omitempty"`
	Socket    bool     `json:"socket"` // commands reach it through DIR/sock
}

// server is all that runs.
type server struct {
	db     *embedlog.DB
	kafka  *kafka.Server
	http   *httpServer
	unix   *unixServer
	logger *slog.Logger
}

// runServer serves until ctx ends, which is a signal, and then ends in order.
func (a *app) runServer(ctx context.Context, c *serveConfig, o *embedlog.Options, k *kafka.Options) (err error) {
	dir, err := filepath.Abs(c.data)
	if err != nil {
		return err
	}
	s := &server{logger: a.serverLogger()}
	metrics := prom.New()
	o.Logger, k.Logger, o.Hooks = s.logger, s.logger, metrics.Hooks(nil)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s.db, err = embedlog.Open(dir, o)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENAMETOOLONG) {
		o.Socket = false
		if node, _, e := c.cluster.newNode(c.allowInsecure); e == nil && node != nil {
			o.Replication = node // a node is for one database, and was closed with the one before
		}
		s.db, err = embedlog.Open(dir, o)
	}
	if errors.Is(err, embedlog.ErrLocked) {
		return &exitError{exitLocked, lockedBy(c.data, err, "serve needs the directory for itself; --lock-timeout waits for it")}
	}
	if err != nil && o.Replication == nil {
		return ofCluster(c.data, err)
	}
	if err != nil {
		return err
	}
	metrics.Watch(s.db)
	defer func() { err = errors.Join(err, s.stop(c.stopTimeout)) }()
	line := ready{Ready: true, Data: dir, ClusterID: s.db.Info().ClusterID, PID: os.Getpid(), Kafka: []string{}, Unix: c.unix, Socket: o.Socket}
	line.NodeID, line.Peer = max(s.db.Info().NodeID, 1), c.peer
	if line.ClusterID == (embedlog.TopicID{}).String() {
		line.ClusterID = "" // it waits for a cluster to take it in
	}
	if err := s.secure(c, k); err != nil {
		return err
	}
	if len(k.Listeners) > 0 {
		if s.kafka, err = kafka.Serve(s.db, k); err != nil {
			return err
		}
		for _, at := range s.kafka.Addrs() {
			line.Kafka = append(line.Kafka, at.String())
		}
	}
	if c.unix != "" {
		if s.unix, err = serveUnix(c.unix, s.db, s.logger); err != nil {
			return err
		}
	}
	if c.http != "" {
		address, err := httpAddress(c.http, c.allowInsecure)
		if err == nil {
			s.http, err = serveHTTP(address, s.db, metrics, s.logger)
		}
		if err != nil {
			return err
		}
		line.HTTP = s.http.listener.Addr().String()
	}
	if err := json.NewEncoder(a.stdout).Encode(line); err != nil && !isPipe(err) {
		return err
	}
	<-ctx.Done()
	s.logger.Info("ending", "reason", "signal")
	return nil
}

// stop ends what runs, who takes work first, and closes the database.
func (s *server) stop(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var bad []error
	if s.http != nil {
		s.http.stopping.Store(true)
	}
	if s.kafka != nil {
		if err := s.kafka.Shutdown(ctx); err != nil {
			s.logger.Warn("clients were cut off", "error", err)
		}
	}
	if s.unix != nil {
		bad = append(bad, s.unix.stop())
	}
	if s.http != nil {
		bad = append(bad, s.http.stop(ctx))
	}
	bad = append(bad, s.db.Close())
	if s.unix != nil {
		s.unix.wait()
	}
	return errors.Join(bad...)
}

// serverLogger logs to stderr, for people or with --format json for programs; with
// --quiet only what is a warning or worse.
func (a *app) serverLogger() *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if a.quiet {
		o.Level = slog.LevelWarn
	}
	if a.asJSON() {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}

// isSocket says whether path is a unix socket: --data may name that of a server.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

// dialSocket begins a session through a socket that --data names.
func dialSocket(path string) (*client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, err := newClient(conn, conn.Close)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), conn.Close())
	}
	return c, conn.SetDeadline(time.Time{})
}
