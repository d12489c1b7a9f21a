package kafka

import (
	"slices"
	"strings"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// configResource is what settings belong to.
type configResource struct {
	kind kmsg.ConfigResourceType
	name string
}

// checkAlteration refuses what says something twice, and so nothing for certain.
func checkAlteration(names []string, times int) error {
	if times > 1 {
		return refuse(codeInvalidRequest, "Each resource must appear at most once.")
	}
	sorted := slices.Sorted(slices.Values(names))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return refuse(codeInvalidRequest, "Error due to duplicate config keys: %s", sorted[i])
		}
	}
	return nil
}

// alter changes the settings of a resource: given are the names that get a value,
// and change says what a topic's settings become.
func (r *request) alter(what configResource, validateOnly bool, given []string, change engine.SettingsChange) error {
	switch what.kind {
	case kmsg.ConfigResourceTypeTopic:
		if !r.authorize(OpAlterConfigs, ResourceTopic, what.name) {
			return errTopicDenied
		}
		if err := engine.CheckTopicName(what.name); err != nil {
			return err
		}
		if validateOnly {
			return r.engine.CheckChangeSettings(r.life, what.name, change)
		}
		return r.engine.ChangeSettings(r.life, what.name, change)
	case kmsg.ConfigResourceTypeGroupConfig:
		if !r.authorize(OpAlterConfigs, ResourceGroup, what.name) {
			return errGroupDenied
		}
		if what.name == "" {
			return refuse(codeInvalidRequest, "Default group resources are not allowed.")
		}
		return noneGiven(given, codeInvalidConfig, "groups have no settings of their own")
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics:
		if !r.authorize(OpAlterConfigs, ResourceCluster, ClusterName) {
			return errClusterDenied
		}
	default:
		return refuse(codeInvalidRequest, "resource type %d is not known", what.kind)
	}
	switch what.kind {
	case kmsg.ConfigResourceTypeBrokerLogger:
		return noneGiven(given, codeInvalidRequest, "the levels of the program's logger are its own")
	case kmsg.ConfigResourceTypeClientMetrics:
		return noneGiven(given, codeInvalidRequest, "metrics of clients are not collected")
	}
	if what.name != "" {
		if err := r.isNode(what.name); err != nil {
			return err
		}
	}
	return noneGiven(given, codeInvalidRequest, "settings of the node are options of the program that opened the database, and cannot be changed while it runs")
}

// noneGiven refuses settings that cannot be given a value. Taking back what was never
// set is no error: tools do that when they tidy up.
func noneGiven(given []string, code int16, reason string) error {
	if len(given) == 0 {
		return nil
	}
	return refuse(code, "%s: %s", strings.Join(given, ", "), reason)
}
