package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/x/embedlog/log"
)

// settings are those in force for a group, whatever it is.
func (s *Shares) settings(ctx context.Context, group string) (*shareSettings, error) {
	g, err := s.group(ctx, group, false)
	if err != nil || g == nil {
		return defaultShareSettings, err
	}
	return g.settings.Load(), nil
}

// loadedSettings are those of a group that are in memory.
func (s *Shares) loadedSettings(group string) *shareSettings {
	if shards := s.allShards(); shards != nil {
		if shard := shards[offsetsPartitionOf(group, len(shards))]; shard.loaded.Load() && shard.tenure.ended() == nil {
			shard.mu.Lock()
			defer shard.mu.Unlock()
			if g := shard.groups[group]; g != nil {
				return g.settings.Load()
			}
		}
	}
	return defaultShareSettings
}

// LockTimeout is for how long members of a group get records, in milliseconds.
func (s *Shares) LockTimeout(ctx context.Context, group string) (millis int32, err error) {
	a, err := s.askLock().of(ctx, s, group, &shareRelease{Group: group})
	if err != nil {
		return 0, fmt.Errorf("settings of group %q: %w", group, err)
	}
	return a.Millis, nil
}

// Settings returns what was set for a group, which there need not be.
func (s *Shares) Settings(ctx context.Context, group string) (set map[string]string, err error) {
	err = s.patiently(ctx, func() (err error) {
		set, err = s.explicit(ctx, group)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("settings of group %q: %w", group, err)
	}
	return set, nil
}

// AlterSettings changes settings of a group, which there need not be: change is told what is set, and
// returns what is to be. They are on the disk, and in force, when it returns nil. With dry it only
// says whether it would. Bad ones are *InvalidSettingError, joined.
func (s *Shares) AlterSettings(ctx context.Context, group string, dry bool, change func(set map[string]string) (map[string]string, error)) error {
	err := s.patiently(ctx, func() error { return s.alterAnywhere(ctx, group, dry, change) })
	if err != nil {
		return fmt.Errorf("settings of group %q: %w", group, err)
	}
	return nil
}

func (s *Shares) alterSettings(ctx context.Context, group string, dry bool, change func(set map[string]string) (map[string]string, error)) error {
	if err := checkGroupName(group); err != nil {
		return err
	}
	g, err := s.groupToAlter(ctx, group, !dry)
	if err != nil {
		return err
	}
	before := defaultShareSettings
	if g != nil {
		defer func() {
			g.forgetAltering()
			g.altering <- struct{}{}
		}()
		before = g.settings.Load()
	}
	set, err := change(maps.Clone(before.explicit))
	if err != nil {
		return err
	}
	after, err := newShareSettings(set)
	if err != nil || dry || maps.Equal(after.explicit, before.explicit) {
		return err
	}
	if len(before.explicit) == 0 {
		names, err := s.withSettingsHere(ctx)
		if err != nil {
			return err
		}
		if len(names) >= maxGroupsWithSettings {
			return &InvalidSettingError{Name: "group", Value: group, Reason: fmt.Sprintf("%d groups have settings, no more can have", len(names))}
		}
	}
	if err := g.storeSettings(ctx, s.engine.Now().UnixMilli(), after); err != nil {
		return err
	}
	g.settings.Store(after)
	for _, sp := range g.list() {
		sp.mu.Lock()
		sp.wakeLocked()
		sp.mu.Unlock()
	}
	return nil
}

// groupToAlter returns the group, whose altering the caller then has. It is nil when create
// is false and there is nothing.
func (s *Shares) groupToAlter(ctx context.Context, name string, create bool) (*shareGroup, error) {
	for {
		g, err := s.group(ctx, name, create)
		if err != nil || g == nil {
			return nil, err
		}
		if err := take(ctx, g.altering); err != nil {
			return nil, err
		}
		g.shard.mu.Lock()
		there := g.mappedLocked()
		g.shard.mu.Unlock()
		if there {
			return g, nil
		}
		g.altering <- struct{}{}
	}
}

// withSettingsHere are those of which this node knows, ascending: in a cluster those that it coordinates, and maybe others.
func (s *Shares) withSettingsHere(ctx context.Context) (names []string, err error) {
	groups, err := s.loadAll(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if len(g.settings.Load().explicit) > 0 {
			names = append(names, g.name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// storeSettings writes settings of the group; without any it forgets them.
func (g *shareGroup) storeSettings(ctx context.Context, millis int64, settings *shareSettings) error {
	key := shareKey{version: shareSettingsKeyVersion, group: g.name}
	rec := log.Record{Timestamp: millis, Key: appendShareKey(nil, &key)}
	if len(settings.explicit) > 0 {
		rec.Value = appendShareSettings(nil, settings.explicit)
	}
	return g.shard.append(ctx, []log.Record{rec})
}
