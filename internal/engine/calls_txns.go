package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// AnyTxns is Txns from any node: each call goes to the transactional id's coordinator,
// who leads the partition of __transaction_state that the id lies in. It waits 30 seconds
// at most for one. Alone it is Txns. In a cluster no producer is Local: its transaction is
// durable before it writes, and outlives its node.
//
// All calls may be made twice: the coordinator knows the producer's epoch.
type AnyTxns struct{ t *Txns }

// AnyTxns are the transactions, wherever their coordinators are.
func (e *Engine) AnyTxns() AnyTxns { return AnyTxns{e.txns} }

const (
	serviceTxnInit     = "txn-init-producer"
	serviceTxnAdd      = "txn-add-partitions"
	serviceTxnOffsets  = "txn-add-offsets"
	serviceTxnEnd      = "txn-end"
	serviceTxnVerify   = "txn-verify"
	serviceTxnDescribe = "txn-describe"
	serviceTxnList     = "txn-list"
)

type (
	// txnCaller is who asks, in the names of Kafka's requests.
	txnCaller struct {
		TransactionalID string
		ProducerID      int64
		Epoch           int16
	}
	txnAddCall struct {
		Producer   txnCaller
		Partitions []TopicPartitions
	}
	txnOffsetsCall struct {
		Producer txnCaller
		Group    string
	}
	txnEndCall struct {
		Producer txnCaller
		Commit   bool
	}
	txnVerifyCall struct {
		Producer  txnCaller
		Topic     TopicID
		Partition int32
	}
	// txnNext is the producer id and epoch to go on with.
	txnNext struct {
		ProducerID int64
		Epoch      int16
	}
	txnListAnswer struct {
		List []TxnListing
		Led  []int32
	}
)

// serveTxns registers what peers ask a coordinator of transactions.
func (e *Engine) serveTxns() {
	serveStruct(e, serviceTxnInit, func(ctx context.Context, r *InitRequest) (n txnNext, err error) {
		n.ProducerID, n.Epoch, err = e.txns.InitProducer(ctx, *r)
		return n, err
	})
	serveStruct(e, serviceTxnAdd, func(ctx context.Context, r *txnAddCall) (nothing, error) {
		return nothing{}, e.txns.AddPartitions(ctx, r.Producer.TransactionalID, r.Producer.ProducerID, r.Producer.Epoch, r.Partitions)
	})
	serveStruct(e, serviceTxnOffsets, func(ctx context.Context, r *txnOffsetsCall) (nothing, error) {
		return nothing{}, e.txns.AddOffsets(ctx, r.Producer.TransactionalID, r.Producer.ProducerID, r.Producer.Epoch, r.Group)
	})
	serveStruct(e, serviceTxnEnd, func(ctx context.Context, r *txnEndCall) (n txnNext, err error) {
		n.ProducerID, n.Epoch, err = e.txns.End(ctx, r.Producer.TransactionalID, r.Producer.ProducerID, r.Producer.Epoch, r.Commit)
		return n, err
	})
	serveStruct(e, serviceTxnVerify, func(ctx context.Context, r *txnVerifyCall) (nothing, error) {
		return nothing{}, e.txns.Verify(ctx, r.Producer.TransactionalID, r.Producer.ProducerID, r.Producer.Epoch, r.Topic, r.Partition)
	})
	serveStruct(e, serviceTxnDescribe, func(ctx context.Context, r *txnCaller) (TxnDescription, error) {
		return e.txns.Describe(r.TransactionalID)
	})
	serveStruct(e, serviceTxnList, func(ctx context.Context, _ *nothing) (txnListAnswer, error) { return e.txns.listLed(), nil })
}

// home is where an id lies; nil when there is no __transaction_state yet.
func (t *Txns) home(id string) *Partition {
	topic, err := t.e.Topic(txnTopicName)
	if err != nil {
		return nil
	}
	parts := topic.Partitions()
	return parts[offsetsPartitionOf(id, len(parts))]
}

func askTxns[Req, Res any](ctx context.Context, t *Txns, id, what, service string, firm bool, req *Req, here func(context.Context) (Res, error)) (res Res, err error) {
	if t.e.cluster == nil {
		return here(ctx)
	}
	r := route{e: t.e, what: fmt.Sprintf("%s of %q", what, id), part: func() *Partition { return t.home(id) }, again: true, firm: firm}
	err = r.run(ctx, func(ctx context.Context) (err error) {
		// Some of the calls would go on by themselves, and not be made again.
		if p := t.home(id); p != nil {
			if err := p.leads(); err != nil {
				return err
			}
		}
		res, err = here(ctx)
		return err
	}, func(ctx context.Context, node int32) (err error) {
		res, err = callStruct[Req, Res](ctx, t.e, node, service, req)
		return err
	})
	return res, err
}

