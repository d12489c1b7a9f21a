package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/sock"
)

// kafkaDoor is the door of Kafka's protocol: any broker that speaks it. It answers
// what the command socket answers, as far as the protocol can say it.
type kafkaDoor struct {
	app   *app
	at    *address
	opts  []kgo.Opt // of every client
	cl    *kgo.Client
	admin *kadm.Client

	producer *kafkaProducer
	consumer *kafkaConsumer
}

// kafkaHandlers has a row for each request; those that need the database's files have
// none, and commands that make them do not come this far, see reaches.
var kafkaHandlers = map[sock.Op]func(*kafkaDoor, context.Context, []byte) (any, error){
	sock.OpInfo:          overKafka((*kafkaDoor).info),
	sock.OpTopics:        overKafka((*kafkaDoor).topics),
	sock.OpCreateTopic:   overKafka((*kafkaDoor).createTopic),
	sock.OpAlterTopic:    overKafka((*kafkaDoor).alterTopic),
	sock.OpAddPartitions: overKafka((*kafkaDoor).addPartitions),
	sock.OpTrim:          overKafka((*kafkaDoor).trim),
	sock.OpDeleteTopic:   overKafka((*kafkaDoor).deleteTopic),
	sock.OpListOffsets:   overKafka((*kafkaDoor).listOffsets),
	sock.OpProducer:      overKafka((*kafkaDoor).openProducer),
	sock.OpProduce:       (*kafkaDoor).produce,
	sock.OpConsumer:      overKafka((*kafkaDoor).openConsumer),
	sock.OpCommit:        overKafka((*kafkaDoor).commit),
	sock.OpLag:           overKafka((*kafkaDoor).lag),
	sock.OpGroups:        overKafka((*kafkaDoor).groups),
	sock.OpGroup:         overKafka((*kafkaDoor).group),
	sock.OpResetGroup:    overKafka((*kafkaDoor).resetGroup),
	sock.OpDeleteGroup:   overKafka((*kafkaDoor).deleteGroup),
	sock.OpUsers:         overKafka((*kafkaDoor).users),
	sock.OpSetUser:       overKafka((*kafkaDoor).setUser),
	sock.OpDeleteUser:    overKafka((*kafkaDoor).deleteUser),
	sock.OpACLs:          overKafka((*kafkaDoor).acls),
	sock.OpCreateACLs:    overKafka((*kafkaDoor).createACLs),
	sock.OpDeleteACLs:    overKafka((*kafkaDoor).deleteACLs),
}

// overKafka makes a handler of a function that takes the request as it was before it
// became JSON.
func overKafka[Q, A any](f func(*kafkaDoor, context.Context, Q) (A, error)) func(*kafkaDoor, context.Context, []byte) (any, error) {
	return func(k *kafkaDoor, ctx context.Context, payload []byte) (any, error) {
		var q Q
		if err := json.Unmarshal(payload, &q); err != nil {
			return nil, fmt.Errorf("%w: %w", sock.ErrProtocol, err)
		}
		return f(k, ctx, q)
	}
}

// do implements door.
func (k *kafkaDoor) do(ctx context.Context, op sock.Op, payload []byte, progress func(sock.Progress)) ([]byte, error) {
	var answer any
	var err error
	switch h, ok := kafkaHandlers[op]; {
	case op == sock.OpPoll:
		answer, err = k.poll(ctx, payload, progress)
	case !ok:
		return nil, &sock.Error{Code: sock.CodeInvalid, Message: "this works on the files of a database: give --data DIR, not --address"}
	default:
		answer, err = h(k, ctx, payload)
	}
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil, &sock.Error{Code: sock.CodeCancelled, Message: err.Error()}
		}
		return nil, k.at.told(err)
	}
	if b, ok := answer.([]byte); ok {
		return b, nil
	}
	return json.Marshal(answer)
}

// Close implements door: a member leaves its group.
func (k *kafkaDoor) Close() error {
	k.closeProducer()
	k.closeConsumer()
	k.cl.Close()
	return nil
}

type none = struct{}
