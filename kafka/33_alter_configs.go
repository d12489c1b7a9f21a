package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs, versions 0 to 2: replaces all settings of a topic. What is not named
// becomes the default. Newer clients send IncrementalAlterConfigs.

func init() { register(0, 2, alterConfigs) }

func alterConfigs(r *request, q *kmsg.AlterConfigsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AlterConfigsResponse)
	if err := r.grow(len(q.Resources), explainedBytes); err != nil {
		return nil, err
	}
	times := counted(q.Resources, func(a *kmsg.AlterConfigsRequestResource) configResource {
		return configResource{a.ResourceType, a.ResourceName}
	})
	for i := range q.Resources {
		asked := &q.Resources[i]
		what := configResource{asked.ResourceType, asked.ResourceName}
		set, names := make(map[string]string, len(asked.Configs)), make([]string, 0, len(asked.Configs))
		var err error
		for _, c := range asked.Configs {
			if c.Value == nil {
				err = refuse(codeInvalidRequest, "Null value not supported for : %s", c.Name)
				break
			}
			set[c.Name] = *c.Value
			names = append(names, c.Name)
		}
		if err == nil {
			err = checkAlteration(names, times[what])
		}
		if err == nil {
			err = r.alter(what, q.ValidateOnly, names, func(s engine.Settings) (map[string]string, []string, error) {
				var unset []string
				for name := range s.Explicit() {
					if _, ok := set[name]; !ok {
						unset = append(unset, name)
					}
				}
				return set, unset, nil
			}, func(map[string]string) (map[string]string, error) { return set, nil })
		}
		answer := kmsg.NewAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		resp.Resources = append(resp.Resources, answer)
	}
	return resp, nil
}
