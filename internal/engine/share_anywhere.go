package engine

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/x/embedlog/partition"
)

// What is administered of share groups, from any node. Clients send the settings of a group to any node, and take no
// answer for a reason to look for its coordinator: so the node that is asked does.

// sharePatience is how long is waited for a coordinator that reads its log, or joins that of the group's members.
const sharePatience = 5 * time.Second

// patiently calls f, which may be called twice, until it finds the coordinator.
func (s *Shares) patiently(ctx context.Context, f func() error) error {
	err := f()
	if s.engine.cluster == nil {
		return err
	}
	deadline := time.Now().Add(sharePatience)
	r := route{e: s.engine}
	for pause := firstPause; isLoading(err) && time.Now().Before(deadline); pause = min(2*pause, longestPause) {
		r.pause(ctx, pause)
		if ctx.Err() != nil || s.engine.closed.Load() {
			break
		}
		err = f()
	}
	return err
}

const (
	serviceShareOffset   = "share-offset"
	serviceShareSettings = "share-settings-list"
)

// shareSettingsList is which groups one coordinator knows to have settings, and which partitions of
// __share_group_state it led meanwhile.
type shareSettingsList struct {
	Names []string
	Led   []int32
}

func nameListed(name *string) string { return *name }

func (s *Shares) withSettingsLed(ctx context.Context) (a shareSettingsList, err error) {
	t, err := s.engine.Topic(shareTopicName)
	if err != nil {
		return a, nil // nobody has set anything
	}
	a.Names, a.Led, err = listLed(ctx, t, s.withSettingsHere, nameListed)
	return a, err
}

// WithSettings are the names of the groups that have settings of their own, ascending. Any node may be asked: it asks
// all of them, until each partition of __share_group_state was answered for by who leads it.
func (s *Shares) WithSettings(ctx context.Context) ([]string, error) {
	e := s.engine
	if e.cluster == nil {
		return s.withSettingsHere(ctx)
	}
	t, err := e.internalTopic(ctx, shareTopicName)
	if t == nil {
		return nil, err
	}
	return listAll(ctx, e, "list settings of groups", t, nameListed, func(ctx context.Context, node int32) ([]string, []int32, error) {
		if node == e.cluster.Self() {
			answer, err := s.withSettingsLed(ctx)
			return answer.Names, answer.Led, err
		}
		answer, err := callStruct[nothing, shareSettingsList](ctx, e, node, serviceShareSettings, &nothing{})
		return answer.Names, answer.Led, err
	})
}

// shareOffsetCall asks whoever coordinates a group's members to set where it goes on in a partition. It may be made twice.
type shareOffsetCall struct {
	Group     string
	Topic     TopicID
	Partition int32
	Start     int64
}

// shareSettingsCall asks for the settings of a group; with Set they become After, if they are Before.
type shareSettingsCall struct {
	Group         string
	Set, Dry      bool
	Before, After map[string]string
}

// shareSettingsSaid is the answer. Changed says that they are not Before.
type shareSettingsSaid struct {
	Explicit map[string]string
	Changed  bool
}

func (s *Shares) askSettings() *service[shareSettingsCall, shareSettingsSaid] {
	return &service[shareSettingsCall, shareSettingsSaid]{"share.settings", func(ctx context.Context, q *shareSettingsCall) (a shareSettingsSaid, err error) {
		if !q.Set {
			settings, err := s.settings(ctx, q.Group)
			if err == nil {
				a.Explicit = maps.Clone(settings.explicit)
			}
			return a, err
		}
		err = s.alterSettings(ctx, q.Group, q.Dry, func(set map[string]string) (map[string]string, error) {
			if a.Changed = !maps.Equal(set, q.Before) && !maps.Equal(set, q.After); a.Changed {
				return set, nil
			}
			return maps.Clone(q.After), nil
		})
		return a, err
	}}
}

// explicit is what was set for a group.
func (s *Shares) explicit(ctx context.Context, group string) (map[string]string, error) {
	if s.engine.cluster == nil {
		settings, err := s.settings(ctx, group)
		if err != nil {
			return nil, err
		}
		return maps.Clone(settings.explicit), nil
	}
	if err := checkGroupName(group); err != nil {
		return nil, err
	}
	// Before anybody has set anything there is no coordinator, and none is made for a question.
	if t, err := s.engine.internalTopic(ctx, shareTopicName); t == nil {
		return nil, err
	}
	a, err := s.askSettings().of(ctx, s, group, &shareSettingsCall{Group: group})
	return a.Explicit, err
}

// alterAnywhere is alterSettings, by whoever coordinates the group. A change whose answer did not come is made
// again: it finds what it has made.
func (s *Shares) alterAnywhere(ctx context.Context, group string, dry bool, change func(set map[string]string) (map[string]string, error)) error {
	if s.engine.cluster == nil {
		return s.alterSettings(ctx, group, dry, change)
	}
	for lost := 0; ; {
		before, err := s.explicit(ctx, group)
		if err != nil {
			return err
		}
		set := map[string]string{} // that is written to
		maps.Copy(set, before)
		after, err := change(set)
		if err != nil {
			return err
		}
		if dry {
			_, err = newShareSettings(after)
			return err
		}
		a, err := s.askSettings().of(ctx, s, group, &shareSettingsCall{Group: group, Set: true, Before: before, After: after})
		if errors.Is(err, partition.ErrUnknownOutcome) && ctx.Err() == nil && lost < leaderTries {
			lost++
			continue
		}
		if err != nil || !a.Changed {
			return err
		}
	}
}
