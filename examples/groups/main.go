// Command groups shows workers that come and go: a producer writes for a few
// seconds, workers of one group join and leave meanwhile, and every record is
// handled, with the partitions shared among those who are there.
//
//	go run ./examples/groups
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/x/embedlog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, 300*time.Millisecond); err != nil {
		fmt.Fprintln(os.Stderr, "groups:", err)
		os.Exit(1)
	}
}

// printer is what the workers print to together.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *printer) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format, args...)
}

// tally counts how often each record was handled.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
	all  chan struct{} // closed when each was handled
	want int
}

func (t *tally) add(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[value]++; t.seen[value] == 1 && len(t.seen) == t.want {
		close(t.all)
	}
}

const records = 3000

// run lets workers join and leave with a pause in between.
func run(ctx context.Context, w io.Writer, pause time.Duration) (err error) {
	out := &printer{out: w}
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	topic, err := db.EnsureTopic(ctx, "jobs", &embedlog.TopicConfig{Partitions: 6})
	if err != nil {
		return err
	}

	done := &tally{seen: make(map[string]int), all: make(chan struct{}), want: records}
	ctx, cancel := context.WithCancel(ctx)
	var team sync.WaitGroup
	defer func() { cancel(); team.Wait() }() // before the database is closed
	fail := make(chan error, 8)
	report := func(err error) {
		select {
		case fail <- err:
		default:
		}
	}

	team.Go(func() { report(produce(ctx, topic, pause)) })
	start := func(name string) (stop context.CancelFunc) {
		mine, stop := context.WithCancel(ctx)
		team.Go(func() { report(work(mine, db, name, out, done)) })
		return stop
	}
	pauses := time.NewTicker(pause)
	defer pauses.Stop()

	stopAda := start("ada")
	<-pauses.C
	out.printf("-- bob joins\n")
	start("bob")
	<-pauses.C
	out.printf("-- cleo joins\n")
	start("cleo")
	<-pauses.C
	out.printf("-- ada leaves\n")
	stopAda()

	for {
		select {
		case <-done.all:
			out.printf("all %d jobs were handled\n", records)
			return nil
		case err := <-fail:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// produce writes the jobs over about five pauses.
func produce(ctx context.Context, topic *embedlog.Topic, pause time.Duration) error {
	const calls = 100
	tick := time.NewTicker(5 * pause / calls)
	defer tick.Stop()
	for i := 0; i < records; i += records / calls {
		var batch []embedlog.Record
		for k := range records / calls {
			batch = append(batch, embedlog.Record{Key: fmt.Appendf(nil, "key-%d", (i+k)%50), Value: fmt.Appendf(nil, "job %d", i+k)})
		}
		if _, err := topic.Produce(ctx, batch...); err != nil {
			return ignoreEnd(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// work is a worker: a member of the group until its context ends.
func work(ctx context.Context, db *embedlog.DB, name string, out *printer, done *tally) (err error) {
	c, err := db.Consumer(&embedlog.ConsumerConfig{
		Group: "workers", Topics: []string{"jobs"}, ClientID: name,
		OnAssigned: func(_ context.Context, _ *embedlog.Consumer, parts []embedlog.Position) {
			out.printf("%-5s gets   %s\n", name, numbers(parts))
		},
		OnRevoked: func(_ context.Context, _ *embedlog.Consumer, parts []embedlog.Position) {
			out.printf("%-5s gives  %s\n", name, numbers(parts))
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }() // leaves the group: the others take over at once
	for rec, err := range c.Records(ctx) {
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		done.add(string(rec.Value))
	}
	return nil
}

func numbers(parts []embedlog.Position) string {
	s := "partitions"
	for _, p := range parts {
		s += fmt.Sprintf(" %d", p.Partition)
	}
	return s
}

// ignoreEnd is nil for an error that only says that the caller's context ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