// InitProducer is Txns.InitProducer.
func (a AnyTxns) InitProducer(ctx context.Context, r InitRequest) (producerID int64, epoch int16, err error) {
	t := a.t
	if t.e.cluster != nil {
		r.Local = false
	}
	if r.TransactionalID == "" {
		return t.InitProducer(ctx, r) // an id, which any node can have from the metadata
	}
	n, err := askTxns(ctx, t, r.TransactionalID, "init producer", serviceTxnInit, true, &r, func(ctx context.Context) (n txnNext, err error) {
		n.ProducerID, n.Epoch, err = t.InitProducer(ctx, r)
		return n, err
	})
	if err != nil {
		return -1, -1, err
	}
	return n.ProducerID, n.Epoch, nil
}

// AddPartitions is Txns.AddPartitions.
func (a AnyTxns) AddPartitions(ctx context.Context, id string, producerID int64, epoch int16, parts []TopicPartitions) error {
	c := txnAddCall{txnCaller{id, producerID, epoch}, parts}
	_, err := askTxns(ctx, a.t, id, "add partitions to the transaction", serviceTxnAdd, true, &c, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.t.AddPartitions(ctx, id, producerID, epoch, parts)
	})
	return err
}

// AddOffsets is Txns.AddOffsets.
func (a AnyTxns) AddOffsets(ctx context.Context, id string, producerID int64, epoch int16, group string) error {
	c := txnOffsetsCall{txnCaller{id, producerID, epoch}, group}
	_, err := askTxns(ctx, a.t, id, "add offsets to the transaction", serviceTxnOffsets, true, &c, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.t.AddOffsets(ctx, id, producerID, epoch, group)
	})
	return err
}

// End is Txns.End. An error that matches partition.ErrUnknownOutcome says that it may be
// committed or not.
func (a AnyTxns) End(ctx context.Context, id string, producerID int64, epoch int16, commit bool) (newProducerID int64, newEpoch int16, err error) {
	c := txnEndCall{txnCaller{id, producerID, epoch}, commit}
	what := "abort transaction"
	if commit {
		what = "commit transaction"
	}
	n, err := askTxns(ctx, a.t, id, what, serviceTxnEnd, false, &c, func(ctx context.Context) (n txnNext, err error) {
		n.ProducerID, n.Epoch, err = a.t.End(ctx, id, producerID, epoch, commit)
		return n, err
	})
	if err != nil {
		return -1, -1, err
	}
	return n.ProducerID, n.Epoch, nil
}

// Verify is Txns.Verify.
func (a AnyTxns) Verify(ctx context.Context, id string, producerID int64, epoch int16, topic TopicID, partition int32) error {
	c := txnVerifyCall{txnCaller{id, producerID, epoch}, topic, partition}
	_, err := askTxns(ctx, a.t, id, "verify the transaction", serviceTxnVerify, true, &c, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.t.Verify(ctx, id, producerID, epoch, topic, partition)
	})
	return err
}

// Describe is Txns.Describe.
func (a AnyTxns) Describe(ctx context.Context, id string) (TxnDescription, error) {
	return askTxns(ctx, a.t, id, "describe the transaction", serviceTxnDescribe, true, &txnCaller{TransactionalID: id}, func(context.Context) (TxnDescription, error) {
		return a.t.Describe(id)
	})
}

// listLed lists the ids in the partitions that this node leads.
func (t *Txns) listLed() (a txnListAnswer) {
	topic, err := t.e.Topic(txnTopicName)
	if err != nil {
		return a
	}
	led := map[int32]int32{}
	for _, p := range topic.Partitions() {
		if p.repl == nil {
			continue
		}
		if epoch, err := p.repl.LeaderEpoch(); err == nil {
			led[p.id] = epoch
		}
	}
	list := t.List()
	for _, p := range topic.Partitions() {
		if was, ok := led[p.id]; ok {
			if epoch, err := p.repl.LeaderEpoch(); err == nil && epoch == was {
				a.Led = append(a.Led, p.id)
			}
		}
	}
	a.List = slices.DeleteFunc(list, func(l TxnListing) bool {
		return !slices.Contains(a.Led, offsetsPartitionOf(l.TransactionalID, len(topic.Partitions())))
	})
	return a
}

// List is Txns.List: all nodes are asked, until each partition of __transaction_state
// was answered for by who leads it.
func (a AnyTxns) List(ctx context.Context) ([]TxnListing, error) {
	e := a.t.e
	if e.cluster == nil {
		return a.t.List(), nil
	}
	topic, err := e.internalTopic(ctx, txnTopicName)
	if topic == nil {
		return nil, err
	}
	var list []TxnListing
	seen := map[int32]bool{}
	err = e.askAll(ctx, "list transactions", func(ctx context.Context, node int32) (done bool, err error) {
		var answer txnListAnswer
		if node == e.cluster.Self() {
			answer = a.t.listLed()
		} else if answer, err = callStruct[nothing, txnListAnswer](ctx, e, node, serviceTxnList, &nothing{}); err != nil {
			return false, err
		}
		fresh := map[int32]bool{}
		for _, n := range answer.Led {
			fresh[n] = !seen[n]
			seen[n] = true
		}
		for _, l := range answer.List {
			if fresh[offsetsPartitionOf(l.TransactionalID, len(topic.Partitions()))] {
				list = append(list, l)
			}
		}
		return len(seen) == len(topic.Partitions()), nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b TxnListing) int { return strings.Compare(a.TransactionalID, b.TransactionalID) })
	return list, nil
}
