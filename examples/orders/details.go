package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/x/embedlog"
)

const (
	detailsGroup = "order-details"
	// detailsTimeout is after what time other instances do the work of one that was killed, and after which a transaction is aborted that it had open.
	detailsTimeout = 2 * time.Second
)

// startDetails starts the service that looks at what an order says. It is no graph but a consumer and transactions, as any program could have them: its answers
// and its positions are committed together, so that it goes on where it was and answers once. The instances share the partitions: their consumers are a group.
func (s *shop) startDetails(ctx context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			err := s.checkOrders(ctx)
			if ctx.Err() == nil && !passes(err) {
				s.failed <- fmt.Errorf("order details: %w", err)
				return
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	s.closers = append(s.closers, func() error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}

// checkOrders is the life of a consumer, which ends when something goes wrong. What was not committed is read again, by the next one.
func (s *shop) checkOrders(ctx context.Context) (err error) {
	c, err := s.db.Consumer(&embedlog.ConsumerConfig{Group: detailsGroup, Topics: []string{s.orders.Name()}, ManualCommit: true, SessionTimeout: detailsTimeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for {
		recs, err := c.Poll(ctx, 100)
		if err == nil {
			err = s.checkSome(ctx, c, recs)
		}
		if err != nil {
			return err
		}
	}
}

// checkSome answers some orders, in one transaction.
func (s *shop) checkSome(ctx context.Context, c *embedlog.Consumer, recs []embedlog.Record) error {
	tx, err := s.db.Begin(ctx, &embedlog.TxnOptions{Timeout: detailsTimeout})
	if err != nil {
		return err
	}
	defer tx.Abort(ctx) // does nothing after Commit
	for _, rec := range recs {
		var o order
		if err := json.Unmarshal(rec.Value, &o); err == nil && o.State == created {
			answer, err := s.validations.Encode(o.ID, validation{o.ID, detailsCheck, resultOf(o.detailsAreGood())})
			if err != nil {
				return err
			}
			answer.Topic = s.validations.Name()
			if _, err := tx.Produce(ctx, answer); err != nil {
				return err
			}
		}
		c.Mark(rec)
	}
	if err := tx.CommitOffsets(ctx, c); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func (o order) detailsAreGood() bool { return o.Quantity > 0 && o.Price >= 0 && o.Product != "" }
