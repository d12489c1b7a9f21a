package kafkaload

import (
	"context"
	"errors"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

// ServeOurs serves an embedlog database in dir to Kafka clients, with default settings
// but for the level, until the parent wants no more.
func ServeOurs(dir string, l *Load) error {
	level := embedlog.OS
	if l.Durable {
		level = embedlog.Durable
	}
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	_, err = db.EnsureTopic(context.Background(), Topic, &embedlog.TopicConfig{Partitions: l.Partitions(), Durability: level})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	server, err := kafka.Serve(db, &kafka.Options{
		Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}},
		Limits:    kafka.Limits{ConnectionsPerIP: -1}, // all clients have the same, and three connections each
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	err = Serve(server.Addrs()[0].String())
	return errors.Join(err, server.Close(), db.Close())
}
