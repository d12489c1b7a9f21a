package kafka

import (
	"slices"
	"strconv"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeConfigs, versions 1 to 4: settings of topics, of this node and of groups.

func init() { register(1, 4, describeConfigs) }

// describedBytes is about what one setting takes in an answer.
const describedBytes = 200

func describeConfigs(r *request, q *kmsg.DescribeConfigsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeConfigsResponse)
	if err := r.grow(len(q.Resources), explainedBytes); err != nil {
		return nil, err
	}
	for i := range q.Resources {
		asked := &q.Resources[i]
		answer := kmsg.NewDescribeConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		list, err := r.configsOf(asked.ResourceType, asked.ResourceName)
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		answer.Configs = []kmsg.DescribeConfigsResponseResourceConfig{}
		if err := r.grow(len(list), describedBytes); err != nil {
			return nil, err
		}
		for _, c := range list {
			if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, c.name) {
				answer.Configs = append(answer.Configs, c.described(q.IncludeSynonyms, q.IncludeDocumentation))
			}
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp, nil
}

func (c *config) described(synonyms, doc bool) kmsg.DescribeConfigsResponseResourceConfig {
	x := kmsg.NewDescribeConfigsResponseResourceConfig()
	x.Name, x.Value, x.ReadOnly, x.Source, x.ConfigType = c.name, &c.value, c.readOnly, c.source, c.kind
	x.ConfigSynonyms = []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{}
	if synonyms {
		for _, s := range c.synonyms {
			y := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			y.Name, y.Value, y.Source = s.name, &s.value, s.source
			x.ConfigSynonyms = append(x.ConfigSynonyms, y)
		}
	}
	if doc {
		x.Documentation = &c.doc
	}
	return x
}

// configsOf are the settings of a resource, for who may see them.
func (r *request) configsOf(kind kmsg.ConfigResourceType, name string) ([]config, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if !r.authorize(OpDescribeConfigs, ResourceTopic, name) {
			return nil, errTopicDenied
		}
		if err := engine.CheckTopicName(name); err != nil {
			return nil, err
		}
		t, err := r.topic(name)
		if err != nil {
			return nil, err
		}
		return topicConfigs(t.Settings(), t.Internal()), nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if !r.authorize(OpDescribeConfigs, ResourceGroup, name) {
			return nil, errGroupDenied
		}
		if name == "" {
			return nil, refuse(codeInvalidRequest, "the group has no name")
		}
		return r.groupConfigs(name)
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics:
		if !r.authorize(OpDescribeConfigs, ResourceCluster, ClusterName) {
			return nil, errClusterDenied
		}
	default:
		return nil, refuse(codeInvalidRequest, "resource type %d is not known", kind)
	}
	if kind == kmsg.ConfigResourceTypeClientMetrics {
		return nil, nil // no subscription of that name: there are none
	}
	if name == "" && kind == kmsg.ConfigResourceTypeBroker {
		return nil, nil // what was set for all brokers at runtime: nothing can be
	}
	if err := r.isNode(name); err != nil {
		return nil, err
	}
	if kind == kmsg.ConfigResourceTypeBrokerLogger {
		return nil, nil // the program has its own logger, whose levels are not ours
	}
	return r.brokerConfigs(), nil
}

// isNode says whether a broker's id, as text, is that of this node.
func (r *request) isNode(name string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return refuse(codeInvalidRequest, "a broker's id must be a number, %q is none", name)
	case int32(id) != r.srv.nodeID:
		return refuse(codeInvalidRequest, "Unexpected broker id, expected %d, but received %s", r.srv.nodeID, name)
	}
	return nil
}
