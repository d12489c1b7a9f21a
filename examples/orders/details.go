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

const detailsGroup = "order-details"

// startDetails starts the service that looks at what an order says. It is no graph but a consumer and transactions, as any program could have them: its answers
// and its positions are committed together, so that it goes on where it was and answers once.
func (s *shop) startDetails(ctx context.Context) error {
	c, err := s.db.Consumer(&embedlog.ConsumerConfig{Group: detailsGroup, Topics: []string{s.orders.Name()}, ManualCommit: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	var failure error
	running.Go(func() {
		for ctx.Err() == nil {
			err := s.checkSome(ctx, c)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if !embedlog.IsRetriable(err) && !errors.Is(err, embedlog.ErrRebalance) {
				failure = fmt.Errorf("order details: %w", err)
				return
			}
			select { // what was not committed is read again
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	s.closers = append(s.closers, func() error {
		cancel()
		running.Wait()
		return errors.Join(failure, c.Close())
	})
	return nil
}

// checkSome answers some orders, in one transaction.
func (s *shop) checkSome(ctx context.Context, c *embedlog.Consumer) error {
	recs, err := c.Poll(ctx, 100)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *embedlog.Txn) error {
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
		return tx.CommitOffsets(ctx, c)
	})
}

func (o order) detailsAreGood() bool { return o.Quantity > 0 && o.Price >= 0 && o.Product != "" }
