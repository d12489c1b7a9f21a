package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/history"
)

// run is a run under way.
type run struct {
	Config
	spec    *spec
	relay   *relay
	server  *server
	history *history.Writer
	addr    string

	mu     sync.Mutex
	notes  map[string]int
	failed error // what makes the run worthless: not what the log did, but that it cannot be said
	stop   context.CancelFunc
	kills  int
	cuts   int
	ready  []time.Duration
}

// Run runs. An error says that the run could not be done or judged; what the log did
// wrong is in the report of the result.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(cfg.Dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("soak: %s is not empty", cfg.Dir)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	r := &run{Config: cfg, notes: map[string]int{}}
	path := filepath.Join(cfg.Dir, "history.jsonl")
	if r.history, err = history.OpenWriter(path); err != nil {
		return nil, err
	}
	defer r.history.Close()
	r.addr = cfg.Server
	if r.addr == "" {
		if r.relay, err = newRelay(); err != nil {
			return nil, err
		}
		defer r.relay.close()
		r.addr = r.relay.addr()
		r.spec = &spec{Binary: cfg.Binary, Dir: filepath.Join(cfg.Dir, "db"), Advertise: r.addr}
		if err := r.start(); err != nil {
			return nil, err
		}
		defer func() {
			if r.server != nil {
				r.server.kill()
			}
		}()
		if err := r.makeTopics(ctx); err != nil {
			return nil, err
		}
	} else if err := r.reach(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := r.work(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	r.logf("final read")
	if err := r.final(ctx); err != nil {
		return nil, fmt.Errorf("soak: final read: %w", err)
	}
	if r.server != nil {
		v := r.server
		r.server = nil
		if err := v.stop(); err != nil {
			return nil, err
		}
	}
	if err := r.history.Close(); err != nil {
		return nil, err
	}
	r.logf("check")
	paths := []string{path}
	if cfg.Beside != nil {
		more, err := cfg.Beside()
		if err != nil {
			return nil, err
		}
		paths = append(paths, more...)
	}
	report, err := history.Check(history.OpenFiles(paths...), nil)
	if err != nil {
		return nil, err
	}
	return &Result{
		Report: report, History: path, Took: took, Kills: r.kills, Cuts: r.cuts,
		Ready: r.ready, Notes: r.notes,
	}, nil
}

func (r *run) logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.Log, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

// note counts an error that is no fault. Numbers and addresses are left out, so that
// the same errors are the same; the first of each are logged as they are.
func (r *run) note(what string, err error) {
	if err == nil {
		return
	}
	text := what + ": " + strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, err.Error())
	r.mu.Lock()
	if _, ok := r.notes[text]; !ok && len(r.notes) >= 100 {
		text = "others"
	}
	r.notes[text]++
	first := r.notes[text] <= 3
	r.mu.Unlock()
	if first {
		r.logf("%s: %v", what, err)
	}
}

// fail ends the run with an error.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = errors.Join(r.failed, err)
	if r.stop != nil {
		r.stop()
	}
}

// record writes an operation into the history.
func (r *run) record(op *history.Op) {
	if err := r.history.Append(op); err != nil {
		r.fail(err)
	}
}

// start starts the server, and points the relay to it.
func (r *run) start() error {
	began := time.Now()
	v, err := r.spec.start()
	if err != nil {
		return err
	}
	r.server = v
	r.relay.point(v.addr)
	if r.kills > 0 {
		r.ready = append(r.ready, time.Since(began))
	}
	return nil
}

// options are those of every client.
func (r *run) options(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(r.addr, ",")...),
		// A server that is killed is back soon: nobody is to sleep for long.
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(10*time.Millisecond<<min(n, 5), 250*time.Millisecond) }),
		kgo.DialTimeout(5 * time.Second),
		kgo.UnknownTopicRetries(-1),
	}, more...)
}

// reach asks whether anybody is there.
func (r *run) reach(ctx context.Context) error {
	cl, err := kgo.NewClient(r.options()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, stuck)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("soak: no answer from %s: %w", r.addr, err)
	}
	return nil
}

// Who works. Numbers of processes are these, and the number of the worker.
const (
	senders      = 4
	transactors  = 3
	readers      = 2
	copiers      = 2
	counters     = 2
	sendProcess  = 0
	txnProcess   = 100
	readProcess  = 200
	looseProcess = 300 // the reader of the uncommitted
	copyProcess  = 400
	countProcess = 500
	askProcess   = 600
	endProcess   = 700
)

// work lets clients work, and kills and cuts meanwhile, for the time of the run.
func (r *run) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.stop = cancel
	r.mu.Unlock()

	var clients, harm sync.WaitGroup
	pace := newPace(r.Rate)
	for i := range int32(senders) {
		clients.Go(func() { r.worker(sendProcess+i).send(ctx, pace) })
	}
	for i := range int32(transactors) {
		clients.Go(func() { r.worker(txnProcess+i).transact(ctx, pace) })
	}
	for i := range int32(readers) {
		clients.Go(func() { r.worker(readProcess+i).read(ctx, true) })
	}
	clients.Go(func() { r.worker(looseProcess).read(ctx, false) })
	for i := range int32(copiers) {
		clients.Go(func() { r.worker(copyProcess + i).copy(ctx) })
	}
	for i := range int32(counters) {
		clients.Go(func() { r.worker(countProcess + i).count(ctx) })
	}
	clients.Go(func() { r.worker(askProcess).ask(ctx) })
	quiet, settle := context.WithCancel(ctx)
	defer settle()
	if r.relay != nil {
		harm.Go(func() { r.kill(quiet) })
		harm.Go(func() { r.cut(quiet) })
	}
	select {
	case <-time.After(r.Time):
	case <-r.End:
	case <-ctx.Done():
	}
	// The server lives on while clients finish what they have begun.
	settle()
	harm.Wait()
	cancel()
	clients.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = nil
	return r.failed
}

// wait waits for a time around mean, between a half and one and a half of it.
func wait(ctx context.Context, rnd *rand.Rand, mean time.Duration) bool {
	select {
	case <-time.After(mean/2 + rand.N(mean)):
		return true
	case <-ctx.Done():
		return false
	}
}

// kill kills the server and starts it again.
func (r *run) kill(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(r.Seed, 1))
	for r.KillEvery > 0 && wait(ctx, rnd, r.KillEvery) {
		if err := r.server.kill(); err != nil {
			r.server = nil
			r.fail(err)
			return
		}
		r.server = nil
		r.relay.point("")
		r.kills++
		if r.WhileDead != nil {
			if err := r.WhileDead(r.spec.Dir, r.kills); err != nil {
				r.fail(err)
				return
			}
		}
		if err := r.start(); err != nil {
			r.fail(err)
			return
		}
		r.logf("kill %d, ready again after %v", r.kills, r.ready[len(r.ready)-1].Round(time.Millisecond))
	}
}

// cut cuts all connections.
func (r *run) cut(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(r.Seed, 2))
	for r.CutEvery > 0 && wait(ctx, rnd, r.CutEvery) {
		r.relay.cut()
		r.cuts++
	}
}
