package faultproc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/x/embedlog"
)

// txnWorkers is how many goroutines of a child have transactions.
const txnWorkers = 2

var txnTopics = map[string]embedlog.Durability{"durable": embedlog.Durable, "interval": embedlog.Interval, "os": embedlog.OS}

func txnGroup(worker string) string { return "group of " + worker }

// workTxns does transactions over several topics, each with an offset of a group,
// and says what it is about to commit and what was.
//
//	txn NAME RECORDS OFFSET    before the commit, or abort
//	committed NAME, aborted NAME
//
// A name is LIFE.WORKER.NUMBER; the values of its records are NAME/NUMBER.
func workTxns(s *Spec, out io.Writer) error {
	w := &work{out: out}
	fs, err := s.fileSystem()
	if err != nil {
		return err
	}
	db, err := embedlog.OpenFS(fs, nil)
	if err != nil {
		return err
	}
	w.say("open 0 0 0")
	ctx := context.Background()
	for name, level := range txnTopics {
		if _, err := db.EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: 2, Durability: level}); err != nil {
			return err
		}
	}
	errs := make([]error, txnWorkers)
	var running sync.WaitGroup
	for worker := range txnWorkers {
		running.Go(func() {
			rng := rand.New(rand.NewPCG(s.Seed, uint64(worker)))
			for i := range s.Rounds {
				if errs[worker] = w.transaction(ctx, db, s.Life, worker, i, rng); errs[worker] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return db.Close()
}

func (w *work) transaction(ctx context.Context, db *embedlog.DB, life, worker, i int, rng *rand.Rand) error {
	name := fmt.Sprintf("%d.%d.%d", life, worker, i)
	tx, err := db.Begin(ctx, &embedlog.TxnOptions{ID: []string{"", fmt.Sprint("named ", worker)}[i%2]})
	if err != nil {
		return err
	}
	defer tx.Abort(ctx)
	records := 1 + rng.IntN(6)
	for n := range records {
		topic := []string{"durable", "interval", "os"}[rng.IntN(3)]
		if _, err := tx.ProduceTo(ctx, embedlog.Record{Topic: topic, Partition: int32(rng.IntN(2)), Value: fmt.Appendf(nil, "%s/%d", name, n)}); err != nil {
			return err
		}
	}
	offset := int64(life)*1_000_000 + int64(i) + 1
	if err := tx.CommitPositions(ctx, txnGroup(fmt.Sprint(worker)), embedlog.Position{Topic: "durable", Offset: offset}); err != nil {
		return err
	}
	w.say("txn %s %d %d", name, records, offset)
	if rng.IntN(4) == 0 {
		if err := tx.Abort(ctx); err != nil {
			return err
		}
		w.say("aborted %s", name)
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	w.say("committed %s", name)
	return nil
}

// txnJournal is what is known of the transactions of several lives from outside.
type txnJournal struct {
	sent      map[string]*saidTxn
	order     []string
	ended     bool // the last life was not killed
	committed int
}

type saidTxn struct {
	records int
	offset  int64
	outcome string // "committed", "aborted" or nothing
}

// read takes in what a child wrote. A line whose end is missing was never written.
func (j *txnJournal) read(b *bytes.Buffer) error {
	j.ended = false
	r := bufio.NewReader(b)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "txn":
			var name string
			tx := &saidTxn{}
			if _, err := fmt.Sscan(rest, &name, &tx.records, &tx.offset); err != nil {
				return fmt.Errorf("child says %q", line)
			}
			j.sent[name] = tx
			j.order = append(j.order, name)
		case "committed", "aborted":
			j.sent[rest].outcome = word
			if word == "committed" {
				j.committed++
			}
		case "open":
		case "end":
			j.ended = true
		default:
			return fmt.Errorf("child says %q", line)
		}
	}
}

// check opens the database and compares, twice: the second open has nothing to do.
func (j *txnJournal) check(dir string) error {
	for range 2 {
		db, err := embedlog.Open(dir, nil)
		if err != nil {
			return err
		}
		err = j.compare(db)
		if e := db.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *txnJournal) compare(db *embedlog.DB) error {
	ctx := context.Background()
	found := make(map[string]int)
	seen := make(map[string]bool)
	for topic := range txnTopics {
		t, err := db.Topic(topic)
		if err != nil {
			continue // the first life did not get so far
		}
		for rec, err := range t.Scan(ctx, nil) {
			if err != nil {
				return err
			}
			if seen[string(rec.Value)] {
				return fmt.Errorf("%s is there twice", rec.Value)
			}
			seen[string(rec.Value)] = true
			name, _, _ := strings.Cut(string(rec.Value), "/")
			found[name]++
		}
	}
	offsets := make(map[string]int64)
	for _, name := range j.order {
		tx, n := j.sent[name], found[name]
		delete(found, name)
		switch {
		case n != 0 && n != tx.records:
			return fmt.Errorf("%s: %d of %d records are there", name, n, tx.records)
		case tx.outcome == "committed" && n == 0:
			return fmt.Errorf("%s was committed and is not there", name)
		case tx.outcome == "aborted" && n != 0:
			return fmt.Errorf("%s was aborted and is there", name)
		}
		if n > 0 {
			offsets[txnGroup(strings.Split(name, ".")[1])] = tx.offset
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("never about to be committed, and there: %v", found)
	}
	for worker := range txnWorkers {
		group := txnGroup(fmt.Sprint(worker))
		list, err := db.Engine().Groups().Committed(ctx, group, nil, true)
		if err != nil {
			return err
		}
		got := int64(0)
		if len(list) > 0 {
			if got = list[0].Offset; list[0].Lost != nil {
				got = list[0].Lost.Offset // the numbers lie past the end of the topic
			}
		}
		if want := offsets[group]; got != want {
			return fmt.Errorf("%s has committed %d, its last transaction that is there says %d", group, got, want)
		}
	}
	return nil
}
