package kafka

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListConfigResources, versions 0 and 1: what has settings. Version 0 lists
// subscriptions of client metrics only, of which there are none. (KIP-714, KIP-1142)

func init() { register(0, 1, listConfigResources) }

func listConfigResources(r *request, q *kmsg.ListConfigResourcesRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	resp.ConfigResources = []kmsg.ListConfigResourcesResponseConfigResource{}
	if !r.authorize(OpDescribeConfigs, ResourceCluster, ClusterName) {
		resp.ErrorCode = codeClusterAuthorizationFailed
		return resp, nil
	}
	if q.Version == 0 {
		return resp, nil
	}
	wanted := q.ResourceTypes
	if len(wanted) == 0 {
		wanted = []int8{int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker), int8(kmsg.ConfigResourceTypeBrokerLogger), int8(kmsg.ConfigResourceTypeGroupConfig), int8(kmsg.ConfigResourceTypeClientMetrics)}
	}
	seen := make(map[int8]bool)
	for _, kind := range wanted {
		if seen[kind] {
			continue
		}
		seen[kind] = true
		add := func(name string) {
			x := kmsg.NewListConfigResourcesResponseConfigResource()
			x.Name, x.Type = name, kind
			resp.ConfigResources = append(resp.ConfigResources, x)
		}
		switch kmsg.ConfigResourceType(kind) {
		case kmsg.ConfigResourceTypeTopic:
			for _, t := range r.engine.Topics() {
				add(t.Name())
			}
		case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
			for _, b := range r.brokers() {
				add(strconv.Itoa(int(b.id)))
			}
		case kmsg.ConfigResourceTypeGroupConfig:
			names, err := r.engine.Shares().WithSettings(r.ctx)
			if err != nil {
				resp.ErrorCode, resp.ConfigResources = codeOf(err), []kmsg.ListConfigResourcesResponseConfigResource{}
				return resp, nil
			}
			for _, name := range names {
				add(name)
			}
		case kmsg.ConfigResourceTypeClientMetrics:
			// There are no subscriptions.
		default:
			resp.ErrorCode, resp.ConfigResources = codeUnsupportedVersion, []kmsg.ListConfigResourcesResponseConfigResource{}
			return resp, nil
		}
	}
	return resp, nil
}
