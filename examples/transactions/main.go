// Command transactions consumes, transforms and produces exactly once, while it is
// killed again and again.
//
//	go run ./examples/transactions
//
// The program starts itself as a worker. The worker reads amounts from topic
// "payments", writes the running balance of each account to topic "balances", and
// commits both, records and positions, in one transaction. It is killed (SIGKILL) in the
// middle several times. In the end every payment is in exactly one balance.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/x/embedlog"
)

const (
	accounts = 10
	payments = 2000
	group    = "accounting"
)

// balance is what the worker knows of an account after a payment.
type balance struct {
	Payments int // how many there were
	Cents    int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if dir := os.Getenv("EMBEDLOG_EXAMPLE_WORKER"); dir != "" {
		err = work(ctx, dir)
	} else {
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transactions:", err)
		os.Exit(1)
	}
}

// run prepares the payments, kills workers until one gets through, and checks.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "embedlog-transactions-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepare(ctx, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d payments for %d accounts are in topic payments\n", payments, accounts)

	self, err := os.Executable()
	if err != nil {
		return err
	}
	kills := 0
	for life := 1; ; life++ {
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), "EMBEDLOG_EXAMPLE_WORKER="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		// A life is a bit longer each time, so that one gets through.
		timer := time.NewTimer(time.Duration(life) * 40 * time.Millisecond)
		select {
		case err := <-ended:
			timer.Stop()
			if err != nil {
				return fmt.Errorf("worker: %w", err)
			}
			fmt.Fprintf(out, "worker %d came to the end; %d before it were killed\n", life, kills)
			return check(ctx, out, dir)
		case <-timer.C:
			// On purpose without a chance to tidy up.
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			<-ended
			kills++
		}
	}
}

func prepare(ctx context.Context, dir string) (err error) {
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	in, err := db.EnsureTopic(ctx, "payments", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		return err
	}
	if _, err := db.EnsureTopic(ctx, "balances", &embedlog.TopicConfig{Partitions: 4}); err != nil {
		return err
	}
	recs := make([]embedlog.Record, payments)
	for i := range recs {
		recs[i] = embedlog.Record{Key: fmt.Appendf(nil, "account-%d", i%accounts), Value: fmt.Append(nil, i)}
	}
	_, err = in.Produce(ctx, recs...)
	return err
}

// work is one life of the worker. Its state is in the topic that it writes.
func work(ctx context.Context, dir string) (err error) {
	// The one before may not be quite gone.
	db, err := embedlog.Open(dir, &embedlog.Options{LockTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	state, err := balances(ctx, db)
	if err != nil {
		return err
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: group, Topics: []string{"payments"}, ManualCommit: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	done := 0
	for _, b := range state {
		done += b.Payments
	}
	for done < payments {
		recs, err := c.Poll(ctx, 20)
		if err != nil {
			return err
		}
		// Records and positions, all or nothing.
		err = db.Update(ctx, func(tx *embedlog.Txn) error {
			for _, rec := range recs {
				var cents int
				if err := json.Unmarshal(rec.Value, &cents); err != nil {
					return err
				}
				b := state[string(rec.Key)]
				b.Payments++
				b.Cents += cents
				state[string(rec.Key)] = b
				value, err := json.Marshal(b)
				if err != nil {
					return err
				}
				if _, err := tx.Produce(ctx, embedlog.Record{Topic: "balances", Key: rec.Key, Value: value}); err != nil {
					return err
				}
				c.Mark(rec)
			}
			return tx.CommitOffsets(ctx, c)
		})
		if err != nil {
			return err
		}
		done += len(recs)
	}
	return nil
}

// balances reads the last balance of each account.
func balances(ctx context.Context, db *embedlog.DB) (map[string]balance, error) {
	t, err := db.Topic("balances")
	if err != nil {
		return nil, err
	}
	state := make(map[string]balance)
	for rec, err := range t.Scan(ctx, nil) { // committed records only
		if err != nil {
			return nil, err
		}
		var b balance
		if err := json.Unmarshal(rec.Value, &b); err != nil {
			return nil, err
		}
		state[string(rec.Key)] = b
	}
	return state, nil
}

// check counts that each payment was booked once.
func check(ctx context.Context, out io.Writer, dir string) (err error) {
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	state, err := balances(ctx, db)
	if err != nil {
		return err
	}
	n, cents := 0, 0
	for _, b := range state {
		n += b.Payments
		cents += b.Cents
	}
	t, err := db.Topic("balances")
	if err != nil {
		return err
	}
	records := 0
	for _, err := range t.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		records++
	}
	if want := payments * (payments - 1) / 2; n != payments || cents != want || records != payments {
		return fmt.Errorf("%d payments of %d cents in %d records, want %d of %d in %d", n, cents, records, payments, want, payments)
	}
	fmt.Fprintf(out, "all %d payments are in the balances, each exactly once\n", payments)
	return nil
}
