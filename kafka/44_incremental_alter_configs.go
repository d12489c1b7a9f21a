package kafka

import (
	"slices"
	"strings"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// IncrementalAlterConfigs, versions 0 and 1: changes single settings. (KIP-339)

func init() { register(0, 1, incrementalAlterConfigs) }

func incrementalAlterConfigs(r *request, q *kmsg.IncrementalAlterConfigsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	if err := r.grow(len(q.Resources), explainedBytes); err != nil {
		return nil, err
	}
	times := counted(q.Resources, func(a *kmsg.IncrementalAlterConfigsRequestResource) configResource {
		return configResource{a.ResourceType, a.ResourceName}
	})
	for i := range q.Resources {
		asked := &q.Resources[i]
		what := configResource{asked.ResourceType, asked.ResourceName}
		names, given, err := incrementalNames(asked.Configs)
		if err == nil {
			err = checkAlteration(names, times[what])
		}
		if err == nil {
			err = r.alter(what, q.ValidateOnly, given, func(s engine.Settings) (map[string]string, []string, error) {
				return applyOps(s, asked.Configs)
			}, func(set map[string]string) (map[string]string, error) { return applyGroupOps(set, asked.Configs) })
		}
		answer := kmsg.NewIncrementalAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		resp.Resources = append(resp.Resources, answer)
	}
	return resp, nil
}

// maxSettingBytes bounds a value that is put together with one that is there: each item
// of a list is looked for in the other.
const maxSettingBytes = 4096

// incrementalNames are the names in a change, and those of them that get a value.
func incrementalNames(changes []kmsg.IncrementalAlterConfigsRequestResourceConfig) (names, given []string, err error) {
	for _, c := range changes {
		names = append(names, c.Name)
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpDelete:
			continue
		case kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
		default:
			return nil, nil, refuse(codeInvalidRequest, "operation %d on %s is not known", c.Op, c.Name)
		}
		if c.Value == nil {
			return nil, nil, refuse(codeInvalidRequest, "Null value not supported for : %s", c.Name)
		}
		if len(*c.Value) > maxSettingBytes {
			return nil, nil, refuse(codeInvalidConfig, "the value of %s has %d bytes, at most %d are allowed", c.Name, len(*c.Value), maxSettingBytes)
		}
		given = append(given, c.Name)
	}
	return names, given, nil
}

// applyOps is what a topic's settings become.
func applyOps(s engine.Settings, changes []kmsg.IncrementalAlterConfigsRequestResourceConfig) (set map[string]string, unset []string, err error) {
	set = make(map[string]string)
	for _, c := range changes {
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpDelete:
			unset = append(unset, c.Name)
		case kmsg.IncrementalAlterConfigOpSet:
			set[c.Name] = *c.Value
		default:
			if kind, known := settingKind(c.Name); known && kind != engine.KindList {
				return nil, nil, refuse(codeInvalidConfig, "%s is not a list: nothing can be appended to it or taken away", c.Name)
			}
			has, _ := s.Get(c.Name)
			set[c.Name] = changeList(has, *c.Value, c.Op == kmsg.IncrementalAlterConfigOpAppend)
		}
	}
	return set, unset, nil
}

// applyGroupOps is what a group's settings become. None of them is a list.
func applyGroupOps(set map[string]string, changes []kmsg.IncrementalAlterConfigsRequestResourceConfig) (map[string]string, error) {
	for _, c := range changes {
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpDelete:
			delete(set, c.Name)
		case kmsg.IncrementalAlterConfigOpSet:
			set[c.Name] = *c.Value
		default:
			return nil, refuse(codeInvalidConfig, "%s is not a list: nothing can be appended to it or taken away", c.Name)
		}
	}
	return set, nil
}

// changeList puts items, separated by commas, into a list or takes them out.
func changeList(list, items string, add bool) string {
	have := splitList(list)
	for _, item := range splitList(items) {
		at := slices.Index(have, item)
		switch {
		case add && at < 0:
			have = append(have, item)
		case !add && at >= 0:
			have = slices.Delete(have, at, at+1)
		}
	}
	return strings.Join(have, ",")
}

func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

func settingKind(name string) (kind engine.SettingKind, known bool) {
	for _, d := range engine.SettingDocs() {
		if d.Name == name {
			return d.Kind, true
		}
	}
	return "", false
}
