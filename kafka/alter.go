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

// groupChange is told what is set for a group and returns what is to be.
type groupChange func(set map[string]string) (map[string]string, error)

// alter changes the settings of a resource: given are the names that get a value,
// change says what a topic's settings become, and group what a group's do.
func (r *request) alter(what configResource, validateOnly bool, given []string, change engine.SettingsChange, group groupChange) error {
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
		var others []string // a share group's settings are known to the engine
		for _, name := range given {
			if !strings.HasPrefix(name, sharePrefix) {
				others = append(others, name)
			}
		}
		if err := noneGiven(others, codeInvalidConfig, "only share groups have settings of their own"); err != nil {
			return err
		}
		return r.engine.Shares().AlterSettings(r.life, what.name, validateOnly, group)
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

// sharePrefix begins the names of settings that a group can have.
const sharePrefix = "share."

// noneGiven refuses settings that cannot be given a value. Taking back what was never
// set is no error: tools do that when they tidy up.
func noneGiven(given []string, code int16, reason string) error {
	if len(given) == 0 {
		return nil
	}
	return refuse(code, "%s: %s", strings.Join(given, ", "), reason)
}
