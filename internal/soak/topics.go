package soak

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The topics of a run, by level. copied is what the members of the group "copy" write.
const (
	fastTopic   = "fast"
	safeTopic   = "safe"
	copiedTopic = "copied"
)

// makeTopics makes them.
func (r *run) makeTopics(ctx context.Context) error {
	cl, err := kgo.NewClient(r.options()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, stuck)
	defer cancel()
	for name, level := range map[string]string{fastTopic: "os", safeTopic: "durable", copiedTopic: "os"} {
		settings := map[string]string{
			"embedlog.durability": level,
			"segment.bytes":       "4194304", // some are rolled in a short run, too
			"retention.ms":        "-1",
		}
		of := make(map[string]*string, len(settings))
		for k, v := range settings {
			of[k] = &v
		}
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, int32(r.Partitions), 1, of, name); err != nil {
			return fmt.Errorf("soak: make topic %s: %w", name, err)
		}
	}
	return nil
}

// Topics are the names of the topics that a server has to have, see Config.Server: those
// that anybody may send to, and the one that only the group of copiers sends to.
func Topics() (sent []string, copied string) { return []string{fastTopic, safeTopic}, copiedTopic }
