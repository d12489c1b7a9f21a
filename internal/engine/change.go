package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// fixedWhenInternal are settings that cannot be changed on an internal topic.
var fixedWhenInternal = []string{settingCleanup, settingDurability}

// FixedWhenInternal says whether a setting cannot be changed on an internal topic.
func FixedWhenInternal(name string) bool { return slices.Contains(fixedWhenInternal, name) }

// SettingsChange says what becomes of a topic's settings: which get a value, and
// which become the default. It is called while nobody else changes topics, so that
// what it decides by what is there holds, and must not change topics itself. Its
// error is returned.
type SettingsChange func(Settings) (set map[string]string, unset []string, err error)

// ChangeSettings is AlterTopic with settings that depend on those the topic has. A
// value that the topic has already is no change, also where it could not be changed.
func (e *Engine) ChangeSettings(ctx context.Context, name string, f SettingsChange) error {
	return e.changeSettings(ctx, name, f, false)
}

// CheckChangeSettings says whether ChangeSettings would do, and changes nothing.
func (e *Engine) CheckChangeSettings(ctx context.Context, name string, f SettingsChange) error {
	return e.changeSettings(ctx, name, f, true)
}

func (e *Engine) changeSettings(ctx context.Context, name string, f SettingsChange, checkOnly bool) error {
	return e.change(ctx, "alter topic", name, TopicID{}, func(t *Topic) error {
		set, unset, err := f(t.settings)
		if err != nil {
			return err
		}
		set, unset = t.settings.differing(set, unset)
		a, err := e.alteration(t, set, unset)
		switch {
		case err != nil:
			return err
		case checkOnly:
			return e.meta.holds(a.command)
		case len(set) == 0 && len(unset) == 0:
			return nil
		}
		return e.alterTopic(ctx, t, set, unset)
	})
}

// differing leaves out what changes nothing. Names that are not known stay, to be
// refused.
func (s Settings) differing(set map[string]string, unset []string) (map[string]string, []string) {
	changed := make(map[string]string, len(set))
	for name, value := range set {
		if has, explicit := s.Get(name); !explicit || has != strings.TrimSpace(value) {
			changed[name] = value
		}
	}
	unset = slices.DeleteFunc(slices.Clone(unset), func(name string) bool {
		_, explicit := s.Get(name)
		return !explicit && findSetting(name) != nil
	})
	return changed, unset
}

// CheckCreateTopic says whether CreateTopic would make that topic now, and which
// settings it would have. It makes nothing.
func (e *Engine) CheckCreateTopic(ctx context.Context, spec TopicSpec) (Settings, error) {
	settings, err := e.checkCreateTopic(ctx, spec)
	if err != nil {
		return Settings{}, fmt.Errorf("create topic %s: %w", spec.Name, err)
	}
	return settings, nil
}

func (e *Engine) checkCreateTopic(ctx context.Context, spec TopicSpec) (Settings, error) {
	if err := checkUserTopic(spec.Name); err != nil {
		return Settings{}, err
	}
	t, err := e.newTopic(spec, false)
	if err != nil {
		return Settings{}, err
	}
	if err := e.beginChange(ctx); err != nil {
		return Settings{}, err
	}
	defer e.endChange()
	c, err := e.creation(t, spec)
	if err != nil {
		return Settings{}, err
	}
	return t.settings, e.meta.holds(c)
}

// checkUserTopic refuses names of internal topics.
func checkUserTopic(name string) error {
	if strings.HasPrefix(name, internalPrefix) {
		return &InvalidTopicError{Name: name, Reason: `names that begin with "__" are for internal topics`}
	}
	return nil
}

// CheckAddPartitions says whether AddPartitionsByID would do, and changes nothing.
func (e *Engine) CheckAddPartitions(ctx context.Context, id TopicID, total int, replicas ...[]int32) error {
	return e.change(ctx, "add partitions to topic", "", id, func(t *Topic) error {
		_, err := e.addition(t, total, replicas)
		return err
	})
}
